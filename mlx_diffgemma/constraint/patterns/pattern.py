r"""Regular expressions as expressions of whole texts: the option `regex=`, and the `pattern` of a JSON schema.

An answer is a whole text, so anchors, word boundaries and simple look-arounds are compiled away. What is refused is
named with its position, counted in characters from 0: back-references, atomic groups, possessive repetitions, and
look-arounds whose text reaches out of a repetition. `$` also matches before a last line break in Python; an answer
never has that extra line break.
"""

from __future__ import annotations

from mlx_diffgemma.constraint.expression import ANY_TEXT, Expression
from mlx_diffgemma.constraint.patterns.assertions import one_after_another
from mlx_diffgemma.constraint.patterns.dialect import ECMA, PYTHON, Dialect
from mlx_diffgemma.constraint.patterns.pattern_parser import parse_pattern
from mlx_diffgemma.constraint.patterns.resolution import Resolver

__all__ = ["ECMA", "PYTHON", "Dialect", "search_match", "whole_match"]


def whole_match(pattern: str, dialect: Dialect) -> Expression:
    """Return the texts that a pattern matches from beginning to end.

    Raises ConstraintError for a pattern that is not well formed, that no text matches, or that cannot be kept.
    """
    return Resolver(pattern, dialect).whole(parse_pattern(pattern, dialect))


def search_match(pattern: str, dialect: Dialect) -> Expression:
    """Return the texts that contain a match of a pattern.

    Raises ConstraintError as `whole_match` does.
    """
    return Resolver(pattern, dialect).whole(one_after_another([ANY_TEXT, parse_pattern(pattern, dialect), ANY_TEXT]))
