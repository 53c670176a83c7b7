"""Write the demo model's tokenizer: tokenizer.json, tokenizer_config.json and chat_template.jinja.

    python examples/demo_model/vocabulary.py FOLDER

It is of Gemma's kind: ▁ for spaces, bytes for unknown characters, the release's control tokens at their ids. Nothing in
it is learned, because the model's small language is known: every unit of it is a piece.

    text -> spaces become ▁ -> `pattern` splits units -> a unit that is a piece is one token, another its characters

A digit is always a token of its own, with the space before it: " 47" is ▁4 7. In lists the space belongs to the
punctuation, and names and words have no space, so that a word has one token wherever it is.
"""

from __future__ import annotations

import argparse
import json
import re
import string
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_checkpoint import BYTES, CONTROLS, TEMPLATE
from demo_model import phrases
from demo_model.words import ARGUMENTS, CITIES, FUNCTIONS, NAMES, WORDS

FIXED = ['{"name": "', '", "age":', ', "city": "', '"}', "def ", "):", "\n    return "]
"""Units of JSON and Python that no rule of `pattern` finds."""
ROLES = ["user", "model", "system", "thought"]


def phrasings() -> list[str]:
    """Return all wordings of questions and answers, with 0 for their open parts."""
    texts = [*phrases.SUDOKU, *phrases.SUMS, *phrases.JSON, *phrases.COUNT, *phrases.SORT]
    texts += [phrase.replace("{task}", task) for phrase in phrases.FUNCTION for task in phrases.OPERATIONS]
    texts += [f"def 0(0, 0):\n    return {value}" for value in phrases.OPERATIONS.values()]
    texts += [text for pair in phrases.chat_questions() for text in pair]
    return [re.sub(r"\{\w*\}", "0", text) for text in [*texts, "is 1 year old", "is 10 years old"]]


def pattern() -> str:
    """Return a pattern of the units of a text: JSON and Python, arithmetic, digits, punctuation with a space, words."""
    spaced = {word for text in phrasings() for word in re.findall(r"(?<![,:]) ([A-Za-z]+)", text)}
    units = [
        *(re.escape(unit).replace("\\ ", " ").replace("\\\n", "\n") for unit in FIXED),
        r" [-+*/%] (?=\p{L})",
        r" [-+*/%=]",
        r" ?[0-9]",
        r"[,:] (?![0-9])",
        rf" (?:{'|'.join(sorted(spaced))})(?!\p{{L}})",
        r"\p{L}+",
    ]
    return "|".join(units).replace(" ", "▁")


def vocabulary() -> dict[str, int]:
    """Return every piece with its id: controls, bytes, characters, then the units of all wordings."""
    controls = [CONTROLS.get(token, f"<unused{token}>") for token in range(107)]
    characters = ["\n", "▁", *sorted(set(string.printable) - set(string.whitespace))]
    words = [*NAMES, *CITIES, *WORDS, *FUNCTIONS, *ARGUMENTS, *ROLES]
    spaced = [*(f"▁{sign}" for sign in string.digits + "+-*/%="), *(f"▁{sign}▁" for sign in "+-*/%"), ",▁", ":▁"]
    fixed = [unit.replace(" ", "▁") for unit in FIXED]
    cut = splitter()
    units = [unit for text in phrasings() for unit, _ in cut.pre_tokenize_str(text.replace(" ", "▁"))]
    spoken = [unit for unit in units if unit.strip("▁").isalpha()]
    pieces = dict.fromkeys([*controls, *BYTES, *characters, *words, *spaced, *fixed, *spoken])
    return {piece: token for token, piece in enumerate(pieces)}


def splitter() -> pre_tokenizers.PreTokenizer:
    """Return a splitter that splits a text into units and the text between them."""
    return pre_tokenizers.Split(Regex(pattern()), behavior="isolated")


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja, as the release has them."""
    pieces = vocabulary()
    tokenizer = Tokenizer(models.BPE(pieces, [], unk_token="<unk>", byte_fallback=True, ignore_merges=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = splitter()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in list(pieces)[:107]])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write_tokenizer(parser.parse_args().folder)
