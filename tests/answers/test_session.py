"""From a prompt to a Completion: one code path, any thread, any number of times."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from threaded import taken_in_threads

import mlx_diffgemma
from mlx_diffgemma import Completion, Gap, GenerationConfig, Session, load
from mlx_diffgemma.completion import gather
from mlx_diffgemma.errors import (
    ConfigError,
    ModelNotFoundError,
    OptionError,
    OutOfMemoryError,
    PromptError,
    TokenizerError,
)
from mlx_diffgemma.events import BlockCommitted, Denoised, Finished

# With this seed the random model opens no thought, so that all of its tokens are text.
CONFIG = GenerationConfig(max_tokens=40, max_steps=4, seed=1)
# Of a random model nearly every token is doubted, and a canvas is denoised again from each.
SHORTLY_VERIFIED = {"verify": 0.001, "max_tokens": 10, "max_steps": 2, "canvas_length": 6}


@pytest.fixture(scope="module")
def session(demo: Path) -> Session:
    return load(demo)


def test_generate_is_stream_drained(session: Session) -> None:
    events = list(session.stream("Hello", CONFIG))
    completion = session.generate("Hello", CONFIG)
    blocks = [event for event in events if isinstance(event, BlockCommitted)]
    assert completion.text == "".join(block.text for block in blocks)
    assert completion.tokens == sum((block.tokens for block in blocks), ())
    assert completion.text == session.tokenizer.decode(completion.tokens)
    assert isinstance(events[-1], Finished)
    assert completion.finish_reason == events[-1].reason


def test_events_carry_the_text_of_every_position(session: Session) -> None:
    for event in session.stream("Hello", CONFIG):
        if isinstance(event, Denoised):
            assert len(event.pieces) == len(event.best) == (16 if event.block < 2 else 8)
            assert event.pieces == session.tokenizer.pieces(event.best)


def test_defaults_come_from_the_checkpoint(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(demo, folder)
    (folder / "generation_config.json").write_text('{"max_new_tokens": 5, "max_denoising_steps": 2}')
    completion = load(folder).generate("Hello")
    assert len(completion.tokens) == 5
    assert completion.stats.steps_per_block == (2,)


def test_options_are_keywords_over_the_checkpoints_own(session: Session) -> None:
    expected = session.generate("Hello", CONFIG)
    keywords = session.generate("Hello", max_tokens=40, max_steps=4, seed=1)
    assert keywords.tokens == expected.tokens
    assert session.generate("Hello", CONFIG, max_tokens=5).tokens == expected.tokens[:5]
    together = session.generate(["Hello", "Hi"], [CONFIG, replace(CONFIG, seed=2)], max_tokens=5)
    assert [len(answer.tokens) for answer in together] == [5, 5]
    template = "Hello <gap:3> there"
    filled = session.infill(template, max_steps=3, seed=4)
    assert filled.text == session.infill(template, config=replace(session.defaults, max_steps=3, seed=4)).text
    edited = session.edit("a b c", "Change it.", (2, 3), max_steps=3, gap=Gap(1, 2))
    assert edited.text.startswith("a ")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda it: it.generate("Hi", {"max_tokens": 3}), r"not a dict: pass its options as keywords \(max_tokens="),
        (lambda it: it.generate(["Hi"], {"seed": 3}), r"not a dict: pass its options as keywords \(seed="),
        (lambda it: it.stream("Hi", "fast"), "config must be a GenerationConfig, not 'fast'"),
        (lambda it: it.stream("Hi", max_token=3), "'max_token' is not an option: did you mean 'max_tokens'?"),
        (lambda it: it.stream_many(["Hi"], stability=1), "did you mean 'stability_threshold'?"),
        (lambda it: it.infill("<gap>", sead=3), "'sead' is not an option: did you mean 'seed'?"),
        (lambda it: it.edit("a", "Do.", (0, 1), xyz=3), "'xyz' is not an option: see docs/options.md"),
        (lambda it: it.choose("Hi", ["a"], temprature=1.0), "did you mean 'temperature'?"),
        (lambda it: it.generate("Hi", max_tokens=0), "max_tokens=0 must be at least 1"),
        (lambda it: it.infill("<gap>", regex="a"), "regex, json_schema and choices belong to a gap"),
    ],
)
def test_options_that_cannot_be_used_are_named(session: Session, call: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        call(session)


def test_a_conversation_and_a_system_prompt_change_the_prompt(session: Session) -> None:
    question = session.tokens("Hi", CONFIG)
    assert session.tokens([{"role": "user", "content": "Hi"}], CONFIG) == question
    assert session.tokens([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], CONFIG) == question
    instructed = session.tokens("Hi", replace(CONFIG, system="Be brief."))
    assert session.tokenizer.decode(instructed).startswith("system\nBe brief.")
    assert len(session.tokens("Hi", replace(CONFIG, thinking=True))) > len(question)
    assert session.tokens("Hi", replace(CONFIG, raw=True)) == session.tokenizer.encode("Hi")


@pytest.mark.parametrize(
    ("prompt", "changes", "message"),
    [
        ("", {}, "the prompt is empty"),
        (" \n", {}, "the prompt is empty"),
        ([], {}, "the conversation is empty"),
        ([{"role": "system", "content": "a"}], {"system": "b"}, "system message and the options have another"),
        ([{"role": "user", "content": "a"}], {"raw": True}, "a conversation needs the chat template"),
        (["Hi"], {}, "message 1: 'Hi' is no message"),
        (5, {}, "a prompt is a text or a list of messages, not 5"),
        (b"Hi", {}, "a prompt is a text or a list of messages"),
        ({"role": "user", "content": "Hi"}, {}, "a prompt is a text or a list of messages"),
        ("a\ud800", {}, "the prompt is not valid Unicode at character 1"),
        ("a", {"system": "\ud800"}, "the system prompt is not valid Unicode at character 0"),
        ([{"role": "user"}], {}, "message 1: the user message has no content: give a text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], {}, "message 1: a part of type 'image_url' is not"),
        ("word " * 300_000, {}, r"prompt tokens and max_tokens=40 in canvases of 16 need \d+ positions"),
    ],
)
def test_prompts_that_say_nothing_or_too_much_are_refused(
    session: Session, prompt: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        # Not drained: the error must not wait for the first iteration.
        session.stream(prompt, replace(CONFIG, **changes))


def test_looking_at_every_event_changes_nothing(session: Session) -> None:
    looked: list[str] = []

    def watch() -> Any:
        for event in session.stream("Hello", CONFIG):
            looked.append(repr(event))
            # A watcher that uses MLX and its global randomness must not disturb the canvas.
            mx.eval(mx.random.normal((3,)))
            yield event

    watched = gather(watch(), seed=1)
    assert watched.tokens == session.generate("Hello", CONFIG).tokens
    assert len(looked) > 10


def test_the_same_seed_gives_the_same_tokens_in_another_process(session: Session, demo: Path) -> None:
    program = (
        "import json, sys; from mlx_diffgemma import GenerationConfig, load;"
        "config = GenerationConfig(max_tokens=40, max_steps=4, seed=1);"
        "print(json.dumps(load(sys.argv[1]).generate('Hello', config).tokens))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(demo)], check=True, capture_output=True, text=True, timeout=120
    )
    assert tuple(json.loads(out.stdout)) == session.generate("Hello", CONFIG).tokens


def test_any_thread_may_generate_and_several_at_once(demo: Path, session: Session) -> None:
    expected = session.generate("Hello", CONFIG).tokens
    results: list[Completion] = []
    problems: list[BaseException] = []

    def work(given: Session | None) -> None:
        try:
            results.append((given or load(demo)).generate("Hello", CONFIG))
        except BaseException as error:
            problems.append(error)
            raise

    threads = [threading.Thread(target=work, args=(given,)) for given in (session, session, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [result.tokens for result in results] == [expected] * 3


def test_a_session_loaded_in_a_thread_serves_others(demo: Path, session: Session) -> None:
    loaded: list[Session] = []
    thread = threading.Thread(target=lambda: loaded.append(load(demo)))
    thread.start()
    thread.join()
    assert loaded[0].generate("Hello", CONFIG).tokens == session.generate("Hello", CONFIG).tokens


@pytest.mark.parametrize("options", [{}, {"mode": "causal"}, {"mode": "speculative"}, SHORTLY_VERIFIED, {"trim": True}])
def test_every_event_may_be_taken_by_another_thread(session: Session, options: dict[str, Any]) -> None:
    config = replace(CONFIG, **options)
    taken = taken_in_threads(session.stream("Hello", config))
    tokens = sum((event.tokens for event in taken if isinstance(event, BlockCommitted)), ())
    assert tokens == session.generate("Hello", config).tokens


def test_generation_works_in_a_stream_of_the_callers_choice(session: Session) -> None:
    expected = session.generate("Hello", CONFIG).tokens
    with mx.stream(mx.new_stream(mx.default_device())):
        assert session.generate("Hello", CONFIG).tokens == expected
    assert session.generate("Hello", CONFIG).tokens == expected


def test_a_list_of_prompts_is_answered_as_each_of_them_alone(session: Session) -> None:
    prompts = ["Hello", "What is the answer to all questions?", "Hi there", "word " * 40]
    alone = [session.generate(prompt, CONFIG) for prompt in prompts]
    for batch_size in (1, 3, 8):
        together = session.generate(prompts, CONFIG, batch_size=batch_size)
        assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
        assert [answer.text for answer in together] == [answer.text for answer in alone]
        assert [answer.stats.steps_per_block for answer in together] == [
            answer.stats.steps_per_block for answer in alone
        ]


def test_prompts_of_a_list_may_have_options_of_their_own(session: Session) -> None:
    configs = [replace(CONFIG, seed=seed, max_tokens=4 + seed) for seed in range(3)]
    together = session.generate(["Hello"] * 3, configs)
    assert [answer.tokens for answer in together] == [session.generate("Hello", each).tokens for each in configs]
    with pytest.raises(OptionError, match="2 configs for 3 prompts"):
        session.generate(["Hello"] * 3, configs[:2])


def test_conversations_are_told_from_lists_of_them(session: Session) -> None:
    one = [{"role": "user", "content": "Hello"}]
    expected = session.generate("Hello", CONFIG).tokens
    assert session.generate(one, CONFIG).tokens == expected
    assert [answer.tokens for answer in session.generate([one, "Hello"], CONFIG)] == [expected, expected]


def test_what_is_wrong_with_one_prompt_of_a_list_is_said_before_any_is_answered(session: Session) -> None:
    with pytest.raises(PromptError, match="empty"):
        session.stream_many(["Hello", " "], CONFIG)
    with pytest.raises(OptionError, match="batch_size=0 must be at least 1"):
        session.stream_many(["Hello"], CONFIG, batch_size=0)


def test_leaving_a_stream_early_is_no_trouble(session: Session) -> None:
    stream = session.stream("Hello", CONFIG)
    next(stream)
    stream.close()
    assert session.generate("Hello", CONFIG).finish_reason in ("stop", "length")


def test_running_out_of_memory_is_one_clear_error(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("[metal::malloc] Attempting to allocate 99999 bytes which is greater than the maximum")

    monkeypatch.setattr(session.model, "denoise", fail)
    with pytest.raises(OutOfMemoryError, match="out of memory while generating: lower canvas_length"):
        session.generate("Hello", CONFIG)


def test_other_runtime_errors_are_not_taken_for_missing_memory(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(session.model, "denoise", fail)
    with pytest.raises(RuntimeError, match="something else"):
        session.generate("Hello", CONFIG)


def test_everything_is_checked_before_the_weights_are_read(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(demo, folder)
    (folder / "tokenizer.json").unlink()
    monkeypatch.setattr(
        "mlx_diffgemma.checkpoint.weights.install_weights", lambda *_: pytest.fail("the weights were read")
    )
    with pytest.raises(TokenizerError, match="neither tokenizer"):
        load(folder)


def test_names_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        load(tmp_path / "absent")
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma4"}')
    with pytest.raises(ConfigError, match="model_type 'gemma4'"):
        load(tmp_path)


def test_importing_the_package_imports_neither_mlx_nor_transformers() -> None:
    program = "import sys, mlx_diffgemma; print(sorted({'mlx', 'mlx_lm', 'numpy', 'transformers'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=os.environ)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert dir(mlx_diffgemma) == sorted([*mlx_diffgemma.__all__, "__version__"])
    for name in mlx_diffgemma.__all__:
        assert getattr(mlx_diffgemma, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = mlx_diffgemma.nonsense
