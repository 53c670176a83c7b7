"""A candidate: a canvas with one choice of lengths for its gaps, denoised and judged beside others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from mlx_diffgemma.errors import require_numbers
from mlx_diffgemma.events import CanvasStarted, Denoised
from mlx_diffgemma.generation.prefill import following
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.infilling.boundaries import Boundaries
from mlx_diffgemma.infilling.gap_constraints import constrained_spans
from mlx_diffgemma.infilling.windows import Layout, Window, lay_out
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.canvas import Canvas, end_of
from mlx_diffgemma.sampling.denoising import refine
from mlx_diffgemma.sampling.pins import Pins
from mlx_diffgemma.sampling.sampler import Draft
from mlx_diffgemma.sampling.strategy import Rules


@dataclass(frozen=True, kw_only=True, eq=False)
class FillingSetup:
    """What stays the same while a template is filled."""

    model: DiffusionGemma
    boundaries: Boundaries
    config: GenerationConfig
    rules: Rules
    capacity: int
    """positions of a canvas"""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadText:
    """The prompt and all of the answer that is decided, as the model has read it."""

    cache: Cache
    last_hidden: mx.array
    """[1, 1, D] the encoder's hidden state of the last token"""


@dataclass(frozen=True, kw_only=True, eq=False)
class CanvasTask:
    """What all candidates for one canvas have in common."""

    setup: FillingSetup
    window: Window
    before: ReadText
    block: int
    """the number of the canvas"""


@dataclass(eq=False)
class Candidate:
    """A canvas with chosen lengths, the draft of its last step, and the encoder's judgement of that draft."""

    lengths: tuple[int, ...]
    layout: Layout
    canvas: Canvas
    best: tuple[int, ...] = ()
    """the likeliest token of each position of the window"""
    accepted: tuple[bool, ...] = ()
    entropy: float = float("inf")
    """nats per free position"""
    score: float = float("-inf")
    """the mean log-probability of its tokens, each given all before it"""
    last_hidden: mx.array | None = None
    """[1, 1, D] the encoder's hidden state of its last token"""

    def take(self, draft: Draft) -> None:
        """Keep the draft of a step, which is computed. Raises WeightsError if the model computes no numbers."""
        length = self.layout.length
        self.best = tuple(cast("list[int]", draft.best[0, :length].tolist()))
        self.accepted = tuple(cast("list[bool]", draft.accepted[0, :length].tolist()))
        self.entropy = cast("float", draft.entropy.sum().item()) / self.layout.free
        require_numbers(self.entropy)

    def tokens(self, stop_tokens: Sequence[int]) -> tuple[int, ...]:
        """Return the tokens that would be committed: all up to and with the first end token."""
        end = end_of(self.best, stop_tokens)
        return self.best if end is None else self.best[: end + 1]

    def fillings(self, task: CanvasTask) -> list[bytes] | None:
        """Return the bytes of each gap, up to an end token; None if those of some gap are no valid text."""
        boundaries, stop_tokens = task.setup.boundaries, task.setup.config.stop_tokens
        fillings: list[bytes] = []
        for (start, stop), gap in zip(self.layout.spans, task.window.gaps, strict=True):
            tokens = self.best[start:stop]
            filling = boundaries.data(tokens[: end_of(tokens, stop_tokens)], gap)
            if filling is None:
                return None
            fillings.append(filling)
        return fillings


def start_candidate(task: CanvasTask, lengths: tuple[int, ...], *, whole_characters: bool) -> Candidate:
    """Return a candidate whose gaps have these lengths and hold noise.

    Its cache is a branch of the text before it, which all candidates share.
    whole_characters: ban tokens that are parts of characters.
    """
    setup, window = task.setup, task.window
    layout = lay_out(window, lengths, setup.capacity, setup.boundaries.pad)
    gaps = [(*span, gap) for span, gap in zip(layout.free_spans, window.gaps, strict=True)]
    pins = Pins.of(setup.model, layout.slots, setup.boundaries.bans(gaps, whole_characters=whole_characters))
    canvas = Canvas.pinned(
        task.before.cache.branch(),
        setup.rules,
        seed=setup.config.seed,
        block=task.block,
        pins=pins,
        spans=constrained_spans(window, layout),
    )
    return Candidate(lengths, layout, canvas)


def denoise_together(model: DiffusionGemma, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Denoise candidates side by side until all are over; yield the most confident one after each step."""
    while active := [each for each in candidates if not each.canvas.is_over]:
        for drafts in refine(model, [each.canvas for each in active]):
            for each, draft in zip(active, drafts, strict=True):
                each.take(draft)
            yield min(candidates, key=lambda each: each.entropy)


def judge(task: CanvasTask, candidate: Candidate) -> None:
    """Score a candidate: let the encoder read its tokens, up to an end token.

    Their keys and values are then in the buffer after the candidate's cache; `Cache.advance` makes them part of it.
    """
    model = task.setup.model
    ids = mx.array([candidate.tokens(task.setup.config.stop_tokens)])
    (hidden,) = model.peek([model.embed(ids)], [candidate.canvas.cache])
    before_each = mx.concatenate([task.before.last_hidden, hidden[:, :-1]], axis=1)
    score, last_hidden = following(model, before_each, ids).mean(), hidden[:, -1:]
    mx.eval(score, last_hidden)
    candidate.score, candidate.last_hidden = cast("float", score.item()), last_hidden


class CanvasView:
    """The events of one canvas: after each step it shows one of the candidates. `steps` counts them."""

    def __init__(self, block: int, config: GenerationConfig) -> None:
        self.steps = 0
        self._block = block
        self._config = config
        self._best: tuple[int, ...] = ()

    def started(self, candidate: Candidate) -> CanvasStarted:
        """Return the event of the first candidate, which is noise."""
        noise = cast("list[int]", candidate.canvas.row.canvas[0, : candidate.layout.length].tolist())
        return CanvasStarted(block=self._block, canvas=tuple(noise), pinned=candidate.layout.pinned)

    def denoised(self, candidate: Candidate) -> Denoised:
        """Return the event of one more step, after which `candidate` is shown."""
        self.steps += 1
        before, self._best = self._best, candidate.best
        if len(before) != len(candidate.best):
            # Another length was shown before, so every position is new.
            before = (-1,) * len(candidate.best)
        return Denoised(
            block=self._block,
            step=candidate.canvas.state.step,
            max_steps=self._config.max_steps,
            best=candidate.best,
            accepted=candidate.accepted,
            changed=tuple(now != then for now, then in zip(candidate.best, before, strict=True)),
            mean_entropy=candidate.entropy,
            end=end_of(candidate.best, self._config.stop_tokens),
            pinned=candidate.layout.pinned,
        )
