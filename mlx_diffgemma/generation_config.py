"""The options of one generation, checked on construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

from mlx_diffgemma.constraint.spec import Constraint, require_constraint
from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.option import UNCHANGED, Range, above, at_least, check_options, option, option_fields

LOWEST_TEMPERATURE = 0.001
"""Logits reach 30 in size; divided by less they would leave the range of float32."""
_ENTROPY_BOUND, STOP_TOKENS = "sampler_config.entropy_bound", "eos_token_id"
"""Names in generation_config.json that are not read as they are."""

_ANSWER, _CONSTRAINT, _SAMPLER, SPEED = "Answer", "Constraint", "Sampler", "Speed and quality"
"""The panels of the options; SPEED has what the reference does not have."""

Mode: TypeAlias = Literal["canvas", "causal", "speculative"]
ComputedRows: TypeAlias = Literal["all", "unsettled"]


@dataclass(frozen=True, kw_only=True)
class ConstraintOptions:
    """The options that say what an answer matches, of which one may be given."""

    regex: str | None = option(None, "The whole answer matches this pattern.", _CONSTRAINT, metavar="PATTERN")
    json_schema: Mapping[str, Any] | None = option(
        None, "The answer is JSON valid for a schema: a file, JSON, or 'name, age int'.", _CONSTRAINT, metavar="SCHEMA"
    )
    choices: tuple[str, ...] | None = option(None, "The answer is one of these texts.", _CONSTRAINT, metavar="A,B,C")


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """The options of one generation; each field's metadata says what it does, docs/options.md lists them all.

    The defaults are the reference's, except for the options that the reference does not have. Raises OptionError that
    names option and value.
    """

    system: str | None = option(None, "System prompt.", _ANSWER, flags=("-s",), metavar="TEXT")
    thinking: bool = option(False, "Let the model think before it answers.", _ANSWER)
    raw: bool = option(False, "Send the prompt without the chat template; control tokens in it are read.", _ANSWER)
    max_tokens: int = option(
        256,
        "Maximum number of tokens in the answer, the end token included.",
        _ANSWER,
        flags=("-n",),
        allowed=at_least(1),
        reference="max_new_tokens",
    )
    stop_tokens: tuple[int, ...] = option(
        (1, 106, 50),
        "Id of a token that ends the answer; repeat the option for several.",
        _ANSWER,
        flags=("--stop-token",),
        reference=STOP_TOKENS,
    )
    stop: tuple[str, ...] = option(
        (),
        "Text before which the answer ends; repeat the option for several.",
        _ANSWER,
        metavar="TEXT",
        default_text="none",
        repeated=True,
    )
    seed: int = option(
        0,
        "The same seed, model and options give the same answer.",
        _ANSWER,
        allowed=Range("from 0 to 2**64 - 1", lambda value: 0 <= value < 2**64),
    )

    constraint: Constraint | None = option(
        None, "What the whole answer matches.", _CONSTRAINT, said_by=ConstraintOptions
    )

    canvas_length: int | None = option(
        None,
        "Tokens that are denoised together.",
        _SAMPLER,
        allowed=at_least(1),
        default_text="the model's own length, which is the longest; at most 32 in speculative mode",
        only=("canvas", "speculative"),
    )
    max_steps: int = option(
        48,
        "Maximum number of denoising steps per canvas.",
        _SAMPLER,
        allowed=at_least(1),
        reference="max_denoising_steps",
        only=("canvas",),
    )
    t_min: float = option(
        0.4, "Temperature at the last step.", _SAMPLER, allowed=at_least(0), reference="t_min", only=("canvas",)
    )
    t_max: float = option(
        0.8,
        "Temperature at the first step; it falls linearly from there.",
        _SAMPLER,
        allowed=at_least(LOWEST_TEMPERATURE),
        reference="t_max",
        only=("canvas",),
    )
    entropy_bound: float = option(
        0.1,
        "Accept the most certain positions of a step while their entropies sum to at most this many nats.",
        _SAMPLER,
        allowed=above(0, "nats"),
        reference=_ENTROPY_BOUND,
        only=("canvas",),
    )
    stability_threshold: int = option(
        1,
        "A canvas is finished only if its most likely tokens equal those of this many steps before.",
        _SAMPLER,
        former="stability",
        allowed=at_least(0, "steps"),
        reference="stability_threshold",
        only=("canvas",),
    )
    confidence_threshold: float = option(
        0.005,
        "A canvas is finished only if its mean entropy is below this many nats.",
        _SAMPLER,
        former="confidence",
        allowed=above(0, "nats"),
        reference="confidence_threshold",
        only=("canvas",),
    )
    temperature: float = option(
        1.0,
        "Multiplies the temperatures of all steps, and is that of the other modes; 0 is --greedy.",
        _SAMPLER,
        allowed=Range("0, or at least 0.001", lambda value: value == 0 or value >= LOWEST_TEMPERATURE),
    )
    greedy: bool = option(False, "Take the most likely token at every position instead of drawing one.", _SAMPLER)

    conditioning_top_k: int | None = option(
        64,
        "Most likely tokens per position that condition the next step; 0 on a command line: all of them.",
        SPEED,
        allowed=at_least(1),
        none=0,
        exact=None,
        only=("canvas",),
    )
    until_end: bool = option(
        True, "A canvas need not converge after the end of the answer.", SPEED, exact=False, only=("canvas",)
    )
    allow_empty: bool = option(
        False, "An answer may be empty: its first token may end it, and the exit code is 0.", SPEED, exact=True
    )
    mean_entropy: float | None = option(
        None,
        "A canvas whose mean entropy is below this many nats is finished though its tokens still change.",
        SPEED,
        allowed=above(0, "nats"),
        exact=None,
        only=("canvas",),
    )
    min_steps: int = option(
        12, "Steps before --mean-entropy can finish a canvas.", SPEED, allowed=at_least(1), only=("canvas",)
    )
    first_canvas: int | None = option(
        None,
        "Tokens of the first canvas; each after it is twice as long, up to --canvas-length.",
        SPEED,
        allowed=at_least(1),
        default_text="all canvases are alike",
        exact=None,
        only=("canvas",),
    )
    trim: bool = option(
        False, "Drop the positions of a canvas that the answer cannot use.", SPEED, exact=False, only=("canvas",)
    )
    rows: ComputedRows = option(
        "all",
        "Compute all positions of a canvas in every step, or only those that are not settled.",
        SPEED,
        exact="all",
        only=("canvas",),
    )
    whole_every: int = option(
        4,
        "With --rows unsettled all positions are computed every so many steps.",
        SPEED,
        allowed=at_least(1),
        only=("canvas",),
    )
    prefix_top_k: int | None = option(
        None,
        "Positions of the prefix that steps after a canvas's first see, in full-attention layers.",
        SPEED,
        metavar="N",
        allowed=at_least(1),
        default_text="all",
        exact=None,
        only=("canvas",),
    )
    verify: float | None = option(
        None,
        "Denoise again from the first token whose probability, given the text before it, is below P.",
        SPEED,
        metavar="P",
        allowed=Range("a probability between 0 and 1", lambda value: 0 < value < 1),
        exact=None,
        only=("canvas",),
    )
    mode: Mode = option(
        "canvas",
        "Denoise whole canvases, write one token after another, or write the same in fewer steps with drafts.",
        SPEED,
        exact="canvas",
    )
    draft_steps: int = option(
        1,
        "In speculative mode the denoising steps of a draft, which the encoder then checks in one more step.",
        SPEED,
        allowed=at_least(1),
        only=("speculative",),
    )
    top_p: float = option(
        0.95,
        "In causal and speculative mode draw from the most likely tokens whose probabilities sum to this.",
        SPEED,
        allowed=Range("above 0 and at most 1", lambda value: 0 < value <= 1),
        only=("causal", "speculative"),
    )

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely tokens are taken instead of drawn ones."""
        return self.greedy or self.temperature == 0

    def __post_init__(self) -> None:
        check_options(self)
        if self.t_min > self.t_max:
            raise OptionError(f"t_min={self.t_min} must not be above t_max={self.t_max}")
        if not _are_ids(self.stop_tokens):
            raise OptionError(f"stop_tokens={self.stop_tokens!r} must be a tuple of token ids")
        if wrong := _stop_fault(self.stop):
            raise OptionError(f"stop={self.stop!r} {wrong}")
        if self.raw and (self.system is not None or self.thinking):
            raise OptionError("raw sends the prompt as it is: leave out system and thinking, or raw")
        if self.constraint is not None:
            require_constraint(self.constraint)
        if self.stop and self.constraint is not None:
            raise OptionError(
                "stop cannot be kept with regex, json_schema or choices, which say themselves where the answer ends: "
                "leave out one of them"
            )

    def length_of_canvas(self, block: int, longest: int) -> int:
        """Return the tokens of a canvas by its number, from 0; longest: the tokens of a canvas without first_canvas."""
        # 2**64 is more than any canvas has.
        return longest if self.first_canvas is None else min(longest, self.first_canvas << min(block, 64))

    def forbidden_first(self, vocab_size: int) -> list[int]:
        """Return the tokens of a vocabulary that must not begin the answer: without `allow_empty`, the end tokens."""
        return [] if self.allow_empty else [token for token in self.stop_tokens if token < vocab_size]

    def exact(self) -> GenerationConfig:
        """Return these options without those that the reference does not have: its answers, to the token.

        What the answer must match stays, because it says what is answered, not how.
        """
        return replace(self, **_EXACT)


_EXACT: dict[str, Any] = {
    name: each.option.exact
    for name, each in option_fields(GenerationConfig).items()
    if each.option.exact is not UNCHANGED
}

_IDS = 2**31  # Ids are less: they are computed as numbers of 32 bits.


def _are_ids(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    return all(isinstance(token, int) and 0 <= token < _IDS for token in cast("tuple[object, ...]", value))


def _stop_fault(value: object) -> str | None:
    """Return what is wrong with stop strings, None if nothing."""
    if isinstance(value, str):
        return f"must be a tuple of texts: ({value!r},)"
    if not isinstance(value, tuple):
        return "must be a tuple of texts"
    stops = cast("tuple[object, ...]", value)
    if not all(isinstance(stop, str) and stop for stop in stops):
        return "must be a tuple of texts that are not empty"
    if any(character == "\ufffd" or "\ud800" <= character <= "\udfff" for stop in stops for character in str(stop)):
        return "has a character that no bytes of an answer form: leave it out"
    return None
