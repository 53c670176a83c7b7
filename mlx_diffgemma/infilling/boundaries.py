"""Where literal text and gaps meet: what may stand in a gap so that no byte of the text around it changes.

Every literal is encoded by itself, so its tokens add exactly its bytes whatever stands beside it. A gap has no special
token in it, and its bytes are whole characters. Where the literal before a gap ends with a space that is a token of its
own, the space is left to the gap: the word behind it is one token with its space, as the model knows it. This joint is
healed: the gap's first token begins with a space, which is the literal's and is taken off the gap's text again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.constraint.cache import Vocabulary, automaton_of
from mlx_diffgemma.constraint.spec import pattern_of
from mlx_diffgemma.constraint.token_automaton import TokenAutomaton
from mlx_diffgemma.infilling.template import Gap, Part
from mlx_diffgemma.sampling.pins import Ban
from mlx_diffgemma.text.tokenizer import Tokenizer

SPACE = b" "


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A gap as the canvas knows it.

    healed: its first token begins with the space that belongs to the text before it. open: nothing stands behind it,
    so an end token may end it. automaton: what its text must match, that space included, from `state` on.
    """

    least: int = 1
    most: int | None = None
    healed: bool = False
    open: bool = False
    automaton: TokenAutomaton | None = None
    state: int = 0


Run: TypeAlias = tuple[int, ...]
"""Tokens that are pinned."""
Piece: TypeAlias = Run | Hole


class Joints:
    """What the vocabulary of one tokenizer allows at the joints; `vocabulary` is the model's, which may be larger."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, stop_tokens: tuple[int, ...]) -> None:
        self.tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._stop_tokens = stop_tokens

    def pieces(self, parts: Sequence[Part]) -> tuple[Piece, ...]:
        """A template's parts, as `template.parse` gives them; its end is an end token, or an open hole.

        Raises TokenizerError for a text that cannot be encoded, ConstraintError for what no gap can match.
        """
        pieces: list[Piece] = []
        healed = False
        for part, last in zip(parts, [False] * (len(parts) - 1) + [True], strict=True):
            if isinstance(part, Gap):
                # At the end a gap of one length is as long as that.
                is_open = last and part.max_tokens != part.min_tokens
                automaton = self._automaton(part, healed=healed, is_open=is_open)
                pieces.append(
                    Hole(least=part.min_tokens, most=part.max_tokens, healed=healed, open=is_open, automaton=automaton)
                )
                healed = False
                continue
            tokens = self.tokenizer.literal(part)
            healed = not last and self.tokenizer.token_bytes(tokens[-1]) == SPACE
            if healed:
                tokens.pop()
            if tokens:
                pieces.append(tuple(tokens))
        if isinstance(pieces[-1], Hole) and pieces[-1].open:
            return tuple(pieces)
        if isinstance(pieces[-1], tuple):
            return (*pieces[:-1], (*pieces[-1], *self._end))
        return (*pieces, self._end) if self._end else tuple(pieces)

    def _automaton(self, gap: Gap, *, healed: bool, is_open: bool) -> TokenAutomaton | None:
        pattern = pattern_of(gap)
        if pattern is None:
            return None
        stops = self._stop_tokens if is_open else ()
        # The gap may not be empty, and so not match where only the empty text does.
        return automaton_of(pattern, self._vocabulary, stops, False, SPACE if healed else b"")

    def bans(self, holes: Iterable[tuple[int, int, Hole]], *, strict: bool) -> list[Ban]:
        """What must not stand in holes, each given with its first and last + 1 free position.

        strict: no part of a character either, so that whatever stands there is text.
        """
        bans: list[Ban] = []
        for start, stop, hole in holes:
            # Where a hole is open an end token may stand, but only behind its least length.
            closed = min(stop, start + hole.least) if hole.open else stop
            bans.append(Ban(slice(start, closed), self._never))
            if closed < stop:
                bans.append(Ban(slice(closed, stop), self._special))
            # What must match something is text, and begins with its space.
            if strict and hole.automaton is None:
                bans.append(Ban(slice(start, stop), self._partial))
            if hole.healed and hole.automaton is None:
                # The space alone would be an empty filling.
                alone = self._only_spaces if stop - start == 1 else self._unspaced
                bans.append(Ban(slice(start, start + 1), alone))
        return [ban for ban in bans if ban.tokens.size]

    def text(self, tokens: Iterable[int], hole: Hole) -> str | None:
        """What the tokens of a gap add to the text; None where that is no text."""
        data = b"".join(map(self.tokenizer.token_bytes, tokens))
        if hole.healed:
            if not data.startswith(SPACE):
                return None
            data = data[1:]
        try:
            return data.decode()
        except UnicodeDecodeError:
            return None

    @property
    def pad(self) -> int:
        """What stands behind the end of a text in a canvas."""
        return self.tokenizer.pad

    @property
    def _end(self) -> Run:
        """The token behind a text that is complete, if there is one."""
        turn = self.tokenizer.turn_close
        ends = self._stop_tokens if turn is None or turn not in self._stop_tokens else (turn,)
        return tuple(ends[:1])

    @property
    def _bytes(self) -> tuple[bytes, ...]:
        return self._vocabulary.pieces

    @cached_property
    def _never(self) -> mx.array:
        """Tokens that are no text, and those that end it."""
        return _ids(token for token, data in enumerate(self._bytes) if not data or token in self._stop_tokens)

    @cached_property
    def _special(self) -> mx.array:
        """Tokens that are no text, but for those that end it."""
        return _ids(token for token, data in enumerate(self._bytes) if not data and token not in self._stop_tokens)

    @cached_property
    def _partial(self) -> mx.array:
        """Tokens that are only a part of a character."""
        return _ids(token for token, data in enumerate(self._bytes) if len(data) == 1 and data[0] >= 0x80)

    @cached_property
    def _unspaced(self) -> mx.array:
        """Tokens that do not begin with a space."""
        return _ids(token for token, data in enumerate(self._bytes) if not data.startswith(SPACE))

    @cached_property
    def _only_spaces(self) -> mx.array:
        """Those, and the space alone."""
        return _ids(token for token, data in enumerate(self._bytes) if not data.startswith(SPACE) or data == SPACE)


def _ids(tokens: Iterable[int]) -> mx.array:
    ids = mx.array(list(tokens), mx.int32)
    mx.eval(ids)
    return ids
