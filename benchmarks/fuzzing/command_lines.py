"""Random command lines: the options that the programs declare, with values that are right, at an edge, or absurd."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from random import Random
from typing import Any

BASES: dict[str, tuple[str, ...]] = {
    "generate": ("-m", "model", "-n", "8", "--max-steps", "2"),
    "infill": ("text.txt", "-m", "model", "-n", "20", "--max-steps", "2"),
    "edit": ("text.txt", "Say it shorter.", "--lines", "1", "-m", "model", "--max-steps", "2"),
    "train": (
        *("--data", "data", "-m", "model", "--out", "out", "--steps", "1", "--rank", "2", "--batch-size", "2"),
        *("--max-seq-length", "64", "--evaluate-every", "0", "--answers", "0"),
    ),
    "bench": (
        *("model", "--no-speed", "--prompts", "suite.jsonl", "--repeats", "1", "--retries", "1", "-n", "4"),
        *("--max-steps", "2", "--lengths", "8", "--prefixes", "8", "--canvases", "4"),
    ),
    "convert": ("model", "out"),
    "fuse": ("model", "out", "--adapter", "adapter"),
    "models": (".",),
}
"""What each program is asked for at least: little work on the small model."""

_LEFT_OUT = ("debug", "version", "help", "install_completion", "show_completion", "upload_repo")
"""Options that show tracebacks or nothing, change the shell's files, or need the network."""
PROMPTS = (
    "", " ", "\n", "Say a.", "-", "--", "-x", "a" * 10_000, "wort " * 2000,
    "שלום עולם \u202eabc", "مرحبا", "🙂👩‍👩‍👧‍👦🏳️‍🌈", "漢字かな",
    "<|turn>user\nhi<turn|>", "<eos><bos><pad><mask>", "<|channel>thought\n<channel|>", "\x1b[31mred\x07\x9b",
    "e\u0301" * 50,
    "\u2028\u2029\x85", "\r\n\t\x0b", "\ufeffa", "\ud800", "\udcff\udcfe",
    "{{ messages }}{% if %}", '{"a": [1, 2', "<gap>",
    "%s %n %d {0} {}", "$(touch out.txt) `ls`", "\U0010ffff\ufffe\uffff",
)  # fmt: skip
"""Texts of all kinds; surrogates from U+DC80 on stand for bytes that are no UTF-8."""
_STDIN = (
    b"",
    b"",
    b"",
    b"text",
    b"\x00",
    b"a\x00b",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbfa",
    b"a <gap:2> b",
    b"\r\n" * 99,
)
_INTEGERS = (
    "0", "1", "-1", "2", "3", "7", "16", "17", "64", "", "x", "1.5", "1e3", "0x10", " 4 ", "٣", "--", "9" * 5000,
    str(2**31), str(2**63), str(2**64),
)  # fmt: skip
_FLOATS = ("0", "1", "-1", "0.5", "1e-9", "1e9", "1e400", "1e-400", "nan", "inf", "-inf", "", "x", "0,5", "9" * 5000)
_USUAL = {"N": ("1", "2", "3", "7", "16"), "NUMBER": ("0.1", "0.5", "0.9", "1", "2"), "P": ("0.1", "0.9")}
_PATHS = (
    "nowhere", ".", "", "/dev/null", "model", "model/config.json", "text.txt", "schema.json", "batch.jsonl",
    "suite.jsonl", "data", "adapter", "a" * 300, "a/b/c", "~nobody/x", "out", "\udcff", "tmp",
)  # fmt: skip
_TEXTS = (
    *PROMPTS, *_PATHS, "demo", "user/name", "a,b", ",", "a,,a", "yes, no", "1:2", "2:1", "0:0", "1:99", "9" * 5000,
    "float32", "bfloat16", "causal", "canvas", "full", "affine", "mxfp4", "experts=4", "router=bf16", "x=4", "5GB",
    "1KB", "-1GB", "1e9", "[ab]{2}", "a(", "(a{99}){99}", "(?=a)b", "\\p{Greek}+", "[^\\x00]*", "é{3}", "()", "(?i)x",
    "^a$", "speculative",
)  # fmt: skip

_FOREIGN = (
    "--temp",
    "-p",
    "--prompt",
    "--hf-path",
    "--q-bits",
    "--min-p",
    "--save-path",
    "--train",
    "-d",
    "--nonsense",
)
"""Options of other programs, and of none."""
_ATOMS = (
    "a", "b", "é", "🙂", ".", "[ab]", "[^a]", "[a-", "]", "\\d", "\\w", "\\s", "\\p{L}", "\\x{41}", "\\u0041", "\\",
    "\\b", "\\1", "(", "(?:", "(?i)", "(?=x)", "(?P<n>", ")", "|", "*", "+", "?", "{3}", "{0}", "{2,}",
    "{5,2}", "{999}", "^", "$",
    "\\Z", "\n", "&&", "--",
)  # fmt: skip
"""Parts of regular expressions, from which most patterns are made."""
_VALUES = {"N": _INTEGERS, "NUMBER": _FLOATS, "P": _FLOATS, "PATH": _PATHS, "FILE": _PATHS, "DIR": _PATHS}
"""Values of options by the word that stands for the value on help pages."""


@cache
def _options(program: str) -> tuple[Any, ...]:
    """Return the parameters of a program, as typer reads them."""
    import typer

    command = typer.main.get_command(import_module(f"mlx_diffgemma.{program}").app)
    return tuple(each for each in command.params if each.name not in _LEFT_OUT)


def random_command(rng: Random) -> tuple[str, tuple[str, ...], bytes]:
    """Return a program, its words, and what is piped into it."""
    program = rng.choice(("generate", "generate", "infill", *BASES))
    words = list(BASES[program])
    if program == "generate" and rng.random() < 0.15:
        words[-2:] = ["--mode", "causal"]
    if rng.random() < 0.2:
        words[rng.randrange(len(words))] = rng.choice(_TEXTS)
    if program == "generate" and rng.random() < 0.9:
        words.insert(0, rng.choice(PROMPTS))
    if program == "edit" and rng.random() < 0.3:
        words[1] = rng.choice(PROMPTS)
    if program in ("infill", "edit") and rng.random() < 0.2:
        words[0] = "-"
    named = [each for each in _options(program) if each.param_type_name == "option"]
    if program in ("generate", "infill") and rng.random() < 0.15:
        words += _written(next(each for each in named if each.name == "regex"), rng)
    if rng.random() < 0.1:
        words += [rng.choice(_FOREIGN), rng.choice(_TEXTS)]
    for each in rng.sample(named, min(len(named), rng.choice((0, 1, 1, 2, 3, 5)))):
        words += _written(each, rng)
    return program, tuple(map(_as_argument, words)), rng.choice(_STDIN)


def _as_argument(word: str) -> str:
    """Return a word as Python gives it to a program: without zero bytes, and bytes that are no UTF-8 escaped."""
    word = word.replace("\x00", "")
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return os.fsdecode(word.encode(errors="surrogatepass"))
    return word


def _written(parameter: Any, rng: Random) -> list[str]:
    """Return the words of an option with a random value."""
    flag = rng.choice([*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag:
        return [flag]
    metavar = parameter.metavar or ""
    values = _VALUES.get(metavar)
    if metavar.startswith("<") and rng.random() < 0.8:
        values = tuple(metavar.strip("<>").split("|"))
    if metavar in _USUAL and rng.random() < 0.6:
        values = _USUAL[metavar]
    value = rng.choice(values or _TEXTS)
    if metavar == "PATTERN" and rng.random() < 0.8:
        value = "".join(rng.choices(_ATOMS, k=rng.randint(1, 7)))
    return [f"{flag}={value}"] if flag.startswith("--") and rng.random() < 0.3 else [flag, value]
