"""README, CONTRIBUTING and docs/: every shell command and every Python example is run, every link leads somewhere.

The examples run in the order of the documents, in one folder where the names that they use are a tiny model and small
files. A block that cannot run here says so in its first line, and is skipped with the reason that it gives:

    # not run in tests: needs the network
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from unittest.mock import patch

import pytest
from in_process import call_for_text

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).exists()),
    *sorted((ROOT / "docs").glob("*.md")),
]
REPOSITORY = "google/diffusiongemma-26B-A4B-it"
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
NOT_RUN = "# not run in tests:"
INSTALLERS = ("git ", "make ", "pip ", "uv ")
"""Commands that set up the project, and the one that runs these tests."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A code block: its document's name, language, text, and the block without a language right after it."""

    document: str
    language: str
    text: str
    printed: str | None

    @property
    def reason(self) -> str | None:
        """Why the block is not run, from its first line."""
        first = self.text.partition("\n")[0]
        return first.removeprefix(NOT_RUN).strip() if first.startswith(NOT_RUN) else None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One shell command or one Python program, and what it must print if the document says so."""

    block: Block
    text: str
    printed: str | None = None

    def __str__(self) -> str:
        """Return the test's name: the document and the example's last line."""
        return f"{self.block.document}: {self.text.splitlines()[-1].strip()}"


def blocks() -> Iterator[Block]:
    """All code blocks of all documents, those in lists too."""
    fence = re.compile(r"^( *)```(\w*)\n(.*?)^\1```\n(?:\n\1```\n(.*?)^\1```\n)?", flags=re.DOTALL | re.MULTILINE)
    for path in DOCUMENTS:
        for _, language, text, printed in fence.findall(path.read_text(encoding="utf-8")):
            yield Block(
                document=str(path.relative_to(ROOT)),
                language=language,
                text=textwrap.dedent(text),
                printed=textwrap.dedent(printed) or None,
            )


BLOCKS = list(blocks())


def examples() -> Iterator[Example]:
    """What is run, in order; an example that two documents show is run once."""
    seen: set[str] = set()
    for block in BLOCKS:
        texts = parts(block)
        for text in texts:
            if text not in seen:
                yield Example(block=block, text=text, printed=block.printed if text is texts[-1] else None)
        seen.update(texts)


def parts(block: Block) -> list[str]:
    """A block's Python program, or its shell commands without comments and installers."""
    if block.reason is not None:
        return []
    if block.language == "python":
        return [block.text]
    if block.language == "sh":
        lines = [line.split("  #")[0].rstrip() for line in block.text.splitlines()]
        return [line for line in lines if line and not line.startswith(("#", *INSTALLERS))]
    return []


EXAMPLES = list(examples())
CONVERSION = next(example for example in EXAMPLES if re.match(r"mlx_diffgemma[. ]convert ", example.text))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    """A folder where the repository is a tiny model; answers of one canvas of 64 tokens and one step keep it quick."""
    folder = tmp_path_factory.mktemp("documents")
    model = folder / REPOSITORY
    shutil.copytree(demo, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"canvas_length": 64}))
    (model / "generation_config.json").write_text(
        '{"max_new_tokens": 64, "max_denoising_steps": 1, "eos_token_id": [1, 106, 50]}'
    )
    shutil.copytree(model, folder / "my-fine-tune")
    (folder / "README.md").write_text("A short text about a lighthouse.")
    (folder / "mine.jsonl").write_text(next(block.text for block in BLOCKS if block.language == "jsonl"))
    (folder / "person.json").write_text('{"properties": {"age": {"enum": [34, 35]}}, "required": ["age"]}')
    (folder / "data").mkdir()
    for name in ("train", "valid"):
        line = json.dumps({"prompt": f"Last word: fig, {name}", "completion": name})
        (folder / "data" / f"{name}.jsonl").write_text(f"{line}\n" * 4)
    (folder / "bin").mkdir()
    for name, target in SCRIPTS.items():
        module, function = target.split(":")
        script = folder / "bin" / name
        script.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
        script.chmod(0o755)
    run(folder, CONVERSION.text)
    return folder


def environment(folder: Path, model: str) -> dict[str, str]:
    """The environment of an example: our programs on the path, a model named, a cache of its own."""
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "MLX_DIFFGEMMA_MODEL": model,
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def run(folder: Path, command: str, model: str = "diffusiongemma-4bit") -> str:
    """Run a command and return its stdout: in a shell if it needs one, else by calling the program in this process."""
    words = shlex.shlex(command, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    program, *arguments = words
    env = environment(folder, model)
    if program in SCRIPTS and not any(re.fullmatch(r"[();<>|&]+", word) for word in arguments):
        module, function = SCRIPTS[program].split(":")
        with contextlib.chdir(folder):
            done = call_for_text(getattr(importlib.import_module(module), function), *arguments, env=env)
    else:
        shell = ["bash", "-o", "pipefail", "-c", command]
        done = subprocess.run(
            shell, check=False, cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def run_python(folder: Path, program: str) -> str:
    """Run a Python example in this process and return its stdout."""
    printed = io.StringIO()
    env = environment(folder, "diffusiongemma-4bit")
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), patch.dict(os.environ, env):
        exec(compile(program, "example.py", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def test_the_first_conversion_makes_the_model_that_the_examples_use() -> None:
    assert re.match(rf"mlx_diffgemma[. ]convert {REPOSITORY} diffusiongemma-4bit\b", CONVERSION.text)
    assert CONVERSION.block.document == "README.md"


def test_the_readme_says_what_its_first_command_prints() -> None:
    first = next(example for example in EXAMPLES if example.text.startswith("mlx_diffgemma"))
    assert first.block.document == "README.md"
    assert first.printed == "47 + 38 = 85\n"


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_example_runs(workplace: Path, example: Example) -> None:
    if example.block.language == "python":
        assert run_python(workplace, example.text).strip()
    elif example.printed is not None:
        # What a document promises to the word is of the model in the package.
        assert run(workplace, example.text, model="demo") == example.printed
    else:
        remove_result(workplace, example.text)
        # One example a step: what a training writes is the same, and it takes a quarter of the time.
        sooner = " --batch-size 1" if re.match(r"mlx_diffgemma[. ]train ", example.text) else ""
        check(workplace, example.text, run(workplace, example.text + sooner))


def remove_result(folder: Path, command: str) -> None:
    """Remove the folder that an earlier example has converted or fused to."""
    if made := re.match(r"mlx_diffgemma[. ](?:convert|fuse) \S+ (\S+)", command):
        shutil.rmtree(folder / made[1], ignore_errors=True)


def check(folder: Path, command: str, printed: str) -> None:
    """Assert that a command did what the documents say."""
    if re.search(r"mlx_diffgemma[. ]train ", command):
        assert {"adapters.safetensors", "log.jsonl", "loss.png"} <= {
            file.name for file in (folder / "adapter").iterdir()
        }
    elif "--plot" in command:
        assert (folder / "figures.png").read_bytes().startswith(b"\x89PNG")
        assert "cost" in printed
    elif "--batch " in command:
        assert [json.loads(line)["index"] for line in printed.splitlines()] == [0, 1]
    elif "--json " in command:
        answer = json.loads(printed)
        assert set(answer) >= {"text", "tokens", "finish_reason", "stats"}
        assert ("choices" in answer) == ("--choices" in command)
    elif "--choices" in command:
        assert printed.strip() in {"yes", "no", "maybe"}
    elif "--regex" in command:
        date.fromisoformat(printed.strip())
    elif "--json-schema person.json" in command:
        assert json.loads(printed)["age"] in {34, 35}
    elif "--json-schema" in command:
        answer = json.loads(printed)
        assert (type(answer["name"]), type(answer["age"])) == (str, int)
    elif redirected := re.search(r" > (\S+)$", command):
        assert printed == ""
        assert (folder / redirected[1]).read_text().strip()
    elif "--in-place" in command:
        assert printed == ""
        assert "<gap" not in (folder / shlex.split(command)[2]).read_text()
    elif command.startswith("export "):
        assert command == "export MLX_DIFFGEMMA_MODEL=diffusiongemma-4bit"
    else:
        assert printed.strip()


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.reason is not None],
    ids=lambda block: f"{block.document}: {block.reason}",
)
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    assert block.reason
    pytest.skip(f"{block.document}: {block.reason}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_links_to_exists(document: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
