"""Many prompts from a file: what its lines may say, the order of the answers, the program."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process import call_for_text
from scripted import Scripted, figures, loading

from mlx_diffgemma import generate
from mlx_diffgemma.cli.batch import in_order, read_batch
from mlx_diffgemma.constraint.spec import Choices, Regex
from mlx_diffgemma.errors import DataError, OptionError
from mlx_diffgemma.events import BlockCommitted, Event, Finished
from mlx_diffgemma.generation_config import GenerationConfig


def write(folder: Path, *lines: object) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return file


def test_lines_are_prompts_or_conversations_with_options_of_their_own(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    items = read_batch(
        write(tmp_path, {"prompt": "One", "seed": 4, "stop_tokens": [7]}, "", {"messages": messages, "max_tokens": 3})
    )
    assert [item.prompt for item in items] == ["One", messages]
    base = GenerationConfig(max_tokens=50)
    assert items[0].over(base) == GenerationConfig(max_tokens=50, seed=4, stop_tokens=(7,))
    assert items[1].over(base) == GenerationConfig(max_tokens=3)
    assert items[1].where.endswith("prompts.jsonl, line 3")


def test_a_line_may_use_the_earlier_names_of_options_and_its_own_constraint(tmp_path: Path) -> None:
    old, other = read_batch(
        write(tmp_path, {"prompt": "a", "stability": 3, "confidence": 0.5}, {"prompt": "a", "choices": ["b", "c"]})
    )
    assert old.over(GenerationConfig()) == GenerationConfig(stability_threshold=3, confidence_threshold=0.5)
    assert other.over(GenerationConfig(constraint=Regex("d"))) == GenerationConfig(constraint=Choices(("b", "c")))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "prompts.jsonl, line 2: not valid JSON"),
        ("[1]", "prompts.jsonl, line 2: must be an object with a prompt"),
        ("{}", "prompts.jsonl, line 2: give either prompt or messages"),
        ('{"prompt": "a", "messages": []}', "prompts.jsonl, line 2: give either prompt or messages"),
        ('{"prompt": 5}', "prompts.jsonl, line 2: prompt must be text"),
        ('{"messages": "a"}', "prompts.jsonl, line 2: messages must be a list"),
        ('{"prompt": " "}', "prompts.jsonl, line 2: the prompt is empty"),
        ('{"messages": []}', "prompts.jsonl, line 2: the conversation is empty"),
        (
            '{"messages": [{"role": "tool", "content": "a"}]}',
            "prompts.jsonl, line 2: message 1: the role 'tool' ",
        ),
        ('{"prompt": "a", "id": [1]}', r"prompts.jsonl, line 2: id must be a text or a whole number, not \[1\]"),
        ('{"prompt": "a", "custom_id": true}', "prompts.jsonl, line 2: custom_id must be a text or a whole number"),
        ('{"prompt": "a", "sead": 1}', "prompts.jsonl, line 2: 'sead' is not an option: did you mean 'seed'"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_batch(write(tmp_path, {"prompt": "fine"}, line))


def test_files_that_hold_no_prompts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_batch(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="has no prompts: it needs one JSON object per line"):
        read_batch(write(tmp_path, ""))
    (tmp_path / "prompts.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="line 1: not UTF-8 text"):
        read_batch(tmp_path / "prompts.jsonl")


def test_an_option_out_of_range_is_named_with_its_line(tmp_path: Path) -> None:
    [item] = read_batch(write(tmp_path, {"prompt": "a", "max_tokens": 0}))
    with pytest.raises(OptionError, match=r"prompts\.jsonl, line 1: max_tokens=0 must be at least 1"):
        item.over(GenerationConfig())


BLOCK = BlockCommitted(block=0, steps=1, tokens=(1,), last=True)
END = Finished(reason="stop", stats=figures())


def test_answers_come_in_the_order_of_the_prompts() -> None:
    events: list[tuple[int, Event]] = [(0, BLOCK), (1, BLOCK), (1, END), (2, BLOCK), (2, END), (0, END)]
    assert [number for number, _ in in_order(events)] == [0, 1, 2]


def test_what_was_finished_before_an_interruption_is_not_lost() -> None:
    events: list[tuple[int, Event]] = [(0, BLOCK), (1, BLOCK), (1, END), (2, BLOCK)]
    assert list(in_order(events)) == [(1, [BLOCK, END])]


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return call_for_text(generate.main, *arguments)


def test_the_program_prints_a_json_line_for_every_prompt(tmp_path: Path) -> None:
    first = {"prompt": "What is 47 + 38?", "max_tokens": 12, "custom_id": "sum é"}
    file = write(tmp_path, first, {"prompt": "Hello", "max_tokens": 5, "id": 7})
    done = program("--model", "demo", "--batch", file, "--quiet", "--batch-size", 2)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["index"] for line in lines] == [0, 1]
    assert (lines[0]["custom_id"], lines[1]["id"]) == ("sum é", 7)
    assert [line["finish_reason"] for line in lines] == ["stop", "length"]
    alone = program("--model", "demo", "Hello", "--max-tokens", 5, "--json", "--quiet")
    assert json.loads(alone.stdout)["tokens"] == lines[1]["tokens"]


def test_a_dash_is_stdin() -> None:
    lines = b'\xef\xbb\xbf{"prompt": "What is 47 + 38?", "id": "a"}\n'
    done = call_for_text(generate.main, "--model", "demo", "--batch", "-", "--quiet", stdin=lines)
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, "a")
    broken = call_for_text(generate.main, "--model", "demo", "--batch", "-", "--quiet", stdin=b"{}\n")
    assert broken.stderr == "error: stdin, line 1: give either prompt or messages\n"


def test_empty_answers_of_a_batch_are_counted_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Scripted(text="{prompt}")
    monkeypatch.setitem(sys.modules, "mlx_diffgemma.loading", loading(session))
    file = write(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "c", "allow_empty": True}, *[{"prompt": "d"}])
    monkeypatch.setattr(Scripted, "_events", silent_for("b", "c", Scripted._events))
    done = program("--model", "scripted", "--batch", file, "--quiet")
    reasons = [json.loads(line)["finish_reason"] for line in done.stdout.splitlines()]
    assert (done.returncode, reasons) == (1, ["stop", "empty", "empty", "stop"])
    assert done.stderr == (f"error: 1 of 4 answers is empty: {file}, line 2 (--allow-empty accepts empty answers)\n")
    allowed = program("--model", "scripted", "--batch", file, "--quiet", "--allow-empty")
    assert (allowed.returncode, allowed.stderr) == (0, "")


def silent_for(*texts_and_events: Any) -> Any:
    """The events of a scripted session that writes nothing for some texts."""
    *texts, events = texts_and_events

    def written(session: Scripted, thought: list[str], answer: list[str]) -> Iterator[Event]:
        return events(session, thought, [] if "".join(answer) in texts else answer)

    return written


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--batch", "FILE", "prompt"], 2, "error: --batch takes its prompts from the file: leave PROMPT out"),
        (["--batch-size", "2", "prompt"], 2, "error: --batch-size belongs to --batch"),
        (["--batch", "none.jsonl"], 1, "error: none.jsonl: no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    file = write(tmp_path, {"prompt": "a"})
    done = program(*(str(file) if argument == "FILE" else argument for argument in arguments))
    assert done.returncode == code
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
