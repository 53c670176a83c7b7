"""What `jsonschema` says of a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from jsonschema.exceptions import ValidationError
from jsonschema.validators import Draft202012Validator, validator_for
from jsonschema_specifications import REGISTRY

Pairs: TypeAlias = list[tuple[str, Any]]
"""Keys and values of an object."""


class UnjudgedError(Exception):
    """`jsonschema` cannot judge by the schema, because of a reference that leads nowhere, for example."""


class Validity:
    """A schema as `jsonschema` understands it: by the draft that it names, with formats checked."""

    def __init__(self, schema: Any) -> None:
        kind: Any = validator_for(schema, default=Draft202012Validator)
        # The registry holds the drafts alone, because references to other documents would be downloaded otherwise.
        self._validator = kind(schema, registry=REGISTRY, format_checker=kind.FORMAT_CHECKER)

    def fault(self, text: bytes) -> str | None:
        """Return what is wrong with a text: no UTF-8, no JSON, not valid. Raises UnjudgedError.

        Where a key is there twice, programs take the last value or the first: the text must be valid both ways.
        """
        try:
            readings = [_read(text, dict), _read(text, lambda pairs: dict(reversed(pairs)))]
        except (ValueError, RecursionError) as error:
            return f"{type(error).__name__}: {error}"
        for data in readings[: 1 + has_key_twice(text)]:
            try:
                self._validator.validate(data)
            except ValidationError as error:
                return f"{error.json_path}: {error.message:.200}"
            except Exception as error:
                raise UnjudgedError(f"{type(error).__name__}: {error}") from error
        return None


def has_key_twice(text: bytes) -> bool:
    """Whether an object of a JSON text has a key twice."""
    objects: list[Pairs] = []
    _read(text, objects.append)
    return any(len(dict(pairs)) < len(pairs) for pairs in objects)


def _read(text: bytes, make_object: Callable[[Pairs], Any]) -> Any:
    return json.loads(text.decode(), object_pairs_hook=make_object, parse_constant=_refused)


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
