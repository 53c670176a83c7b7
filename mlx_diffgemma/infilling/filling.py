"""Filling the gaps of a template, canvas by canvas; ids in, events out.

1  the prompt goes into the cache, with the text before the first canvas       -> Prefilled, BlockCommitted
per window:
  2  what stands in the canvas: a gap, and what fits around it                 -> CanvasStarted
  3  gap by gap, canvases of candidate lengths are denoised side by side for
     a few steps; those go on that the encoder finds most likely, per token    -> Denoised per step
  4  the finalists are denoised to their end; if the gaps of none are text,
     again without parts of characters                                         -> Denoised per step
  5  of those whose gaps are text the most likely one wins                     -> BlockCommitted, GapFilled per gap
  6  it goes into the cache, with the text up to the next canvas               -> BlockCommitted
7                                                                              -> Finished

The decoder is as sure of a filling that is too long as of the right one; it is the encoder that finds the text behind
it unlikely then. So the encoder ranks, and confidence only tells which candidate is shown. The candidates share the
prefix: a canvas gets a copy of it when it first writes behind it, and no other.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import cast

import mlx.core as mx

from mlx_diffgemma.errors import OptionError, PromptError
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, GapFilled, Prefilled
from mlx_diffgemma.generation.prefill import following, prefill_with_last
from mlx_diffgemma.generation.timing import Clock
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.infilling.boundaries import Hole, Joints, Piece
from mlx_diffgemma.infilling.candidates import Candidate
from mlx_diffgemma.infilling.constrained import bounded, constrained_spans, remaining
from mlx_diffgemma.infilling.windows import (
    Window,
    arrange,
    grids,
    hole_budget,
    leading_text,
    middle,
    nearer,
    needed,
    possible,
    window,
)
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.canvas import Canvas, end_of
from mlx_diffgemma.sampling.denoising import refine
from mlx_diffgemma.sampling.pins import Pins
from mlx_diffgemma.sampling.strategy import default_rules

PROBE = 4
"""Steps after which candidates of different lengths are compared."""
SIDE_BY_SIDE = 8
"""Candidates that are denoised together."""
FINALISTS = 3
"""Candidates that are denoised to their end."""


class Infilling:
    """One template being filled: `events` does it all."""

    def __init__(
        self,
        model: DiffusionGemma,
        joints: Joints,
        tokens: Sequence[int],
        pieces: Sequence[Piece],
        config: GenerationConfig,
    ) -> None:
        """tokens: of the prompt; pieces: of the answer. Raises OptionError and PromptError."""
        self._model = model
        self._joints = joints
        self._prompt = list(tokens)
        self._config = config
        self._room = canvas_room(model, config)
        self._rest = tuple(
            bounded(piece, config.max_tokens if piece.open else self._room) if isinstance(piece, Hole) else piece
            for piece in pieces
        )
        self._rules = default_rules(model, config)
        self._cache = model.make_cache()
        self._last: mx.array
        self._position = 0
        self._clock = Clock()
        self._block = 0
        self._steps = 0
        self._gap, self._gap_text, self._gap_tokens, self._total = 0, "", 0, 0
        self._shown: tuple[int, ...] = ()
        self._ended = True
        context = model.config.max_position_embeddings
        least = len(tokens) + sum(needed(piece, self._room) for piece in self._rest) + self._room
        if least > context:
            raise PromptError(f"prompt and template need {least} positions, the model has {context}: shorten the text")

    def events(self) -> Iterator[Event]:
        """Fill gap after gap."""
        # 1
        leading, self._rest = leading_text(self._rest, self._room, 0)
        yield from self._read([*self._prompt, *leading])
        self._clock.prefilled()
        self._position = len(leading)
        if leading:
            yield BlockCommitted(block=0, steps=0, tokens=leading, last=False)
        while any(isinstance(piece, Hole) for piece in self._rest):
            yield from self._decided(window(self._rest, self._room))
            yield from self._given()
            mx.clear_cache()
            self._block += 1
        # 7
        stats = self._clock.stats(len(self._prompt), self._total)
        yield Finished(reason="stop" if self._ended else "length", stats=stats)

    def _read(self, tokens: Sequence[int]) -> Iterator[Prefilled]:
        """Tokens go into the cache; of the last one the hidden state is kept."""
        ids = mx.array([list(tokens)])
        total = ids.shape[1]
        for reached in prefill_with_last(self._model, [ids], [self._cache]):
            done, last = reached[0]
            if last is not None:
                self._last = last
            yield Prefilled(done=done, total=total)

    def _given(self) -> Iterator[BlockCommitted]:
        """6: the text up to the next canvas."""
        tokens, self._rest = leading_text(self._rest, self._room, self._position)
        if not tokens:
            return
        self._position += len(tokens)
        yield BlockCommitted(block=self._block, steps=0, tokens=tokens, last=not self._rest)
        if self._rest:
            for _ in self._read(tokens):
                pass

    def _decided(self, window: Window) -> Iterator[Event]:
        """2 to 6 for one window."""
        self._steps = 0
        finalists = yield from self._searched(window)
        yield from self._denoised(finalists)
        standing = [
            each for each in finalists if each.texts(self._joints, window, self._config.stop_tokens) is not None
        ]
        if not standing:
            standing = [self._candidate(window, each.lengths, strict=True) for each in finalists]
            yield from self._denoised(standing)
        # 5
        for each in standing:
            self._judge(each)
        winner = max(standing, key=lambda each: each.score)
        tokens = winner.tokens(self._config.stop_tokens)
        self._clock.committed(self._steps)
        is_open = window.holes[-1].open and window.pieces[-1] is window.holes[-1]
        ended = end_of(tokens, self._config.stop_tokens) is not None
        self._rest = () if ended else remaining(window, winner.layout, winner.best)
        self._ended = ended or not is_open
        yield BlockCommitted(block=self._block, steps=self._steps, tokens=tokens, last=not self._rest)
        yield from self._filled(window, winner)
        # 6
        assert winner.last is not None
        self._cache, self._last = winner.canvas.cache, winner.last
        self._cache.advance(len(tokens))
        self._position += len(tokens)

    def _searched(self, window: Window) -> Generator[Event, None, list[Candidate]]:
        """3: the best choices of lengths, gap after gap; what is not chosen yet has a middle length."""
        tried = grids(window)
        beams = [middle(tried, hole_budget(window.pieces, self._room))]
        first = self._candidate(window, beams[0], strict=False)
        yield self._started(first)
        best: list[Candidate] = []
        for place, (hole, lengths) in enumerate(zip(window.holes, tried, strict=True)):
            if len(lengths) > 1:
                best = yield from self._compared(window, _choices(beams, place, lengths), [])
                near = nearer(possible(hole), lengths, best[0].lengths[place])
                best = yield from self._compared(window, _choices([best[0].lengths], place, near), best)
                beams = [each.lengths for each in best]
        return best or [first]

    def _compared(
        self, window: Window, choices: Sequence[tuple[int, ...]], best: list[Candidate]
    ) -> Generator[Event, None, list[Candidate]]:
        """The finalists among candidates of these lengths and the best so far, best first."""
        budget = hole_budget(window.pieces, self._room)
        choices = [lengths for lengths in choices if sum(lengths) <= budget]
        for start in range(0, len(choices), SIDE_BY_SIDE):
            group = [self._candidate(window, each, strict=False) for each in choices[start : start + SIDE_BY_SIDE]]
            yield from self._probed(group)
            for each in group:
                self._judge(each)
            # The others' copies of the prefix are let go.
            best = sorted([*best, *group], key=lambda each: -each.score)[:FINALISTS]
        return best

    def _probed(self, candidates: Sequence[Candidate]) -> Iterator[Event]:
        """A few steps of each, such as it would take anyway."""
        few = replace(self._rules, max_steps=min(PROBE, self._rules.max_steps))
        for each in candidates:
            each.canvas.rules = few
        yield from self._denoised(candidates)
        for each in candidates:
            each.canvas.rules = self._rules
            # What was finished before it was stopped stays finished.
            each.canvas.is_over = each.canvas.state.step < few.max_steps or few == self._rules

    def _denoised(self, candidates: Sequence[Candidate]) -> Iterator[Event]:
        """Steps until all are over; the most confident one is shown."""
        while active := [each for each in candidates if not each.canvas.is_over]:
            for drafts in refine(self._model, [each.canvas for each in active]):
                for each, draft in zip(active, drafts, strict=True):
                    each.take(draft)
                self._steps += 1
                yield self._draft(min(candidates, key=lambda each: each.entropy))

    def _candidate(self, window: Window, lengths: tuple[int, ...], *, strict: bool) -> Candidate:
        """A canvas of noise in holes of these lengths, with a prefix of its own once it writes behind it."""
        chosen = arrange(window, lengths, self._room, self._joints.pad)
        spans = [(*span, hole) for span, hole in zip(chosen.free_spans, window.holes, strict=True)]
        pins = Pins.of(self._model, chosen.slots, self._joints.bans(spans, strict=strict))
        canvas = Canvas.pinned(
            self._cache.snapshot(),
            self._rules,
            seed=self._config.seed,
            block=self._block,
            pins=pins,
            spans=constrained_spans(window, chosen),
        )
        return Candidate(lengths, chosen, canvas)

    def _started(self, candidate: Candidate) -> CanvasStarted:
        length = candidate.layout.length
        self._shown = ()
        noise = cast("list[int]", candidate.canvas.row.canvas[0, :length].tolist())
        return CanvasStarted(block=self._block, canvas=tuple(noise), pinned=candidate.layout.pinned)

    def _draft(self, candidate: Candidate) -> Denoised:
        before, self._shown = self._shown, candidate.best
        comparable = before if len(before) == len(candidate.best) else [-1] * len(candidate.best)
        return Denoised(
            block=self._block,
            step=candidate.canvas.state.step,
            max_steps=self._config.max_steps,
            best=candidate.best,
            accepted=candidate.accepted,
            changed=tuple(now != then for now, then in zip(candidate.best, comparable, strict=True)),
            mean_entropy=candidate.entropy,
            end=end_of(candidate.best, self._config.stop_tokens),
            pinned=candidate.layout.pinned,
        )

    def _judge(self, candidate: Candidate) -> None:
        """The encoder's opinion of what a candidate says; its cache has the tokens behind its end then."""
        ids = mx.array([candidate.tokens(self._config.stop_tokens)])
        (hidden,) = self._model.peek([self._model.embed(ids)], [candidate.canvas.cache])
        before = mx.concatenate([self._last, hidden[:, :-1]], axis=1)
        score, last = following(self._model, before, ids).mean(), hidden[:, -1:]
        mx.eval(score, last)
        candidate.score, candidate.last = cast("float", score.item()), last

    def _texts(self, window: Window, candidate: Candidate) -> list[str] | None:
        return candidate.texts(self._joints, window, self._config.stop_tokens)

    def _filled(self, window: Window, candidate: Candidate) -> Iterator[GapFilled]:
        """The gaps that end in this window."""
        texts = self._texts(window, candidate)
        assert texts is not None
        for number, (text, (start, stop)) in enumerate(zip(texts, candidate.layout.spans, strict=True), start=1):
            end = end_of(candidate.best[start:stop], self._config.stop_tokens)
            count = stop - start if end is None else end
            self._gap_text += text
            self._gap_tokens += count
            self._total += count
            if number == len(texts) and window.unfinished and self._rest:
                return
            yield GapFilled(gap=self._gap, tokens=self._gap_tokens, text=self._gap_text)
            self._gap += 1
            self._gap_text, self._gap_tokens = "", 0


def _choices(beams: Sequence[tuple[int, ...]], place: int, lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Every beam with every one of `lengths` at `place`."""
    return list(dict.fromkeys((*beam[:place], each, *beam[place + 1 :]) for beam in beams for each in lengths))


def canvas_room(model: DiffusionGemma, config: GenerationConfig) -> int:
    """The canvas length to use. Raises OptionError for options that cannot be met here."""
    longest = model.config.canvas_length
    length = config.canvas_length or longest
    if length > longest:
        raise OptionError(f"canvas_length={length} is longer than the {longest} positions this model was made for")
    if config.mode == "causal":
        raise OptionError("mode='causal' cannot fill gaps: the text behind them must be seen")
    if config.verify is not None:
        raise OptionError(
            "verify cuts a canvas where the encoder doubts it, which a canvas with gaps cannot be: drop it"
        )
    return length
