"""Assertions, compiled away: a tree of a pattern becomes an expression of whole texts.

The tree is first spread into sequences, one for each choice that decides about an assertion. A sequence describes the
whole text, so what an assertion demands can be put on the parts beside it: an anchor makes all parts before it empty,
a word boundary restricts the last character before it and the first after it. A look-ahead restricts all that follows
to the end of the text, as an intersection or a difference, and a look-behind all that precedes.
"""

from __future__ import annotations

import math

from mlx_diffgemma.constraint.characters import ANY_CHARACTER
from mlx_diffgemma.constraint.expression import (
    ANY_TEXT,
    EMPTY,
    NOTHING,
    Difference,
    Expression,
    Intersection,
    OneOf,
    concatenation,
    repetition,
)
from mlx_diffgemma.constraint.patterns.assertions import (
    EXPRESSIONS,
    AnyOf,
    Boundary,
    Element,
    Guard,
    InOrder,
    Look,
    Node,
    Place,
    Repeated,
    one_after_another,
)
from mlx_diffgemma.constraint.patterns.classes import pattern_fault
from mlx_diffgemma.constraint.patterns.dialect import Dialect
from mlx_diffgemma.constraint.patterns.neighbours import (
    END_OF_TEXT,
    Neighbour,
    fixed_length,
    longest,
    outermost,
    single_characters,
)
from mlx_diffgemma.constraint.patterns.sequences import (
    after_index,
    any_neighbour,
    as_boundary,
    before_index,
    either_sequence,
    first_assertion,
    meeting,
    next_to,
    without_absorbed,
    without_certain,
    without_empty,
)
from mlx_diffgemma.errors import ConstraintError

_MOST_SEQUENCES = 2000
_MOST_LOOK_AROUNDS = 40
_UNKNOWN = Neighbour(ANY_CHARACTER, True)


class Resolver:
    """The assertions of one pattern, of which it counts the effort."""

    def __init__(self, pattern: str, dialect: Dialect) -> None:
        self._pattern = pattern
        self._dialect = dialect
        self._sequences = 0
        self._look_arounds = 0
        self._never: Place | None = None

    def whole(self, tree: Node) -> Expression:
        """Return the texts that a tree matches from beginning to end.

        Raises ConstraintError if there is none, and for an assertion that cannot be compiled away.
        """
        expression = self._resolved(self._spread(tree), END_OF_TEXT, END_OF_TEXT)
        if expression is not NOTHING:
            return expression
        if self._never is None:
            raise self._fault("a part of it cannot match anything, so no text matches")
        raise self._fault(
            f"{self._never.text} inside the pattern is not supported: "
            f"it never holds at position {self._never.position}, so no text matches"
        )

    def _fault(self, message: str) -> ConstraintError:
        return pattern_fault(self._pattern, self._dialect, message)

    def _unsupported(self, place: Place, reason: str) -> ConstraintError:
        return self._fault(f"{place.text} inside the pattern is not supported at position {place.position}: {reason}")

    def _counted(self, sequences: list[list[Element]]) -> list[list[Element]]:
        self._sequences += len(sequences)
        if self._sequences > _MOST_SEQUENCES:
            raise self._fault("too many combinations of alternatives with anchors, word boundaries or look-arounds")
        return sequences

    def _spread(self, node: Node) -> list[list[Element]]:
        """Return the sequences that a tree stands for."""
        match node:
            case InOrder(parts=parts):
                sequences: list[list[Element]] = [[]]
                for part in parts:
                    tails = self._spread(part)
                    if len(tails) == 1:
                        for head in sequences:
                            head.extend(tails[0])
                    else:
                        sequences = self._counted([head + tail for tail in tails for head in sequences])
                return sequences
            case AnyOf(branches=branches):
                return self._counted([sequence for branch in branches for sequence in self._spread(branch)])
            case Repeated():
                return self._counted(self._spread_repetition(node))
            case Look():
                self._look_arounds += 1
                if self._look_arounds > _MOST_LOOK_AROUNDS:
                    raise self._fault(f"more than {_MOST_LOOK_AROUNDS} look-arounds, each in all its repetitions")
                return [[as_boundary(node, self._spread(node.body))]]
            case _:
                return [] if node is NOTHING else [[]] if node is EMPTY else [[node]]

    def _spread_repetition(self, node: Repeated) -> list[list[Element]]:
        """Return the sequences of a repetition: no match, one match, or a first one, others and a last one.

        The matches between the first and the last one have text on both sides, which decides about their assertions.
        Matches of no text can be left out.
        """
        minimum, maximum = node.minimum, node.maximum
        matches = self._spread(node.body)
        longer = [each for each in matches if any(isinstance(element, EXPRESSIONS) for element in each)]
        none: list[list[Element]] = [[]] if minimum == 0 else []
        if maximum == 1 or not longer:
            return none + matches
        guarded = self._spread_guarded(node, matches)
        if guarded is not None:
            return [guarded]
        can_be_empty = [each for each in longer if next_to(each, True, END_OF_TEXT).or_none]
        if can_be_empty or (minimum > 1 and len(longer) < len(matches)):
            raise self._unsupported(first_assertion(matches), "a repetition repeats it that can be empty")
        before = any_neighbour(next_to(reversed(each), False, END_OF_TEXT) for each in longer)
        after = any_neighbour(next_to(each, True, END_OF_TEXT) for each in longer)
        rest: Expression = EMPTY
        if maximum != 2:
            inner = self._resolved(longer, before, after)
            more = None if maximum is None else maximum - 2
            rest = repetition(inner, max(minimum - 2, 0), more, source=node.place.text)
        few = none + matches if minimum < 2 else []
        others: list[Element] = [] if rest is EMPTY else [rest]
        several = [[*first, *others, *last] for first in longer for last in longer]
        return few if rest is NOTHING else few + several

    def _spread_guarded(self, node: Repeated, matches: list[list[Element]]) -> list[Element] | None:
        """Return a repetition of one character that look-aheads precede, as in `(?:(?!end).)*`; None for all others."""
        if len(matches) != 1:
            return None
        looks = tuple(each for each in matches[0] if isinstance(each, Look))
        others: list[Element] = [each for each in matches[0] if not isinstance(each, Look)]
        if not looks or not all(each.is_ahead for each in looks) or isinstance(matches[0][-1], Look):
            return None
        body = self._resolved([others], _UNKNOWN, _UNKNOWN)
        if single_characters(body) is None:
            return None
        text = repetition(body, node.minimum, node.maximum, source=node.place.text)
        return [Guard(looks, looks[0].place), text]

    def _resolved(self, sequences: list[list[Element]], before: Neighbour, after: Neighbour) -> Expression:
        """Return the texts of sequences that stand between `before` and `after`."""
        resolved: list[list[Expression]] = []
        pending = [without_absorbed(sequence) for sequence in reversed(sequences)]
        while pending:
            sequence = without_certain(pending.pop(), before, after)
            if isinstance(sequence, Place):
                self._never = self._never or sequence
                continue
            index = next((at for at, element in enumerate(sequence) if isinstance(element, Boundary)), None)
            if index is None:
                guarded = self._without_guards(without_empty(sequence), before, after)
                resolved.append(self._without_looks(guarded, before, after))
            else:
                pending += self._counted(self._decided(sequence, index, before, after))
        return either_sequence(resolved)

    def _decided(self, sequence: list[Element], index: int, before: Neighbour, after: Neighbour) -> list[list[Element]]:
        """Return the sequences in which the first condition of an option holds, for the boundary at an index."""
        boundary = sequence[index]
        assert isinstance(boundary, Boundary)
        decided: list[list[Element]] = []
        for first, *others in boundary.options:
            here: list[Element] = [Boundary((tuple(others),), boundary.place)] if others else []
            side = sequence[index + 1 :] if first.is_ahead else sequence[:index][::-1]
            for way in meeting(side, first, after if first.is_ahead else before):
                if way is None:
                    raise self._unsupported(boundary.place, "what stands beside it is not known there")
                head, tail = (sequence[:index], way) if first.is_ahead else (way[::-1], sequence[index + 1 :])
                decided.append([*head, *here, *tail])
        return decided

    def _without_guards(self, sequence: list[Element], before: Neighbour, after: Neighbour) -> list[Element]:
        """Return a sequence whose guards are put on the repetition that they guard, and on the text after it.

        That text must be of one length, which then tells where the repetition ends. It must reach to the end of the
        whole text, or be as long as all that the guard can see.
        """
        index = next((at for at in range(len(sequence) - 1, -1, -1) if isinstance(sequence[at], Guard)), None)
        if index is None:
            return sequence
        guard, text, *following = sequence[index:]
        assert isinstance(guard, Guard) and isinstance(text, EXPRESSIONS)
        if following[:1] == [ANY_TEXT] and outermost(text, True).or_none:
            return self._without_guards([*sequence[:index], *following], before, after)
        sight = max(_longest_body(self._spread(look.body)) for look in guard.looks)
        known: list[Expression] = []
        length = 0
        while following and length < sight - 1:
            part = following[0]
            size = fixed_length(part) if isinstance(part, EXPRESSIONS) else None
            if size is None:
                raise self._unsupported(guard.place, "it is repeated, and the length of the text after it is not fixed")
            known += [part] if isinstance(part, EXPRESSIONS) else []
            length += size
            following = following[1:]
        if length < sight - 1 and after != END_OF_TEXT:
            raise self._unsupported(guard.place, "it is repeated in a repetition")
        guarded = concatenation([text, *known])
        at_a_repetition = repetition(OneOf(ANY_CHARACTER), length + 1)
        beside = before_index(sequence, index, before)
        beside = any_neighbour([beside, next_to([text], False, END_OF_TEXT)])
        for look in guard.looks:
            found = self._resolved(self._spread(one_after_another([look.body, ANY_TEXT])), beside, END_OF_TEXT)
            kind = Intersection if look.is_negative else Difference
            guarded = Difference(guarded, concatenation([ANY_TEXT, kind(at_a_repetition, found)]))
        return self._without_guards([*sequence[:index], guarded, *following], before, after)

    def _without_looks(self, sequence: list[Element], before: Neighbour, after: Neighbour) -> list[Expression]:
        """Return the parts of a sequence, with its look-arounds put on the parts that they look at."""
        looks = [(at, element) for at, element in enumerate(sequence) if isinstance(element, Look)]
        if not looks:
            return [element for element in sequence if isinstance(element, EXPRESSIONS)]
        for at, look in (looks[0], looks[-1]):
            if at == (0 if look.is_ahead else len(sequence) - 1):
                rest = concatenation(self._without_looks(sequence[:at] + sequence[at + 1 :], before, after))
                return [self._restricted(look, rest, before, after)]
        split = next((at for at, look in looks if look.is_ahead), len(sequence))
        if any(at > split and not look.is_ahead for at, look in looks):
            raise self._unsupported(looks[0][1].place, "it overlaps with a look-behind")
        head: list[Expression] = []
        for at, element in enumerate(sequence[:split]):
            if isinstance(element, Look):
                head = [self._restricted(element, concatenation(head), before, after_index(sequence, at, after))]
            elif isinstance(element, EXPRESSIONS):
                head.append(element)
        tail: list[Expression] = []
        for at in range(len(sequence) - 1, split - 1, -1):
            element = sequence[at]
            if isinstance(element, Look):
                tail = [self._restricted(element, concatenation(tail), before_index(sequence, at, before), after)]
            elif isinstance(element, EXPRESSIONS):
                tail.insert(0, element)
        return head + tail

    def _restricted(self, look: Look, text: Expression, before: Neighbour, after: Neighbour) -> Expression:
        """Return the texts on the side that a look-around looks at which it allows."""
        if (after if look.is_ahead else before) != END_OF_TEXT:
            raise self._unsupported(look.place, "in a repetition or another look-around it sees more than that")
        body = one_after_another([look.body, ANY_TEXT] if look.is_ahead else [ANY_TEXT, look.body])
        found = self._resolved(self._spread(body), before, after)
        if look.is_negative:
            return text if found is NOTHING else Difference(text, found)
        if found is NOTHING:
            self._never = self._never or look.place
            return NOTHING
        return Intersection(text, found)


def _longest_body(bodies: list[list[Element]]) -> float:
    """Return how many characters a look-around can see that has these sequences as its body."""
    lengths = [longest(each) if isinstance(each, EXPRESSIONS) else None for body in bodies for each in [*body, EMPTY]]
    return math.inf if None in lengths else sum(each or 0 for each in lengths)
