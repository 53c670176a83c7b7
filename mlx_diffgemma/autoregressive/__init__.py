"""Run an autoregressive language model through mlx-lm: load it, render a prompt, stream an answer."""

from mlx_diffgemma.autoregressive.answering import prompt_tokens, stream_answer, without_thought
from mlx_diffgemma.autoregressive.language_model import LanguageModel, load_language_model

__all__ = ["LanguageModel", "load_language_model", "prompt_tokens", "stream_answer", "without_thought"]
