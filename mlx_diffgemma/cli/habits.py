"""What users of mlx-lm and mlx-vlm have in the fingers: their options in our words, or what takes their place.

    mlx_diffgemma generate --temp 0.5 --prompt Hello   ->   mlx_diffgemma generate --temperature 0.5 -- Hello

`in_our_words` rewrites a command line before it is parsed. An option that nothing here corresponds to is answered by
`instead_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Argument(NamedTuple):
    """An option whose value is an argument here; arguments come in this order."""

    order: int


_LEFT_OUT = ""
"""An option without a value that says what is so anyway."""
_SOURCE, _DESTINATION = Argument(0), Argument(1)
_WORDS: Mapping[str, Mapping[str, str | Argument]] = {
    "generate": {
        "--prompt": Argument(0),
        "-p": Argument(0),
        "--temp": "--temperature",
        "--system-prompt": "--system",
        "--ignore-chat-template": "--raw",
        "--extra-eos-token": "--stop",
        "--eos-tokens": "--stop",
        "--max-denoising-steps": "--max-steps",
        "--block-length": "--canvas-length",
        "--stability-steps": "--stability-threshold",
        "--enable-thinking": "--thinking",
    },
    "train": {
        "--train": _LEFT_OUT,
        "--resume-adapter-file": "--start-from",
    },
    "convert": {
        "--hf-path": _SOURCE,
        "--model": _SOURCE,
        "--mlx-path": _DESTINATION,
        "--quantize": _LEFT_OUT,
        "-q": _LEFT_OUT,
        "--q-bits": "--bits",
        "--q-group-size": "--group-size",
        "--q-mode": "--mode",
    },
    "fuse": {
        "--model": _SOURCE,
        "--save-path": _DESTINATION,
        "--adapter-path": "--adapter",
    },
}
"""Program -> option of other programs -> the option that it is here."""
_SAMPLERS = "positions are accepted by their entropy: see --entropy-bound and --temperature"
_PENALTIES = "a canvas is drawn at once, so there is no penalty for tokens before: try --temperature or --entropy-bound"
_CACHES = "the keys and values of a prefix are not packed, and leave out what the sliding window does not reach"
_DRAFTS = "the model drafts for itself: see --mode speculative, whose drafts are as long as --canvas-length"
_MODELS = "nothing that comes with a model is run, so nothing needs to be trusted: leave it out"
_PICTURES = "this version reads and writes text only"
_INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(("--min-p", "--top-k", "--xtc-probability", "--xtc-threshold", "--min-tokens-to-keep"), _SAMPLERS),
    **dict.fromkeys(("--repetition-penalty", "--presence-penalty", "--frequency-penalty"), _PENALTIES),
    **dict.fromkeys(("--max-kv-size", "--kv-bits", "--kv-group-size", "--quantized-kv-start"), _CACHES),
    **dict.fromkeys(("--draft-model", "--num-draft-tokens", "--draft-kind", "--draft-block-size"), _DRAFTS),
    **dict.fromkeys(("--image", "--video", "--audio", "--resize-shape"), _PICTURES),
    "--trust-remote-code": _MODELS,
    "--verbose": "statistics are printed unless --quiet says otherwise: leave it out",
    "--prompt-cache-file": "in Python, session.generate(prompt, prefix=...) goes on after what was read",
    "--prefill-response": "mlx_diffgemma infill fills in the rest of a text that is begun",
    "--prefill-step-size": "a prompt is read in parts of one size: leave it out",
    "--chat-template-config": "the template's one switch is --thinking",
    "--use-default-chat-template": "the model's own template is used: leave it out, or pass --raw",
    "--editing-threshold": "see --entropy-bound and --verify",
    "--threshold": "see --entropy-bound, which decides what is accepted in a step",
    "--skip-special-tokens": "control tokens are never part of the text: leave it out",
    "--thinking-budget": "--max-tokens limits thinking and answer together",
    "--dequantize": "convert the 16-bit checkpoint with --no-quantize, or fuse an adapter with fuse --dequantize",
    "-d": "convert the 16-bit checkpoint with --no-quantize, or fuse an adapter with fuse --dequantize",
    "--quant-predicate": "--recipe and --set say which weights get how many bits",
    "--fine-tune-type": "an adapter is trained, or with --full all parameters",
    "--optimizer": "it is AdamW: see --learning-rate, --beta1, --beta2 and --weight-decay",
    "--val-batches": "all of valid.jsonl counts, up to 16 batches: see --evaluate-every",
    "--steps-per-report": "every step is in log.jsonl in the folder of --adapter-path",
    "--test": "held-out losses and answers are in the log: see --evaluate-every",
    "--config": "there is no file of options: pass them on the command line",
    "-c": "there is no file of options: pass them on the command line",
    "--report-to": "every step is in log.jsonl, which other programs can read",
    "--export-gguf": "llama.cpp's format is not written",
    "--gguf-path": "llama.cpp's format is not written",
}  # fmt: skip
"""Option of other programs -> what to do instead, in any program."""


def in_our_words(program: str, arguments: Sequence[str]) -> list[str]:
    """Return a command line with the options of mlx-lm and mlx-vlm that are options or arguments here.

    program: its name, such as "generate". What follows "--" stays as it is.
    """
    words = _WORDS.get(program, {})
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept: list[str] = []
    values: list[tuple[int, str]] = []
    parts = iter(arguments[:end])
    for part in parts:
        flag, has_value, value = part.partition("=")
        ours = words.get(flag)
        if isinstance(ours, Argument):
            found = value if has_value else next(parts, None)
            kept += [part] if found is None else []
            values += [] if found is None else [(ours.order, found)]
        elif ours is not None:
            kept += [ours + has_value + value] if ours else []
        else:
            kept.append(part)
    rest = arguments[end + 1 :]
    named = [value for _, value in sorted(values)]
    return [*kept, "--", *named, *rest] if named or end < len(arguments) else kept


def instead_of(flag: str) -> str | None:
    """Return what takes the place of an option of mlx-lm or mlx-vlm; None for any other."""
    return _INSTEAD.get(flag)
