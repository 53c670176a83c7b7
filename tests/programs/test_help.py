"""Help pages at 80 columns, the umbrella command, and shell completion."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from terminal import environment, run_in_terminal

from mlx_diffgemma.__main__ import PROGRAMS

DTYPES = {"convert": "bfloat16|float16|float32"}
MODES = {
    "generate": ["canvas|causal|speculative"],
    "bench": ["canvas|causal|speculative"],
    "convert": ["affine|mxfp4|mxfp8|nvfp4"],
}
NAMES = ("generate", "infill", "edit", "train", "bench", "convert", "fuse")
UMBRELLA = (sys.executable, "-m", "mlx_diffgemma")
HEAVY = "{'mlx', 'transformers', 'numpy', 'mlx_lm', 'huggingface_hub', 'rich', 'mlx_diffgemma_convert'}"


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program without a terminal."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def option_names(name: str) -> set[str]:
    """All option names of a program that are not hidden."""
    command = typer.main.get_command(import_module(f"mlx_diffgemma.{name}").app)
    shown = [each for each in command.params if not getattr(each, "hidden", False) and "completion" not in each.name]
    return {flag for each in shown for flag in (*each.opts, *each.secondary_opts) if flag.startswith("-")}


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_80_columns_cuts_no_name_and_ends_with_examples(name: str) -> None:
    shown = run_in_terminal([sys.executable, "-m", f"mlx_diffgemma.{name}", "--help"], (80, 24), environment())
    text = "\n".join(shown.rows)
    assert shown.code == 0
    assert "\u2026" not in text
    assert max(map(len, shown.rows)) <= 80
    assert not option_names(name) - set(re.findall(r"(?<![\w-])--?[\w-]+", text))
    assert "--install-completion" not in text
    assert f"--dtype <{DTYPES.get(name, 'bfloat16|float32')}>" in text
    modes = re.findall(r"--mode <([\w|]+)>", text)
    assert modes == MODES.get(name, [])
    assert ("--bits <4|5|6|8>" in text) == (name == "convert")
    examples = shown.rows[shown.rows.index("Examples:") + 1 :]
    assert 2 <= len(examples) <= 3
    assert all(f"mlx_diffgemma {name} " in example for example in examples)
    # Nothing was wrapped by the terminal: the page is what a pipe gets too.
    piped = run(sys.executable, "-m", f"mlx_diffgemma.{name}", "-h", COLUMNS="80")
    assert [row.rstrip() for row in piped.stdout.splitlines()] == shown.rows


def processor_seconds(*command: str) -> float:
    """Processor time of a program, the least of three runs."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run(*command).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(seconds() for _ in range(3))


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_takes_three_times_as_long_as_importing_typer_at_most(name: str) -> None:
    """That is 0.3 seconds on a machine that does nothing else; a busy one is slower at both."""
    help_page = processor_seconds(*UMBRELLA, *([name] if name else []), "--help")
    assert help_page < 3 * processor_seconds(sys.executable, "-c", "import typer")


def test_the_umbrella_lists_every_program_without_importing_any() -> None:
    done = run(*UMBRELLA, "-h", COLUMNS="80")
    assert done.returncode == 0
    for name, about in PROGRAMS.items():
        assert re.search(rf"^  {name} +{re.escape(about)}$", done.stdout, re.MULTILINE)
    probe = (
        "import sys; sys.argv = ['mlx_diffgemma', '-h']\n"
        "from mlx_diffgemma.__main__ import PROGRAMS, main\n"
        "try: main()\n"
        "except SystemExit: print([n for n in PROGRAMS if f'mlx_diffgemma.{n}' in sys.modules], "
        f"{HEAVY} & set(sys.modules))"
    )
    assert run(sys.executable, "-c", probe).stdout.splitlines()[-1] == "[] set()"


def test_the_umbrella_runs_a_program() -> None:
    done = run(*UMBRELLA, "generate", "--model", "demo", "--quiet", "What is 47 + 38?")
    assert (done.returncode, done.stdout, done.stderr) == (0, "47 + 38 = 85\n", "")
    refused = run(*UMBRELLA, "generate", "hi", "--max-tokens", "0")
    assert (refused.returncode, refused.stderr) == (1, "error: --max-tokens 0 must be at least 1\n")
    assert run(*UMBRELLA, "--version").stdout.startswith("0.")
    assert "Usage: mlx_diffgemma convert" in run(*UMBRELLA, "convert", "--help").stdout


def test_an_unknown_program_is_named_with_the_nearest() -> None:
    done = run(*UMBRELLA, "genrate", "hi")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr.splitlines()[-1]
        == "error: no such command 'genrate'. Did you mean 'generate'? (--help lists all options)"
    )
    assert run(*UMBRELLA).returncode == 2


def test_earlier_flags_still_work_and_are_not_shown() -> None:
    program = (sys.executable, "-m", "mlx_diffgemma.generate")
    for flag, name in (("--stability", "--stability-threshold"), ("--confidence", "--confidence-threshold")):
        assert run(*program, "hi", flag, "-1").stderr.startswith(f"error: {name} -1")
        assert f"{flag} " not in run(*program, "--help").stdout


def completed(program: tuple[str, ...], name: str, line: str) -> list[str]:
    """What a program answers when bash asks how to complete a command line."""
    done = run(
        *program,
        **{f"_{name.upper().replace('-', '_')}_COMPLETE": "complete_bash"},
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split(" ")) - 1),
    )
    return done.stdout.split()


def test_names_options_and_values_are_completed() -> None:
    assert completed(UMBRELLA, "mlx_diffgemma", "mlx_diffgemma ge") == ["generate"]
    assert completed(UMBRELLA, "mlx_diffgemma", "mlx_diffgemma generate --max") == ["--max-tokens", "--max-steps"]
    assert completed(UMBRELLA, "mlx_diffgemma", "mlx_diffgemma generate --mode ca") == ["canvas", "causal"]
    alone = (sys.executable, "-m", "mlx_diffgemma.generate")
    line = "mlx_diffgemma.generate --conf"
    assert completed(alone, "mlx_diffgemma.generate", line) == ["--confidence-threshold"]


@pytest.mark.parametrize("name", ["mlx_diffgemma", "mlx_diffgemma.generate"])
def test_the_completion_script_works_in_bash(tmp_path: Path, name: str) -> None:
    """The script that --show-completion prints, in a bash that finds the program under its name."""
    program = tmp_path / name
    module = name if name.endswith("generate") else f"{name}.__main__"
    program.write_text(f"#!{sys.executable}\nfrom {module} import main\nmain()\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    # The program asks its parent process which shell it is: one more command keeps bash from being replaced by it.
    script = run("bash", "-c", f"{name} --show-completion; true", PATH=path).stdout
    function = re.search(r"-F (\S+)", script)
    assert function is not None
    words = f"{name} generate --max" if name == "mlx_diffgemma" else f"{name} --max"
    ask = f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; {function[1]} {name}; echo ${{COMPREPLY[@]}}"
    assert run("bash", "-c", f"{script}\n{ask}", PATH=path).stdout == "--max-tokens --max-steps\n"
