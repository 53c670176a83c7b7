"""Expected failures: one class per thing that a user can correct, with messages that say what to do."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager


class DiffGemmaError(Exception):
    """Base of all expected failures; the programs print the message in one line and exit with 1."""


class ModelNotFoundError(DiffGemmaError):
    """There is no such folder or Hub repository, or the folder lacks a required file."""


class ConfigError(DiffGemmaError):
    """config.json or generation_config.json is broken, or describes another kind of model."""


class QuantizationError(ConfigError):
    """A quantization that MLX cannot run, or that does not fit the shapes of the weights."""


class WeightsError(DiffGemmaError):
    """A tensor is missing, unknown, damaged or of a wrong shape; the message names it."""


class TokenizerError(DiffGemmaError):
    """The folder has no usable tokenizer, or the chat template rejects the conversation."""


class OptionError(DiffGemmaError):
    """An option is unknown or out of range; the message names option, value and range."""


class ConstraintError(DiffGemmaError):
    """A constraint cannot be used, or no answer can meet it; the message names the pattern or the keyword."""


class PromptError(DiffGemmaError):
    """The prompt is empty, or longer than the model's context."""


class OutOfMemoryError(DiffGemmaError):
    """The machine has too little memory for the model or the context."""


class EmptyAnswerError(DiffGemmaError):
    """The model wrote nothing, or a thought alone, and empty answers are not allowed; raised by the programs only."""


class ConvertError(DiffGemmaError):
    """A conversion cannot start or cannot continue; the destination is left as it was."""


class DataError(DiffGemmaError):
    """Training data or a file of prompts is missing or damaged; the message names the file and the line."""


class TemplateError(DiffGemmaError):
    """A template has no gap, or a gap that cannot be filled; or a span is outside its text."""


class DocumentError(DiffGemmaError):
    """A file to fill or edit is not text, cannot be read or written, or has changed since it was read."""


class AdapterError(DiffGemmaError):
    """An adapter is missing, damaged or made for another model; the message names its folder."""


class TrainingError(DiffGemmaError):
    """A training cannot start, resume or continue; the last save is kept."""


class AutoregressiveError(DiffGemmaError):
    """An autoregressive model cannot be loaded by mlx-lm, or refused a prompt; the message begins with its name."""


class BenchmarkError(DiffGemmaError):
    """A benchmark cannot be run: its baseline does not load, or its result cannot be written."""


def require_numbers(value: float) -> None:
    """Raise WeightsError for a value that is NaN or Inf, which weights of NaN or Inf make of everything."""
    if not math.isfinite(value):
        raise WeightsError("the model computes no numbers: its weights hold NaN or Inf, convert or download it again")


def needs_extra(feature: str, extra: str) -> str:
    """Return the message for a feature whose packages are in the extra `extra` and are not installed."""
    return f"{feature} needs more packages: pip install 'mlx-diffgemma[{extra}]'"


def is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogate, so that it can be written as UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def require_unicode(text: str, name: str, error: type[DiffGemmaError]) -> None:
    """Raise `error` for text with a lone surrogate, which stands for a byte of a command line that is not UTF-8.

    name: what the text is, for the message.
    """
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise error(f"{name} is not valid Unicode at character {fault.start}: remove that character") from None


@contextmanager
def out_of_memory(doing: str, remedy: str) -> Generator[None]:
    """Raise OutOfMemoryError for an allocation failure, which MLX reports in a different way on each device."""
    try:
        yield
    except MemoryError:
        raise OutOfMemoryError(f"out of memory while {doing}: {remedy}") from None
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in _ALLOCATION_FAILURES):
            raise
        raise OutOfMemoryError(f"out of memory while {doing}: {remedy}") from error


_ALLOCATION_FAILURES = (
    "malloc",
    "out of memory",
    "insufficient memory",
    "unable to allocate",
    "failed to allocate",
)
"""Parts of the messages of MLX's allocators on Metal, CUDA and the CPU."""


def loading_errors() -> tuple[type[Exception], ...]:
    """Return the errors that mlx-lm, transformers and huggingface_hub raise for a folder that they cannot load."""
    from huggingface_hub.errors import StrictDataclassError

    return (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RuntimeError,
        AttributeError,
        ImportError,
        StrictDataclassError,
    )
