"""The autoregressive baseline of a benchmark: a real tiny llama of mlx-lm's, its template, its sampling, its errors."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

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
    sampling,
    without_thought,
)
from mlx_diffgemma.checkpoint.hub import DEMO
from mlx_diffgemma.errors import BenchmarkError, ModelNotFoundError

SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 20, "top_p": None}


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory) -> Autoregressive:
    return load_baseline(BaselineChoice(model=str(write_llama(tmp_path_factory.mktemp("greedy")))))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Autoregressive:
    return load_baseline(BaselineChoice(model=str(write_llama(tmp_path_factory.mktemp("sampled"), sampling=SAMPLED))))


# answers


def test_the_answer_is_mlx_lms_own(greedy: Autoregressive) -> None:
    model, tokenizer = load(greedy.loaded.model)[:2]
    messages = [{"role": "user", "content": "Hello"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
    reply = greedy.reply("Hello", 12, seed=0)
    assert reply.text == generate(model, tokenizer, prompt, max_tokens=12)
    assert (reply.finish_reason, reply.tokens, reply.forwards, reply.canvases) == ("length", 12, 12, 0)
    assert 0 < reply.first_seconds <= reply.seconds
    assert reply.peak_memory > 0


def test_without_sampling_options_no_seed_changes_the_answer(greedy: Autoregressive) -> None:
    assert not greedy.varies
    assert greedy.reply("Hello", 12, seed=0).text == greedy.reply("Hello", 12, seed=1).text


def test_the_checkpoints_sampling_is_used_and_seeded(sampled: Autoregressive) -> None:
    assert sampled.varies
    assert sampled.loaded.options == {"temperature": 1.0, "top_p": 1.0, "top_k": 20, "min_p": 0.0}
    texts = [sampled.reply("Hello", 12, seed).text for seed in (0, 1, 0)]
    assert texts[0] == texts[2] != texts[1]


def test_the_system_prompt_reaches_the_model(sampled: Autoregressive) -> None:
    told = replace(sampled, wanted=replace(sampled.wanted, system="Be brief."))
    assert told.reply("Hello", 12, seed=0).text != sampled.reply("Hello", 12, seed=0).text
    with pytest.raises(BenchmarkError, match="has no chat template: leave out the system"):
        load_without_template(told).reply("Hello", 12, seed=0)


def load_without_template(model: Autoregressive) -> Autoregressive:
    """The same model and options, its folder without chat template."""
    folder = Path(model.loaded.model).with_name("plain")
    write_llama(folder, template=False)
    return load_baseline(replace(model.wanted, model=str(folder)))


def test_a_model_without_chat_template_continues_the_prompt(greedy: Autoregressive) -> None:
    plain = load_without_template(greedy)
    model, tokenizer = load(plain.loaded.model)[:2]
    assert plain.reply("Hello", 8, seed=0).text == generate(model, tokenizer, "Hello", max_tokens=8)


def test_a_prompt_that_the_template_refuses_is_one_line(greedy: Autoregressive, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "refusing")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no, thank you') }}")
    with pytest.raises(BenchmarkError, match="the baseline's chat template refused a prompt: no, thank you"):
        load_baseline(BaselineChoice(model=str(folder))).reply("Hello", 8, seed=0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>hm</think>\n\nyes", "yes"),
        ("hm</think>yes", "yes"),
        ("<think>hm", ""),
        ("yes", "yes"),
        ("", ""),
    ],
)
def test_thinking_is_no_part_of_the_answer(text: str, answer: str) -> None:
    assert without_thought(text, "<think>", "</think>") == answer
    assert without_thought(text, None, None) == text


# speed and sizes


def test_prefill_and_tokens_are_timed(greedy: Autoregressive) -> None:
    assert greedy.prefill(50) > 0
    tokens = greedy.steps(50, 1, 8, patience=60)
    assert len(tokens) == 8
    assert min(tokens) > 0
    assert len(greedy.steps(50, 1, 100, patience=0)) == 1


def test_its_context_is_that_of_its_configuration(greedy: Autoregressive) -> None:
    assert (greedy.context, greedy.canvas) == (CONTEXT, 1)
    assert greedy.problem("Hello", 100) is None
    problem = greedy.problem("Hello " * 400, 300)
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
    with pytest.raises(BenchmarkError, match=r"mlx-lm cannot load the baseline .*: Model type parrot not supported."):
        check_baseline(BaselineChoice(model=str(folder)))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BenchmarkError, match="mlx-lm cannot load the baseline"):
        check_baseline(BaselineChoice(model=str(folder)))
    (folder / "model.safetensors").unlink()
    with pytest.raises(BenchmarkError, match="No safetensors found"):
        check_baseline(BaselineChoice(model=str(folder)))


def test_sampling_options_are_checked(tmp_path: Path) -> None:
    assert sampling(tmp_path)["temperature"] == 0
    file = tmp_path / "generation_config.json"
    file.write_text('{"temperature": 0.7}')
    assert sampling(tmp_path)["temperature"] == 0
    file.write_text('{"do_sample": true, "top_p": 0.9}')
    assert sampling(tmp_path) == {"temperature": 1.0, "top_p": 0.9, "top_k": 0, "min_p": 0.0}
    file.write_text('{"do_sample": true, "temperature": "warm"}')
    with pytest.raises(BenchmarkError, match="temperature must be a number, not 'warm'"):
        sampling(tmp_path)
