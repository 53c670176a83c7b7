"""An autoregressive model through mlx-lm: its sampling options, its answer chunk by chunk, its thinking."""

from __future__ import annotations

from pathlib import Path

import pytest
from autoregressive import write_llama
from mlx_lm.generate import generate

from mlx_diffgemma.autoregressive import LanguageModel, load_language_model, prompt_tokens, stream_answer
from mlx_diffgemma.autoregressive.answering import text_after_thought
from mlx_diffgemma.autoregressive.language_model import sampling_options
from mlx_diffgemma.errors import AutoregressiveError

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_language_model(str(write_llama(tmp_path_factory.mktemp("llama"))))


def test_the_chunks_of_an_answer_are_mlx_lms_answer(llama: LanguageModel) -> None:
    tokens = prompt_tokens(llama, HELLO)
    chunks = list(stream_answer(llama, tokens, 12, seed=0))
    assert "".join(chunk.text for chunk in chunks) == generate(llama.model, llama.tokenizer, tokens, max_tokens=12)
    assert (chunks[-1].tokens, chunks[-1].finish_reason) == (12, "length")
    assert all(chunk.finish_reason is None for chunk in chunks[:-1])


def test_between_chunks_stdout_is_the_callers(llama: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in stream_answer(llama, prompt_tokens(llama, HELLO), 2, seed=0):
        print("mine")
    assert set(capsys.readouterr().out.split()) == {"mine"}


def test_a_system_prompt_needs_a_chat_template(tmp_path: Path) -> None:
    plain = load_language_model(str(write_llama(tmp_path, template=False)), lazy=True)
    assert prompt_tokens(plain, HELLO) == plain.tokenizer.encode("Hello")
    with pytest.raises(AutoregressiveError, match=f"{tmp_path} has no chat template: leave out the system prompt"):
        prompt_tokens(plain, [{"role": "system", "content": "Be brief."}, *HELLO])


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
    assert text_after_thought(text, "<think>", "</think>") == answer
    assert text_after_thought(text, None, None) == text


def test_sampling_options_are_checked(tmp_path: Path) -> None:
    assert sampling_options(tmp_path)["temperature"] == 0
    file = tmp_path / "generation_config.json"
    file.write_text('{"temperature": 0.7}')
    assert sampling_options(tmp_path)["temperature"] == 0
    file.write_text('{"do_sample": true, "top_p": 0.9}')
    assert sampling_options(tmp_path) == {"temperature": 1.0, "top_p": 0.9, "top_k": 0, "min_p": 0.0}
    file.write_text('{"do_sample": true, "temperature": "warm"}')
    with pytest.raises(AutoregressiveError, match="temperature must be a number, not 'warm'"):
        sampling_options(tmp_path)
