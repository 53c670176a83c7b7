"""The options of one generation: read from the checkpoint, overridden by the caller, checked on construction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast, get_args

from mlx_diffgemma.constraint.spec import SchemaSource, fault, read_schema
from mlx_diffgemma.errors import ConfigError, OptionError

SAMPLER = "EntropyBoundSamplerConfig"

Mode: TypeAlias = Literal["canvas", "causal"]


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Options of one generation; `exact` turns off what the reference does not do.

    max_tokens: tokens of the answer at most, the end token included; what a canvas holds beyond it is cut.
    canvas_length: positions denoised at once; None is the model's own length, which is also the largest.
    max_steps: denoising steps per canvas at most.
    t_min, t_max: the temperature falls linearly from t_max at the first step towards t_min at the last.
    entropy_bound: nats; the most certain positions whose entropies sum to at most this are accepted in each step.
    stability: a canvas can only be finished when its most likely tokens equal those of this many steps before.
    confidence: nats; a canvas can only be finished when its mean entropy is below this.
    seed: the same seed, model and options give the same tokens.
    greedy: tokens that are drawn are the most likely ones.

    Where the reference has no such option, and what it does:
    conditioning_top_k: tokens per position that condition the next step; None is all of them, as in the reference.
    until_end: what stands behind the first end token of a canvas need not settle; the whole canvas there.
    allow_empty: an end token may be the first token of the answer; it may there.
    mean_entropy, min_steps: nats below which a canvas is finished though it changes, after so many steps; None there.
    trim: positions that the answer cannot use (beyond max_tokens, behind a settled end) are dropped; not there.
    verify: least probability, given what stands before, of a token that is committed; from the first token below it
    the text is denoised again. None there.
    mode: "canvas"; "causal" writes one token after another, drawn at `temperature` from the most likely tokens whose
    probabilities sum to top_p.

    stop_tokens: ids that end the answer.
    system: a system prompt. thinking: ask the model to think first. raw: no chat template, the prompt as it is.

    What the answer must match, thinking not counted; one of them at most:
    regex: a pattern that matches all of it. json_schema: a schema for which it is a valid JSON text.
    choices: texts of which it is one.

    Raises OptionError naming option and value.
    """

    max_tokens: int = 256
    canvas_length: int | None = None
    max_steps: int = 48
    t_min: float = 0.4
    t_max: float = 0.8
    entropy_bound: float = 0.1
    stability: int = 1
    confidence: float = 0.005
    seed: int = 0
    greedy: bool = False
    conditioning_top_k: int | None = 64
    until_end: bool = True
    allow_empty: bool = False
    mean_entropy: float | None = None
    min_steps: int = 12
    trim: bool = False
    verify: float | None = None
    mode: Mode = "canvas"
    temperature: float = 1.0
    top_p: float = 0.95
    stop_tokens: tuple[int, ...] = (1, 106, 50)
    system: str | None = None
    thinking: bool = False
    raw: bool = False
    regex: str | None = None
    json_schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in WHOLE:
            _require(_is_whole(getattr(self, name)), name, getattr(self, name), "a whole number")
        for name in REAL:
            _require(_is_number(getattr(self, name)), name, getattr(self, name), "a number")
        for name in ("max_tokens", "max_steps"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        if self.canvas_length is not None:
            holds = _is_whole(self.canvas_length) and self.canvas_length >= 1
            _require(holds, "canvas_length", self.canvas_length, "a whole number, at least 1")
        _require(self.t_min >= 0, "t_min", self.t_min, "at least 0")
        # Logits reach 30 in size; divided by less than this they would leave the range of float32.
        _require(self.t_max >= 0.001, "t_max", self.t_max, "at least 0.001")
        if self.t_min > self.t_max:
            raise OptionError(f"t_min={self.t_min} must not be above t_max={self.t_max}")
        _require(self.entropy_bound > 0, "entropy_bound", self.entropy_bound, "above 0 nats")
        _require(self.stability >= 0, "stability", self.stability, "at least 0 steps")
        _require(self.confidence > 0, "confidence", self.confidence, "above 0 nats")
        self._require_speed()
        _require(0 <= self.seed < 2**64, "seed", self.seed, "from 0 to 2**64 - 1")
        _require(_are_ids(self.stop_tokens), "stop_tokens", self.stop_tokens, "a tuple of token ids")
        _require(self.system is None or _is_text(self.system), "system", self.system, "text")
        if self.raw and (self.system is not None or self.thinking):
            raise OptionError("raw sends the prompt as it is: system and thinking need the chat template")
        _require(_is_mapping(self.json_schema), "json_schema", self.json_schema, "a dict")
        if wrong := fault(self):
            raise OptionError(wrong)

    def _require_speed(self) -> None:
        """Check the options that the reference does not have."""
        if self.conditioning_top_k is not None:
            holds = _is_whole(self.conditioning_top_k) and self.conditioning_top_k >= 1
            _require(holds, "conditioning_top_k", self.conditioning_top_k, "a whole number, at least 1, or None")
        if self.mean_entropy is not None:
            holds = _is_number(self.mean_entropy) and self.mean_entropy > 0
            _require(holds, "mean_entropy", self.mean_entropy, "above 0 nats, or None")
        _require(self.min_steps >= 1, "min_steps", self.min_steps, "at least 1")
        if self.verify is not None:
            holds = _is_number(self.verify) and 0 < self.verify < 1
            _require(holds, "verify", self.verify, "a probability between 0 and 1, or None")
        _require(self.mode in get_args(Mode), "mode", self.mode, " or ".join(get_args(Mode)))
        # Logits reach 30 in size: see t_max.
        _require(self.temperature >= 0.001, "temperature", self.temperature, "at least 0.001")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")

    def forbidden_first(self, vocab_size: int) -> list[int]:
        """The tokens of a vocabulary that must not begin the answer: without `allow_empty` those that end it."""
        return [] if self.allow_empty else [token for token in self.stop_tokens if token < vocab_size]

    def exact(self) -> GenerationConfig:
        """These options without those that the reference does not have: its answers, to the token.

        What the answer must match stays, because it is no matter of how but of what.
        """
        return replace(
            self,
            conditioning_top_k=None,
            until_end=False,
            allow_empty=True,
            mean_entropy=None,
            trim=False,
            verify=None,
            mode="canvas",
        )


WHOLE = ("max_tokens", "max_steps", "stability", "seed", "min_steps")
REAL = ("t_min", "t_max", "entropy_bound", "confidence", "temperature", "top_p")


def matching(
    config: GenerationConfig,
    regex: str | None,
    json_schema: SchemaSource | None,
    choices: Sequence[str] | None,
) -> GenerationConfig:
    """`config` with what the answer must match in place of its own, if anything is given."""
    if (regex, json_schema, choices) == (None, None, None):
        return config
    if isinstance(choices, str):
        raise OptionError(f"choices={choices!r} must be a list of texts")
    return replace(
        config,
        regex=regex,
        json_schema=None if json_schema is None else read_schema(json_schema),
        choices=None if choices is None else tuple(choices),
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_mapping(value: object) -> bool:
    return value is None or isinstance(value, Mapping)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _are_ids(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    return all(isinstance(token, int) and token >= 0 for token in cast("tuple[object, ...]", value))


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise OptionError(f"{name}={value!r} must be {wanted}")


FIELDS = {
    "max_new_tokens": "max_tokens",
    "max_denoising_steps": "max_steps",
    "t_min": "t_min",
    "t_max": "t_max",
    "stability_threshold": "stability",
    "confidence_threshold": "confidence",
}
"""generation_config.json's names -> ours."""


def parse_generation_config(raw: Mapping[str, Any], stop_tokens: tuple[int, ...] = ()) -> GenerationConfig:
    """Read generation_config.json (or the object of that name inside config.json); absent keys keep the defaults.

    `stop_tokens` are used where the file names none. Raises ConfigError for values that cannot be meant.
    """
    values: dict[str, Any] = {}
    for theirs, ours in FIELDS.items():
        value = raw.get(theirs)
        if value is None:
            continue
        if not (_is_whole(value) if ours in WHOLE else _is_number(value)):
            raise ConfigError(f"generation_config.json: {theirs} must be a number, not {value!r}")
        values[ours] = value
    sampler = raw.get("sampler_config")
    if sampler is not None:
        values["entropy_bound"] = _entropy_bound(sampler)
    tokens = token_ids("generation_config.json: eos_token_id", raw.get("eos_token_id")) or stop_tokens
    if tokens:
        values["stop_tokens"] = tokens
    try:
        return GenerationConfig(**values)
    except OptionError as error:
        raise ConfigError(f"generation_config.json: {error}") from None


def _entropy_bound(sampler: Any) -> float:
    if not isinstance(sampler, Mapping):
        raise ConfigError(f"generation_config.json: sampler_config must be an object, not {sampler!r}")
    entries: Mapping[str, Any] = sampler
    name = entries.get("_cls_name", SAMPLER)
    bound = entries.get("entropy_bound")
    if name != SAMPLER or not isinstance(bound, (int, float)):
        raise ConfigError(f"generation_config.json: sampler_config {dict(entries)} is not an {SAMPLER} with its bound")
    return float(bound)


def token_ids(where: str, value: Any) -> tuple[int, ...]:
    """One id, a list of ids or null, as a tuple. Raises ConfigError."""
    if value is None:
        return ()
    ids: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise ConfigError(f"{where} must be a token id or a list of them, not {value!r}")
    return tuple(ids)
