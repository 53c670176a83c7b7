"""The files that cases begin with: a small model with random weights, an adapter, data, prompts, a text, a schema."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from in_process import call_for_text

DEMO_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
TEXT = 'Dear <gap:1-4>,\nsee you on <gap>.\n{"age": <gap:2>}\n'
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 9},
        "tags": {"type": "array", "items": {"enum": ["a", 1, None]}, "maxItems": 2},
        "kind": {"anyOf": [{"const": "x"}, {"$ref": "#/$defs/flag"}]},
    },
    "required": ["name"],
    "$defs": {"flag": {"type": "boolean"}},
}
ROWS: tuple[Mapping[str, Any], ...] = (
    {"prompt": "Say a.", "completion": "a"},
    {"messages": [{"role": "user", "content": "Say b."}, {"role": "assistant", "content": "b"}]},
    {"prompt": "Say c.", "completion": "c"},
)
BATCH: tuple[Mapping[str, Any], ...] = (
    {"prompt": "Say a.", "max_tokens": 3, "seed": 1},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say b."}], "stop": ["x"]},
    {"prompt": "Say c.", "choices": ["yes", "no"]},
    {"prompt": "Say d.", "regex": "[ab]{2}", "temperature": 0.5},
)
SUITE: tuple[Mapping[str, Any], ...] = (
    {"name": "one", "prompt": "Say a.", "check": {"regex": "(?i)a"}, "max_tokens": 4},
    {"name": "two", "group": "g", "prompt": "Say b.", "check": {"exact": "b"}, "choices": ["a", "b"]},
    {"name": "three", "template": "a <gap:1-2>.", "check": {"json": 3}, "max_steps": 2},
)


def write_originals(folder: Path) -> None:
    """Write the files of every case; the adapter is trained for one step."""
    # Imported here: workers set limits before MLX is loaded.
    from random_checkpoint import write_checkpoint

    import mlx_diffgemma
    from mlx_diffgemma import train

    folder.mkdir(parents=True)
    demo = Path(mlx_diffgemma.__file__).parent / "demo"
    tokens = len(json.loads((demo / "tokenizer.json").read_text())["model"]["vocab"])
    write_checkpoint(folder / "model", layers=2, width="tiny", vocab_size=-(-tokens // 64) * 64)
    for name in DEMO_FILES:
        shutil.copyfile(demo / name, folder / "model" / name)
    (folder / "text.txt").write_text(TEXT)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    (folder / "data").mkdir()
    for name, rows in (("data/train", ROWS), ("data/valid", ROWS[:1]), ("batch", BATCH), ("suite", SUITE)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tmp").mkdir()
    words = ("--data", folder / "data", "--out", folder / "trained", "--steps", 1, "--answers", 0, "--rank", 2, "-q")
    done = call_for_text(train.main, "-m", folder / "model", *words)
    if done.returncode:
        raise SystemExit(f"the adapter cannot be trained: {done.stderr}")
    (folder / "adapter").mkdir()
    for name in ("adapters.safetensors", "adapter_config.json"):
        shutil.copyfile(folder / "trained" / name, folder / "adapter" / name)
    shutil.rmtree(folder / "trained")


def warm_up(originals: Path) -> None:
    """Answer some prompts: MLX compiles its kernels for the CPU when they are first needed, which takes long."""
    from mlx_diffgemma import generate

    for words in (("Say a.",), ("Say a. " * 20,), ("Say a.", "--choices", "a,b")):
        call_for_text(generate.main, *words, "-m", originals / "model", "-n", 40, "--max-steps", 2)


def set_up(originals: Path, folder: Path, changed: Mapping[str, bytes]) -> None:
    """Make a folder with the files of a case; `changed` are those that it has in place of the originals."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(originals, folder)
    for name, data in changed.items():
        (folder / name).write_bytes(data)


def contents(folder: Path) -> dict[str, str]:
    """Return what is in a folder: a digest of every file by its path, "folder" for a folder."""
    found: dict[str, str] = {}
    for root, folders, files in os.walk(folder):
        found |= {str((Path(root) / name).relative_to(folder)): "folder" for name in folders}
        for name in files:
            path = Path(root) / name
            is_file = path.is_file()
            found[str(path.relative_to(folder))] = hashlib.sha1(path.read_bytes()).hexdigest() if is_file else "special"
    return found
