"""The program mlx_diffgemma.generate as its user meets it: streams, exit codes, options, time to --help."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from in_process import call
from scripted import Scripted, loading
from terminal import SCRIPTED, environment, run_in_terminal

from mlx_diffgemma import generate
from mlx_diffgemma.cli.prompt import compose
from mlx_diffgemma.constraint.spec import Choices, JsonSchema, Regex
from mlx_diffgemma.errors import PromptError
from mlx_diffgemma.generation_config import GenerationConfig

PROGRAM = (sys.executable, "-m", "mlx_diffgemma.generate")
EVERY_OPTION = {
    "--system": "Be brief.",
    "--max-tokens": "9",
    "--stop-token": "7",
    "--stop": "END",
    "--seed": "3",
    "--canvas-length": "16",
    "--max-steps": "5",
    "--t-min": "0.1",
    "--t-max": "0.2",
    "--entropy-bound": "0.3",
    "--stability-threshold": "2",
    "--confidence-threshold": "0.01",
    "--conditioning-top-k": "8",
    "--mean-entropy": "0.5",
    "--min-steps": "3",
    "--first-canvas": "4",
    "--rows": "unsettled",
    "--whole-every": "6",
    "--prefix-top-k": "500",
    "--verify": "0.25",
    "--temperature": "0.7",
}
EVERY_FLAG = ("--thinking", "--greedy", "--no-until-end", "--allow-empty", "--trim")


def run(
    *arguments: str, stdin: str | bytes = "", command: tuple[str, ...] | None = None, **script: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the program on a scripted session in this process, or `command` in one of its own."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    env = environment(SCRIPT=json.dumps(script))
    if command is None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "mlx_diffgemma.loading", loading(Scripted(**script)))
            return call(generate.main, *SCRIPTED[2:], *arguments, stdin=data, env=env)
    return subprocess.run([*command, *arguments], input=data, capture_output=True, env=env, timeout=60, check=False)


def test_help_answers_at_once_without_the_heavy_libraries():
    def seconds(*command: str) -> float:
        # Processor time: what else this machine is doing counts less.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run(command=command)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert (done.returncode, b"--max-tokens" in done.stdout) == (0, "--help" in command)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # A machine that is slow, or busy, takes longer for the import of typer too: 0.11 seconds where the page takes 0.25.
    pairs = [(seconds(*PROGRAM, "--help"), seconds(sys.executable, "-c", "import typer")) for _ in range(3)]
    assert min(page for page, _ in pairs) < max(0.3, 3 * min(typer for _, typer in pairs))
    probe = (
        "import sys; sys.argv = ['generate', '--help']\n"
        "from mlx_diffgemma.generate import main\n"
        "try: main()\n"
        "except SystemExit: print({'mlx', 'transformers', 'numpy', 'mlx_lm', 'huggingface_hub'} & set(sys.modules))"
    )
    assert run(command=(sys.executable, "-c", probe)).stdout.splitlines()[-1] == b"set()"


def test_version():
    assert run("--version", command=PROGRAM).stdout.startswith(b"0.")


def test_the_answer_alone_is_on_stdout_and_the_statistics_on_stderr():
    done = run("hi", command=SCRIPTED, text="One.\n\nTwo 東京.\n", length=3)
    assert (done.returncode, done.stdout.decode()) == (0, "One.\n\nTwo 東京.\n")
    assert done.stderr.decode().startswith("10 tokens in 4 blocks · 6.0 steps/block")
    assert done.stderr.count(b"\n") == 1


def test_quiet_leaves_stderr_empty():
    done = run("hi", "--quiet", text="One.")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"One.\n", b"")


def test_json_is_one_object_with_everything():
    done = run("hi", "--json", text="Yes 東.", thought="Hm.", length=2, steps=3)
    assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (0, b"", 1)
    answer = json.loads(done.stdout)
    assert answer == {
        "text": "Yes 東.",
        "thought": "Hm.",
        "calls": [],
        "tokens": [100, 101, 100, 101, 100, 1],
        "probabilities": [],
        "finish_reason": "stop",
        "seed": 0,
        "stats": answer["stats"],
    }
    assert answer["stats"]["steps_per_block"] == [3, 3, 3]
    assert answer["stats"]["steps"] == 9
    assert answer["stats"]["tokens_per_second"] == 3.0
    assert answer["stats"]["tokens_per_forward"] == pytest.approx(6 / 9)


NOTHING = "the model wrote nothing: "


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ({"text": ""}, "ask in other words, or with another --seed"),
        ({"text": "", "thought": "Hm."}, "only a thought, and no answer after it"),
        (
            {"text": "", "thought": "Hm.", "reason": "length"},
            "its thinking was cut off by max_tokens=77: raise it",
        ),
    ],
)
def test_an_answer_of_nothing_or_of_a_thought_alone_is_one_line_and_no_success(script: dict[str, Any], line: str):
    refused = f"error: {NOTHING}{line} (--allow-empty accepts an empty answer)\n"
    for options in ((), ("--quiet",)):
        done = run("hi", *options, **script)
        assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", refused)
    allowed = run("hi", "--allow-empty", **script)
    assert (allowed.returncode, allowed.stdout, allowed.stderr.decode()) == (0, b"", f"{NOTHING}{line}\n")
    assert run("hi", "--allow-empty", "--quiet", **script).stderr == b""
    answer = run("hi", "--json", **script)
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["finish_reason"] == ("length" if "reason" in script else "empty")


def test_argument_and_piped_text_compose():
    assert run("Translate:", stdin="Bonjour\n", text="<{prompt}>").stdout == b"<Translate:\n\nBonjour\n>\n"
    assert run("Translate:", text="<{prompt}>").stdout == b"<Translate:>\n"
    assert run(stdin="Bonjour", text="<{prompt}>").stdout == b"<Bonjour>\n"


def test_piped_text_may_have_a_byte_order_mark_or_another_encoding():
    assert run(stdin=b"\xef\xbb\xbfcaf\xc3\xa9", text="<{prompt}>").stdout == "<café>\n".encode()
    assert run("--encoding", "latin-1", stdin=b"caf\xe9", text="<{prompt}>").stdout == "<café>\n".encode()
    assert run("--encoding", "utf-16", stdin="café".encode("utf-16"), text="<{prompt}>").stdout == "<café>\n".encode()


def test_a_dash_is_stdin():
    assert run("-", stdin="Bonjour", text="<{prompt}>").stdout == b"<Bonjour>\n"
    assert run("--prompt", "-", stdin="Bonjour", text="<{prompt}>").stdout == b"<Bonjour>\n"


@pytest.mark.parametrize("parts", [(None, None), ("", None), (None, " \n"), (" ", "\t")])
def test_a_prompt_that_says_nothing_is_refused(parts: tuple[str | None, str | None]):
    with pytest.raises(PromptError, match="empty"):
        compose(*parts)


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ((" ",), b"", "error: the prompt is empty: say what to write"),
        ((), b"caf\xe9", "error: stdin is not UTF-8 text: unexpected end of data at byte 3"),
        (("hi", "--max-tokens", "0"), b"", "error: --max-tokens 0 must be at least 1"),
        (("hi", "--t-max", "nan"), b"", "error: --t-max nan must be a number"),
        (("hi", "--t-min", "0.9", "--t-max", "0.5"), b"", "error: --t-min 0.9 must not be above --t-max 0.5"),
        (("hi", "--t-min", "0.9"), b"", "error: --t-min 0.9 must not be above --t-max 0.8"),
        (("hi", "--mode", "causal", "--max-steps", "3"), b"", "error: --max-steps 3 has no effect with --mode causal"),
        (("hi", "--draft-steps", "2"), b"", "error: --draft-steps 2 has no effect with --mode canvas: leave it out"),
        (("hi", "--mode", "causal", "--trim"), b"", "error: --trim has no effect with --mode causal: leave it out"),
        (("hi", "--mode", "causal", "--no-until-end"), b"", "error: --no-until-end has no effect with --mode causal"),
        (("hi", "--raw", "--system", "x"), b"", "error: raw sends the prompt as it is"),
        (("hi", "--regex", "a("), b"", "error: regex 'a(': missing ) for the group at position 1"),
        (("hi", "--regex", "a", "--choices", "a"), b"", "error: regex and choices cannot both be kept"),
        (("hi", "--choices", "a,,b"), b"", "error: --choices ('a', '', 'b') must be a tuple of different texts"),
        (("hi", "--json-schema", "none.json"), b"", "error: the schema none.json cannot be read: No such file"),
        (("hi", "--json-schema", "a, b nit"), b"", "error: --json-schema 'a, b nit' is no file, and not a short form"),
        (("hi", "--json-schema", "{"), b"", "error: --json-schema '{' is not JSON: Expecting property name"),
    ],
)
def test_expected_failures_are_one_line_and_exit_1(arguments: tuple[str, ...], stdin: bytes, message: str):
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert done.stderr.decode().startswith(message)


def test_a_long_value_is_cut_out_of_an_error():
    done = run("hi", "--json-schema", "a" * 3000)
    line = done.stderr.decode()
    assert (done.returncode, line.count("\n")) == (1, 1)
    assert line.startswith("error: the schema aaaa")
    assert "aaa ... aaa" in line
    assert line.endswith("cannot be read: File name too long\n")
    assert len(line) < 900


def test_debug_shows_the_traceback():
    done = run("hi", "--max-tokens", "0", "--debug")
    assert done.returncode == 1
    assert b"Traceback" in done.stderr


def test_usage_errors_exit_2():
    assert run("hi", "--max-tokens", "many").returncode == 2
    assert run("hi", "--nonsense").returncode == 2


def test_the_demo_answers_where_no_model_is_named():
    done = run("Give JSON: Ana is 34 and lives in Rome.", command=PROGRAM)
    assert done.returncode == 0
    assert done.stdout == b'{"name": "Ana", "age": 34, "city": "Rome"}\n'
    assert done.stderr.startswith(b"no --model is named: this is the demo")
    # Also when quiet, because nobody may take the demo for another model; who names it knows.
    quiet = call(generate.main, "Give JSON: Ana is 34 and lives in Rome.", "--quiet", env=environment())
    assert quiet.stderr == done.stderr.splitlines(keepends=True)[0]
    named = call(generate.main, "Hello", "--model", "demo", "--max-tokens", "4", "--quiet", env=environment())
    assert named.stderr == b""


def test_an_adapter_that_is_none_is_refused_before_the_weights_are_read():
    done = call(generate.main, "hi", "--adapter", "nowhere", env=environment())
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(b"error: no adapter at nowhere: it is a folder with adapters.safe")


def test_a_quantization_that_config_claims_and_the_files_do_not_have_is_one_line(demo: Path, tmp_path: Path):
    shutil.copytree(demo, tmp_path / "model")
    config = json.loads((demo / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    arguments = ("--model", tmp_path / "model", "-n", "4", "--max-steps", "1", "--allow-empty", "What is 1 + 2?")
    done = call(generate.main, *arguments, env=environment())
    assert done.returncode == 0
    claims = [line for line in done.stderr.decode().splitlines() if "quantization_config" in line]
    assert claims == ["warning: ignoring quantization_config in config.json: the files hold no packed weights"]


def test_no_prompt_on_a_terminal_is_a_usage_error():
    shown = run_in_terminal(SCRIPTED, (100, 20), environment())
    assert shown.code == 2
    assert shown.rows == ["error: no prompt: pass it as an argument or pipe it in (--help lists all options)"]


def test_a_closed_stdin_is_no_prompt():
    closed = ("/bin/sh", "-c", '"$@" <&-', "sh", *SCRIPTED)
    assert run(command=closed).returncode == 2
    assert run("hi", command=closed, text="<{prompt}>").stdout == b"<hi>\n"


def test_options_that_are_not_given_are_the_checkpoints():
    answer = run("hi", "--seed", "5", text="{config}").stdout.decode().strip()
    assert answer == repr(GenerationConfig(max_tokens=77, seed=5))


def test_every_generation_option_has_its_command_line_option():
    arguments = [word for option in EVERY_OPTION.items() for word in option]
    answer = run("hi", *arguments, *EVERY_FLAG, text="{config}", length=1000).stdout.decode().strip()
    expected = GenerationConfig(
        max_tokens=9,
        canvas_length=16,
        max_steps=5,
        t_min=0.1,
        t_max=0.2,
        entropy_bound=0.3,
        stability_threshold=2,
        confidence_threshold=0.01,
        seed=3,
        greedy=True,
        stop_tokens=(7,),
        stop=("END",),
        system="Be brief.",
        thinking=True,
        conditioning_top_k=8,
        until_end=False,
        allow_empty=True,
        mean_entropy=0.5,
        min_steps=3,
        first_canvas=4,
        trim=True,
        rows="unsettled",
        whole_every=6,
        prefix_top_k=500,
        verify=0.25,
        temperature=0.7,
    )
    assert answer == repr(expected)
    drafting = ("--mode", "speculative", "--top-p", "0.8", "--draft-steps", "2")
    drafted = run("hi", *drafting, text="{config}", length=1000).stdout.decode().strip()
    assert drafted == repr(GenerationConfig(max_tokens=77, mode="speculative", top_p=0.8, draft_steps=2))
    unset = {
        field.name
        for field in dataclasses.fields(GenerationConfig)
        if getattr(expected, field.name) == getattr(GenerationConfig(), field.name)
    }
    assert unset == {"raw", "constraint", "mode", "draft_steps", "top_p"}
    plain = run("hi", *arguments, *EVERY_FLAG, "--exact", text="{config}", length=1000).stdout.decode().strip()
    assert plain == repr(expected.exact())
    everything = run("hi", "--conditioning-top-k", "0", text="{config}", length=1000).stdout.decode().strip()
    assert everything == repr(GenerationConfig(max_tokens=77, conditioning_top_k=None))
    assert run("hi", "--raw", text="{config}").stdout.decode().strip() == repr(
        GenerationConfig(max_tokens=77, raw=True)
    )


def test_a_preset_stands_for_its_options_and_those_given_beside_it_win():
    fast = run("hi", "--fast", "--max-steps", "30", text="{config}", length=1000).stdout.decode().strip()
    expected = {"max_steps": 30, "mean_entropy": 0.05, "min_steps": 8, "first_canvas": 64}
    assert fast == repr(GenerationConfig(max_tokens=77, **expected))
    for arguments, message in (
        (("--exact", "--fast"), "--exact and --fast exclude each other: choose one"),
        (("--fast", "--fastest"), "--fast and --fastest exclude each other: choose one"),
        (("--fast", "--mode", "causal"), "--fast has no effect with --mode causal: leave it out"),
    ):
        refused = run("hi", *arguments)
        assert (refused.returncode, refused.stderr.decode()) == (1, f"error: {message}\n")


def test_an_answer_ends_before_any_of_the_stop_strings():
    question = "Give JSON: Ana is 34 and lives in Rome."
    done = call(generate.main, question, "--stop", '", "city', "--stop", ', "', "--json", env=environment())
    answer = json.loads(done.stdout)
    assert (answer["text"], answer["finish_reason"]) == ('{"name": "Ana"', "stop")
    refused = run("hi", "--stop", "")
    assert refused.stderr == b"error: --stop ('',) must be a tuple of texts that are not empty\n"


def test_what_the_answer_must_match_is_an_option(tmp_path: Path):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    for arguments, constraint in (
        (("--regex", "a|b"), Regex("a|b")),
        (("--json-schema", str(file)), JsonSchema(schema)),
        (("--json-schema", json.dumps(schema)), JsonSchema(schema)),
        (("--json-schema", "name, age? int"), JsonSchema("name, age? int")),
        (("--choices", "Rome, New York,x"), Choices(("Rome", "New York", "x"))),
    ):
        answer = run("hi", *arguments, text="{config}", length=1000).stdout.decode().strip()
        assert answer == repr(GenerationConfig(max_tokens=77, constraint=constraint))


def test_what_a_schema_allows_and_no_answer_has_is_said_once(tmp_path: Path):
    schema = {"properties": {"next": {"$ref": "#"}}, "additionalProperties": False, "type": "object", "x-unit": "cm"}
    narrowed = b"note: json_schema: what refers to itself is written 5 levels deep\n"
    ignored = b"note: json_schema: the keyword 'x-unit' is none of JSON schema's: it is ignored\n"
    asked = ("hi", "--json-schema", json.dumps(schema))
    assert run(*asked).stderr.startswith(narrowed)
    assert run(*asked, "--debug").stderr.startswith(narrowed + ignored)
    assert run(*asked, "--quiet").stderr == b""
    file = tmp_path / "lines"
    file.write_text(3 * (json.dumps({"prompt": "hi", "json_schema": schema}) + "\n"))
    done = run("--batch", str(file))
    assert done.stderr.count(b"note: ") == 1
    assert done.stdout.count(b"\n") == 3


def test_a_reader_that_goes_away_is_no_news():
    process = subprocess.Popen(
        [*SCRIPTED, "hi"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(SCRIPT=json.dumps({"text": "word " * 400, "length": 8, "delay": 0.001})),
    )
    assert process.stdout is not None
    assert process.stdout.read(4) == b"word"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 1


def interrupted(folder: Path, *options: str) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a program on which Ctrl-C is hammered while it waits for a slow step."""
    stopped = folder / "stopped"
    script = {"text": "Hello world", "stop_at": 4, "stopped": str(stopped)}
    process = subprocess.Popen(
        [*SCRIPTED, "hi", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(SCRIPT=json.dumps(script)),
    )
    while not stopped.exists():
        time.sleep(0.02)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    stdout, stderr = process.communicate(timeout=10)
    return process.returncode, stdout, stderr


def test_ctrl_c_in_a_pipe_prints_what_is_settled(tmp_path: Path):
    assert interrupted(tmp_path) == (130, b"Hello world\n", b"interrupted after 3 tokens\n")
    (tmp_path / "stopped").unlink()
    assert interrupted(tmp_path, "--quiet") == (130, b"Hello world\n", b"")


def test_ctrl_c_with_json_prints_the_object_of_what_is_settled(tmp_path: Path):
    code, stdout, stderr = interrupted(tmp_path, "--json")
    assert (code, stderr) == (130, b"interrupted after 3 tokens\n")
    assert json.loads(stdout) == {
        "text": "Hello world",
        "thought": "",
        "calls": [],
        "tokens": [100, 101, 102],
        "probabilities": [],
        "finish_reason": "interrupted",
        "seed": 0,
        "stats": None,
    }


def test_a_polite_kill_restores_the_terminal(tmp_path: Path):
    stopped = tmp_path / "stopped"
    env = environment(SCRIPT=json.dumps({"text": "Hello world", "stop_at": 4, "stopped": str(stopped)}))
    kill = f'"$@" & while [ ! -e {stopped} ]; do sleep 0.05; done; kill $!; wait $!'
    shown = run_in_terminal(["/bin/sh", "-c", kill, "sh", *SCRIPTED, "hi"], (60, 20), env)
    assert (shown.code, shown.cursor_visible, shown.echo) == (143, True, True)


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_trouble(streams: str):
    closed = ("/bin/sh", "-c", f'"$@" {streams}', "sh", *SCRIPTED)
    done = run("hi", command=closed, text="One.")
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert done.stdout == (b"" if ">&-" in streams.replace("2>&-", "") else b"One.\n")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_disk_behind_stdout_is_one_line(options: tuple[str, ...]):
    full = ("/bin/sh", "-c", '"$@" > /dev/full', "sh", *SCRIPTED)
    done = run("hi", "--quiet", *options, command=full, text="One.")
    assert (done.returncode, done.stderr) == (1, b"error: the output cannot be written: No space left on device\n")
