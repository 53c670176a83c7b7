"""The autoregressive baseline of a benchmark: answers, speeds and errors of a real tiny llama of mlx-lm's."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from autoregressive import CONTEXT, write_llama
from mlx_lm.generate import generate
from mlx_lm.utils import load

from mlx_diffgemma.benchmark.baseline import (
    Autoregressive,
    BaselineChoice,
    check_baseline,
    load_baseline,
)
from mlx_diffgemma.benchmark.checks import ExactCheck
from mlx_diffgemma.benchmark.results import Reply
from mlx_diffgemma.benchmark.suite import Case
from mlx_diffgemma.checkpoint.hub import DEMO
from mlx_diffgemma.errors import BenchmarkError, ModelNotFoundError
from mlx_diffgemma.infilling.template import parse

SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 20, "top_p": None}


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory) -> Autoregressive:
    return load_baseline(BaselineChoice(model=str(write_llama(tmp_path_factory.mktemp("greedy")))))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Autoregressive:
    return load_baseline(BaselineChoice(model=str(write_llama(tmp_path_factory.mktemp("sampled"), sampling=SAMPLED))))


def case(prompt: str, **changes: Any) -> Case:
    return replace(Case(name="one", prompt=prompt, check=ExactCheck(text="")), **changes)


def answered(subject: Autoregressive, prompt: str, max_tokens: int, seed: int) -> Reply:
    return subject.reply(case(prompt), max_tokens, seed)


# answers


def test_the_answer_is_mlx_lms_own(greedy: Autoregressive) -> None:
    model, tokenizer = load(greedy.loaded.model)[:2]
    messages = [{"role": "user", "content": "Hello"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
    reply = answered(greedy, "Hello", 12, seed=0)
    assert reply.text == generate(model, tokenizer, prompt, max_tokens=12)
    assert (reply.finish_reason, reply.tokens, reply.forwards, reply.canvases) == ("length", 12, 12, 0)
    assert 0 < reply.first_seconds <= reply.seconds
    assert reply.peak_memory > 0


def test_without_sampling_options_no_seed_changes_the_answer(greedy: Autoregressive) -> None:
    assert not greedy.varies
    assert answered(greedy, "Hello", 12, seed=0).text == answered(greedy, "Hello", 12, seed=1).text


def test_the_checkpoints_sampling_is_used_and_seeded(sampled: Autoregressive) -> None:
    assert sampled.varies
    assert sampled.loaded.options == {"temperature": 1.0, "top_p": 1.0, "top_k": 20, "min_p": 0.0}
    texts = [answered(sampled, "Hello", 12, seed).text for seed in (0, 1, 0)]
    assert texts[0] == texts[2] != texts[1]


def test_the_system_prompt_reaches_the_model(sampled: Autoregressive) -> None:
    instructed = replace(sampled, choice=replace(sampled.choice, system="Be brief."))
    assert answered(instructed, "Hello", 12, seed=0).text != answered(sampled, "Hello", 12, seed=0).text
    with pytest.raises(BenchmarkError, match="has no chat template: leave out the system"):
        answered(load_without_template(instructed), "Hello", 12, seed=0)


def load_without_template(model: Autoregressive) -> Autoregressive:
    """The same model and options, its folder without chat template."""
    folder = Path(model.loaded.model).with_name("plain")
    write_llama(folder, template=False)
    return load_baseline(replace(model.choice, model=str(folder)))


def test_a_model_without_chat_template_continues_the_prompt(greedy: Autoregressive) -> None:
    plain = load_without_template(greedy)
    model, tokenizer = load(plain.loaded.model)[:2]
    assert answered(plain, "Hello", 8, seed=0).text == generate(model, tokenizer, "Hello", max_tokens=8)


def test_a_prompt_that_the_template_refuses_is_one_line(greedy: Autoregressive, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "refusing")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no, thank you') }}")
    with pytest.raises(BenchmarkError, match=r"the baseline .* refused a prompt in its chat template: no, thank you"):
        answered(load_baseline(BaselineChoice(model=str(folder))), "Hello", 8, seed=0)


def test_a_conversation_reaches_the_model(sampled: Autoregressive) -> None:
    said = case("Hello", messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}))
    instructed = case("Hello", options={"system": "Be brief."})
    assert sampled.reply(said, 12, seed=0).text == sampled.reply(instructed, 12, seed=0).text


def test_a_prompt_may_have_its_own_system_prompt_and_thinking(sampled: Autoregressive) -> None:
    instructed = replace(sampled, choice=replace(sampled.choice, system="Be brief."))
    own = case("Hello", options={"system": "Be brief."})
    assert sampled.reply(own, 12, seed=0).text == answered(instructed, "Hello", 12, seed=0).text
    other = case("Hello", options={"system": "Be long."})
    assert instructed.reply(other, 12, seed=0).text == answered(instructed, "Hello", 12, seed=0).text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"template": parse("one <gap>")}, "the baseline fills no gaps"),
        ({"options": {"regex": "a"}}, "the baseline has no option regex"),
        ({"options": {"json_schema": {}}}, "the baseline has no option json_schema"),
        ({"options": {"choices": ("a",)}}, "the baseline has no option choices"),
        ({"options": {"raw": True}}, "the baseline has no option raw"),
        ({"options": {"raw": False, "regex": None, "max_steps": 3}}, None),
    ],
)
def test_what_only_diffusion_can_do_is_a_problem(
    greedy: Autoregressive, changes: dict[str, Any], problem: str | None
) -> None:
    assert greedy.problem(case("Hello", **changes), 10) == problem


# speed and sizes


def test_prefill_and_tokens_are_timed(greedy: Autoregressive) -> None:
    assert greedy.prefill(50) > 0
    tokens = greedy.steps(50, 1, 8, patience=60)
    assert len(tokens) == 8
    assert min(tokens) > 0
    assert len(greedy.steps(50, 1, 100, patience=0)) == 1


def test_its_context_is_that_of_its_configuration(greedy: Autoregressive) -> None:
    assert (greedy.context, greedy.canvas) == (CONTEXT, 1)
    assert greedy.problem(case("Hello"), 100) is None
    problem = greedy.problem(case("Hello " * 400), 300)
    assert problem is not None
    assert problem.endswith(f"positions, the baseline has {CONTEXT}")
    contents = greedy.contents
    nested = {"text_config": {"max_position_embeddings": 77}}
    assert replace(greedy, contents=contents._replace(config=nested)).context == 77
    assert replace(greedy, contents=contents._replace(config={})).context == sys.maxsize


def test_loading_is_measured(greedy: Autoregressive) -> None:
    loaded = greedy.loaded
    assert (loaded.kind, loaded.seconds > 0) == ("autoregressive", True)
    weights = mx.load(str(Path(loaded.model) / "model.safetensors"))
    size = sum(array.nbytes for array in weights.values())
    assert loaded.weights == size
    assert loaded.peak_memory >= size


# what is wrong


def test_a_baseline_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder: /nowhere"):
        check_baseline(BaselineChoice(model="/nowhere"))
    with pytest.raises(BenchmarkError, match=r"^the baseline demo is a DiffusionGemma: name a model that mlx-lm runs$"):
        check_baseline(BaselineChoice(model=DEMO))
    folder = write_llama(tmp_path / "llama")
    check_baseline(BaselineChoice(model=str(folder)))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "parrot"}))
    with pytest.raises(
        BenchmarkError, match=r"the baseline .* cannot be loaded by mlx-lm: Model type parrot not supported."
    ):
        check_baseline(BaselineChoice(model=str(folder)))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BenchmarkError, match=r"the baseline .* cannot be loaded by mlx-lm"):
        check_baseline(BaselineChoice(model=str(folder)))
    (folder / "model.safetensors").unlink()
    with pytest.raises(BenchmarkError, match="No safetensors found"):
        check_baseline(BaselineChoice(model=str(folder)))
