"""What a constraint allows, as an expression."""

from __future__ import annotations

from functools import lru_cache

from mlx_diffgemma.constraint.expression import Described, Words
from mlx_diffgemma.constraint.patterns.pattern import PYTHON, whole_match
from mlx_diffgemma.constraint.spec import Choices, Constraint, JsonSchema, Regex, json_texts


@lru_cache(maxsize=32)
def described(constraint: Constraint) -> Described:
    """Return what a constraint allows. Raises ConstraintError for a pattern or a schema that cannot be used."""
    match constraint:
        case Regex(pattern=pattern):
            return Described(whole_match(pattern, PYTHON))
        case JsonSchema():
            return json_texts(constraint)
        case Choices(texts=texts):
            return Described(Words(tuple(texts)))
