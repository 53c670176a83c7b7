"""Write the demo model's tokenizer: tokenizer.json, tokenizer_config.json and chat_template.jinja.

    python examples/demo_next/vocabulary.py FOLDER

It is of Gemma's kind: ▁ for spaces, bytes for unknown characters, the release's control tokens at their ids. Nothing in
it is learned. A letter is a token, so that the model can spell, copy and sort words that it never saw; the signs of
JSON and Python, and the phrases of its own fixed answers, are tokens too.

    text -> spaces become ▁ -> `pattern` splits units -> a unit that is a piece is one token, another its characters

A digit is always a token of its own, with the space before it: " 47" is ▁4 7.
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

FIXED = ['{"', '": "', '": ', '", "', ', "', '"}', "):", "\n    return ", ", "]
"""Units of JSON and Python, and the sign between items of a list."""
PHRASES = [
    "Hello! I am", "I am a", " small demo model", " of mlx-diffgemma", ", and I write", " by denoising",
    " a canvas.", " and cannot", " answer that.",
    "I can calculate,", " count, sort, solve", " small sudokus,", " write JSON", " and short Python functions,",
    " and change", " small texts.",
    "You are welcome!", ' Try "What is 47 + 38?"', ' Try "Count from 3 to 9"',
    ' Try "Reverse the words: one two three"',
    ' or "Sort: pear, fig, apple".', ' or "Upper case: hello".', ' or "Count from 3 to 9".', " a small demo model",
]  # fmt: skip
"""Units of the answers about the model itself; each has a part that nobody would write by chance."""
ROLES = ["user", "model", "system", "thought"]
PICTURES = ["<|image>", "<image|>", "<|image|>", "<|video|>"]
"""Control tokens that the release has after its ordinary tokens; here they follow the other control tokens."""
FIRST_BYTE = 112
"""The id of the first byte's piece; the ids before it are control tokens."""


def pattern() -> str:
    """Return a pattern of the units of a text: phrases, roles, JSON and Python, arithmetic, digits.

    Letters are left over.
    """
    units = [
        *map(_escaped, sorted(PHRASES, key=len, reverse=True)),
        rf"\A(?:{'|'.join(ROLES)})(?=\n)",
        r"(?<!\p{L})def (?=\p{L})",
        *map(_escaped, sorted(FIXED, key=len, reverse=True)),
        r" [-+*/%] (?=\p{L})",
        r" [-+*/%=](?!\p{L})",
        r" ?[0-9]",
    ]
    return "|".join(units).replace(" ", "▁")


def _escaped(unit: str) -> str:
    return re.escape(unit).replace("\\ ", " ").replace("\\\n", "\n")


def vocabulary() -> dict[str, int]:
    """Return every piece with its id: controls, bytes, characters, then units."""
    controls = [CONTROLS.get(token, f"<unused{token}>") for token in range(107)]
    controls += [*PICTURES, *(f"<unused{token}>" for token in range(107 + len(PICTURES), FIRST_BYTE))]
    characters = ["\n", "▁", *sorted(set(string.printable) - set(string.whitespace))]
    spaced = [*(f"▁{sign}" for sign in string.digits + "+-*/%="), *(f"▁{sign}▁" for sign in "+-*/%"), "def▁"]
    units = [unit.replace(" ", "▁") for unit in (*FIXED, *ROLES, *PHRASES)]
    pieces = dict.fromkeys([*controls, *BYTES, *characters, *spaced, *units])
    return {piece: token for token, piece in enumerate(pieces)}


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja, as the release has them."""
    pieces = vocabulary()
    tokenizer = Tokenizer(models.BPE(pieces, [], unk_token="<unk>", byte_fallback=True, ignore_merges=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern()), behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in list(pieces)[:FIRST_BYTE]])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    pictures = {"boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names, **pictures}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    write_tokenizer(parser.parse_args().folder)
