"""Cases by name: "config:17" is the 17th mangled config.json, "options:5" the 5th random command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzzing.command_lines import BASES, random_command
from fuzzing.mangling import Kind, mangled

OPTIONS = "options"
"""The reader that is a command line itself."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A program, its words, what is piped into it, and the files that are not the originals."""

    name: str
    program: str
    words: tuple[str, ...]
    stdin: bytes = b""
    changed: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Something that reads files of a user: a file of the sandbox, its kind, and the command lines that read it."""

    file: str
    kind: Kind
    commands: tuple[tuple[str, ...], ...]


_ANSWER = ("generate", "Say a.", *BASES["generate"])
_CONVERT, _FUSE = ("convert", *BASES["convert"]), ("fuse", *BASES["fuse"])
_WITH_ADAPTER = (*_ANSWER, "--adapter", "adapter")
READERS = {
    "config": Reader(file="model/config.json", kind="json", commands=(_ANSWER, _ANSWER, _CONVERT)),
    "index": Reader(file="model/model.safetensors.index.json", kind="json", commands=(_ANSWER, _CONVERT)),
    "header": Reader(file="", kind="safetensors", commands=(_ANSWER, _ANSWER, _CONVERT)),
    "tokenizer": Reader(file="model/tokenizer.json", kind="json", commands=(_ANSWER,)),
    "tokenizer_config": Reader(file="model/tokenizer_config.json", kind="json", commands=(_ANSWER,)),
    "template": Reader(file="model/chat_template.jinja", kind="template", commands=(_ANSWER,)),
    "generation_config": Reader(file="model/generation_config.json", kind="json", commands=(_ANSWER,)),
    "adapter_config": Reader(file="adapter/adapter_config.json", kind="json", commands=(_WITH_ADAPTER, _FUSE)),
    "adapter_weights": Reader(file="adapter/adapters.safetensors", kind="safetensors", commands=(_WITH_ADAPTER, _FUSE)),
    "batch": Reader(
        file="batch.jsonl", kind="lines", commands=(("generate", "--batch", "batch.jsonl", *BASES["generate"]),)
    ),
    "training": Reader(file="data/train.jsonl", kind="lines", commands=(("train", *BASES["train"]),)),
    "suite": Reader(file="suite.jsonl", kind="lines", commands=(("bench", *BASES["bench"]),)),
    "text": Reader(
        file="text.txt",
        kind="text",
        commands=(("infill", *BASES["infill"]), ("infill", *BASES["infill"], "--in-place"), ("edit", *BASES["edit"])),
    ),
    "schema": Reader(
        file="schema.json", kind="json", commands=((*_ANSWER, "-n", "64", "--json-schema", "schema.json"),)
    ),
}
"""Everything that reads a file, by the name of its cases."""


def case_of(name: str, originals: Path) -> Case:
    """Return the case of a name. Raises SystemExit for a name of none."""
    reader, _, seed = name.partition(":")
    rng = Random(name)
    if not seed.isdigit() or (reader != OPTIONS and reader not in READERS):
        raise SystemExit(f"{name!r} is no case: give one such as {OPTIONS}:5 or {next(iter(READERS))}:17")
    if reader == OPTIONS:
        program, words, stdin = random_command(rng)
        return Case(name=name, program=program, words=words, stdin=stdin)
    about = READERS[reader]
    file = about.file or f"model/{rng.choice(sorted((originals / 'model').glob('*.safetensors'))).name}"
    program, *words = rng.choice(about.commands)
    data = mangled((originals / file).read_bytes(), about.kind, rng)
    return Case(name=name, program=program, words=tuple(words), changed={file: data})
