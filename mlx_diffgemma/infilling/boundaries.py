"""The boundaries between text and gaps in tokens: which tokens a gap may hold, so that no byte around it changes.

Every text of a template is encoded by itself, so its tokens give exactly its bytes, whatever is written beside it. A
gap holds no special tokens, and its bytes must be whole characters.

One thing would be unnatural: a gap after a space. This family's tokens include the space before a word, so the model
expects " blue" in "the sky is ", as one token, and hardly ever a space and "blue". So if the text before a gap ends
with a space that is a token of its own, the gap absorbs the space: it is not pinned, and the gap's first token has to
begin with a space. That space belongs to the text, and is taken off the filling again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.constraint.cache import Vocabulary, automaton_of
from mlx_diffgemma.infilling.template import Gap, Part
from mlx_diffgemma.sampling.pins import Ban
from mlx_diffgemma.text.tokenizer import Tokenizer

_SPACE = b" "


@dataclass(frozen=True, kw_only=True)
class TokenGap:
    """A gap counted in tokens."""

    min_tokens: int = 1
    max_tokens: int | None = None
    absorbs_space: bool = False
    """its first token begins with the space that belongs to the text before it"""
    open_ended: bool = False
    """it is the end of the template and has no fixed length, so an end token may end it"""
    automaton: TokenAutomaton | None = None
    """what its text must match, an absorbed space included"""
    state: int = 0
    """the state of the automaton in which the gap begins: a gap may be continued in another canvas"""


PinnedTokens: TypeAlias = tuple[int, ...]
"""The tokens of a text of the template."""
TokenPart: TypeAlias = PinnedTokens | TokenGap


class Boundaries:
    """The boundaries of one tokenizer and its stop tokens; one object serves any number of templates.

    The tables of tokens that are banned from gaps are built when they are first needed, and kept.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, stop_tokens: tuple[int, ...]) -> None:
        """vocabulary: the model's, which may be larger than the tokenizer's."""
        self.tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._stop_tokens = stop_tokens

    def token_parts(self, parts: Sequence[Part]) -> tuple[TokenPart, ...]:
        """Return the parts of a template, from `template.parse`, in tokens; the end is an end token or an open gap.

        Raises TokenizerError for text that cannot be encoded, ConstraintError for a constraint that cannot be used.
        """
        token_parts: list[TokenPart] = []
        absorbs_space = False
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            if isinstance(part, Gap):
                token_parts.append(self._token_gap(part, absorbs_space=absorbs_space, is_last=is_last))
                absorbs_space = False
                continue
            tokens = self.tokenizer.literal(part)
            absorbs_space = not is_last and self.tokenizer.token_bytes(tokens[-1]) == _SPACE
            if absorbs_space:
                tokens.pop()
            if tokens:
                token_parts.append(tuple(tokens))
        last = token_parts[-1]
        if isinstance(last, tuple):
            return (*token_parts[:-1], (*last, *self._end_tokens))
        if last.open_ended or not self._end_tokens:
            return tuple(token_parts)
        return (*token_parts, self._end_tokens)

    def _token_gap(self, gap: Gap, *, absorbs_space: bool, is_last: bool) -> TokenGap:
        open_ended = is_last and gap.max_tokens != gap.min_tokens
        automaton = None
        if gap.constraint is not None:
            stops = self._stop_tokens if open_ended else ()
            prefix = _SPACE.decode() if absorbs_space else ""
            # A gap has at least one token, so its text is never empty.
            automaton = automaton_of(gap.constraint, self._vocabulary, stops, False, prefix)
        return TokenGap(
            min_tokens=gap.min_tokens,
            max_tokens=gap.max_tokens,
            absorbs_space=absorbs_space,
            open_ended=open_ended,
            automaton=automaton,
        )

    def bans(self, gaps: Iterable[tuple[int, int, TokenGap]], *, whole_characters: bool) -> list[Ban]:
        """Return the tokens that must not be in gaps; each gap comes with its range among the free positions.

        whole_characters: ban parts of characters too, so that any tokens make a text.
        """
        bans: list[Ban] = []
        for start, stop, gap in gaps:
            # An open gap may end with an end token, but only after its minimum length.
            closed = min(stop, start + gap.min_tokens) if gap.open_ended else stop
            bans.append(Ban(slice(start, closed), self._special_and_stops))
            if closed < stop:
                bans.append(Ban(slice(closed, stop), self._special))
            if gap.automaton is not None:
                # The automaton itself demands whole characters in the end, and the space.
                continue
            if whole_characters:
                bans.append(Ban(slice(start, stop), self._partial_characters))
            if gap.absorbs_space:
                # In a gap of one token, the space alone would be an empty filling.
                banned = self._not_a_spaced_word if stop - start == 1 else self._without_space
                bans.append(Ban(slice(start, start + 1), banned))
        return [ban for ban in bans if ban.tokens.size]

    def data(self, tokens: Iterable[int], gap: TokenGap) -> bytes | None:
        """Return the bytes of a gap's tokens, without an absorbed space; None if they are not whole characters.

        Where a canvas ends, a gap with a constraint may be cut inside a character: its automaton demands the rest of
        the character from the next canvas.
        """
        data = b"".join(map(self.tokenizer.token_bytes, tokens))
        if gap.absorbs_space:
            if not data.startswith(_SPACE):
                return None
            data = data[1:]
        return data if gap.automaton is not None or _are_whole_characters(data) else None

    @property
    def pad(self) -> int:
        """The token of the positions after the end of a text."""
        return self.tokenizer.pad

    @property
    def _end_tokens(self) -> PinnedTokens:
        """The token after a complete text: the end of a turn if it is a stop token, else the first stop token."""
        turn = self.tokenizer.turn_close
        ends = self._stop_tokens if turn is None or turn not in self._stop_tokens else (turn,)
        return tuple(ends[:1])

    @cached_property
    def _special_and_stops(self) -> mx.array:
        """Tokens that are no text, and all stop tokens."""
        return self._ids(lambda token, data: not data or token in self._stop_tokens)

    @cached_property
    def _special(self) -> mx.array:
        """Tokens that are no text, except stop tokens."""
        return self._ids(lambda token, data: not data and token not in self._stop_tokens)

    @cached_property
    def _partial_characters(self) -> mx.array:
        """Tokens that are one byte of a character of several bytes."""
        return self._ids(lambda _, data: len(data) == 1 and data[0] >= 0x80)

    @cached_property
    def _without_space(self) -> mx.array:
        """Tokens that do not begin with a space."""
        return self._ids(lambda _, data: not data.startswith(_SPACE))

    @cached_property
    def _not_a_spaced_word(self) -> mx.array:
        """Tokens that do not begin with a space, and the space itself."""
        return self._ids(lambda _, data: not data.startswith(_SPACE) or data == _SPACE)

    def _ids(self, is_banned: Callable[[int, bytes], bool]) -> mx.array:
        """Return the ids of the vocabulary for which `is_banned(id, bytes)` is true."""
        ids = mx.array([id for id, data in enumerate(self._vocabulary.token_bytes) if is_banned(id, data)], mx.int32)
        # Evaluated now: another thread may use the table.
        mx.eval(ids)
        return ids


def _are_whole_characters(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
