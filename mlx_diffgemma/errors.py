"""Expected failures: one class per thing a user can put right, each message saying what to do."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager


class DiffGemmaError(Exception):
    """Base of every expected failure; the programs print its message as one line and exit 1."""


class ModelNotFoundError(DiffGemmaError):
    """No such folder or Hub repository, or a folder that lacks a file it must have."""


class ConfigError(DiffGemmaError):
    """config.json or generation_config.json is broken, or describes another kind of model."""


class QuantizationError(ConfigError):
    """A quantization that no kernel here can run, or that the shapes do not allow."""


class WeightsError(DiffGemmaError):
    """A tensor is missing, unknown, mis-shaped or damaged; the message names it."""


class TokenizerError(DiffGemmaError):
    """The folder has no usable tokenizer, or the chat template refused the conversation."""


class OptionError(DiffGemmaError):
    """An option of the caller is out of range; the message names option, value and range."""


class ConstraintError(DiffGemmaError):
    """What the answer must match cannot be used, or cannot be met; the message names the pattern or the keyword."""


class PromptError(DiffGemmaError):
    """The prompt is empty, or longer than the model's context."""


class OutOfMemoryError(DiffGemmaError):
    """The device cannot hold the model or the context."""


class ConvertError(DiffGemmaError):
    """The conversion cannot start or cannot go on; nothing is left under the destination's name."""


class DataError(DiffGemmaError):
    """Training data, or a file of prompts, is missing or damaged; the message names the file and the line."""


class TemplateError(DiffGemmaError):
    """A template has no gap, or one that cannot be filled; or a span lies outside its text."""


class DocumentError(DiffGemmaError):
    """A file to be filled or edited is no text, cannot be read or written, or has changed since it was read."""


class AdapterError(DiffGemmaError):
    """An adapter is missing, damaged, or made for another model; the message names its folder."""


class TrainingError(DiffGemmaError):
    """Training cannot start, resume or go on; what was saved last is kept."""


class AutoregressiveError(DiffGemmaError):
    """An autoregressive model cannot be loaded by mlx-lm, or refused a prompt; the message begins with its name."""


class BenchmarkError(DiffGemmaError):
    """A benchmark cannot be run as asked: its baseline does not load, or its result cannot be written."""


def require_numbers(value: float) -> None:
    """Raise WeightsError for what weights of NaN or Inf make of everything."""
    if not math.isfinite(value):
        raise WeightsError("the model computes no numbers: its weights hold NaN or Inf, convert or download it again")


def needs_extra(feature: str, extra: str) -> str:
    """Return the message for a feature whose packages are in the extra `extra` and are not installed."""
    return f"{feature} needs more packages: pip install 'mlx-diffgemma[{extra}]'"


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
    """Turn an allocation failure, which MLX reports in a different way per device, into one OutOfMemoryError."""
    try:
        yield
    except MemoryError:
        raise OutOfMemoryError(f"out of memory while {doing}: {remedy}") from None
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in ALLOCATION_FAILURES):
            raise
        raise OutOfMemoryError(f"out of memory while {doing}: {remedy}") from error


ALLOCATION_FAILURES = (
    "malloc",
    "out of memory",
    "insufficient memory",
    "unable to allocate",
    "failed to allocate",
)
"""What MLX's allocators say on Metal, CUDA and the CPU."""


def loading_errors() -> tuple[type[Exception], ...]:
    """What mlx-lm, transformers and huggingface_hub raise for a folder that they cannot make sense of."""
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
