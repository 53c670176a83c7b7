"""Where a part of a schema is, for messages, and where its references lead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, urldefrag, urljoin

from mlx_diffgemma.constraint.schema.keywords import Schema, check_schema, refused, says_only


@dataclass(frozen=True, eq=False)
class Located:
    """A part of a schema: an object, or true or false. Equal only to itself: a part is read once."""

    schema: Any
    path: str
    """how the user finds it: "properties.tags.items"; empty for the whole schema"""
    base: str
    """the URI against which its references are resolved"""

    def inner(self, schema: Any, *steps: str | int) -> Located:
        """Return a part of this part."""
        path = ".".join([*([self.path] if self.path else []), *map(str, steps)])
        return Located(schema, path, base_of(schema, self.base))


def base_of(schema: Any, base: str) -> str:
    """Return the URI of a part that may have an identifier of its own."""
    own = _identifier(schema) if isinstance(schema, Mapping) else ""
    with suppress(ValueError):
        return base if own.startswith("#") else urljoin(base, own)
    return base


def _identifier(schema: Schema) -> str:
    """Return what a part calls itself; "" if it has no name."""
    own = schema.get("$id", schema.get("id"))
    return own if isinstance(own, str) else ""


class SchemaDocument:
    """A whole schema, with the parts that references name."""

    def __init__(self, schema: Schema) -> None:
        self.root = Located(schema, "", base_of(schema, ""))
        self._made: dict[tuple[int, str], Located] = {}
        self._named: dict[str, Located] | None = None
        self._checked: set[Located] = set()
        """the targets of references"""

    def part(self, parent: Located, schema: Any, *steps: str | int) -> Located:
        """Return a part of a part, the same object whenever it is asked for."""
        key = (id(schema), ".".join([parent.path, *map(str, steps)]))
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = parent.inner(schema, *steps)
        return found

    def child(self, parent: Located, schema: Any, *steps: str | int) -> tuple[Located, ...]:
        """Return the parts that a value must be valid for: this one, or none if it allows any value."""
        part = self._meant(self.part(parent, schema, *steps))
        return () if part.schema is True or part.schema == {} else (part,)

    def _meant(self, located: Located) -> Located:
        """Follow references beside which nothing is said, so a part is the same wherever it is referred to."""
        passed = {located}
        while True:
            if says_only(located.schema, "$ref"):
                located = self.target(located, located.schema["$ref"])
            elif says_only(located.schema, "allOf") and len(located.schema["allOf"]) == 1:
                located = self.part(located, located.schema["allOf"][0], "allOf", 0)
            else:
                break
            if located in passed:
                break
            passed.add(located)
        return located

    def target(self, located: Located, reference: str) -> Located:
        """Return the part that a reference of another part names.

        Raises ConstraintError for a reference that leads nowhere, out of the schema or to what is no schema.
        """
        try:
            uri, fragment = urldefrag(urljoin(located.base, reference))
        except ValueError as error:
            raise refused(located.path, f"$ref {reference!r} is no URI reference: {error}") from None
        start = self._resources.get(uri)
        if start is None:
            if not reference.startswith("#"):
                raise refused(located.path, f"$ref {reference!r} leads out of the schema: copy what it names to $defs")
            start = self.root
        target = self._within(start, uri, unquote(fragment))
        if target is None:
            raise refused(located.path, f"$ref {reference!r} leads nowhere")
        # A reference may lead to where no schema is expected, so nothing there was checked.
        if target not in self._checked:
            check_schema(target.schema, target.path)
            self._checked.add(target)
        return target

    def _within(self, start: Located, uri: str, fragment: str) -> Located | None:
        """Return the part of a resource that a fragment names; None if there is none."""
        if not fragment or fragment == "/":
            return start
        if not fragment.startswith("/"):
            return self._resources.get(f"{uri}#{fragment}")
        for name in fragment[1:].split("/"):
            step = name.replace("~1", "/").replace("~0", "~")
            try:
                inner = _step(start.schema, step)
            except (KeyError, IndexError, ValueError, TypeError):
                return None
            start = self.part(start, inner, step)
        return start

    @property
    def _resources(self) -> Mapping[str, Located]:
        """All parts with an identifier or an anchor, by URI."""
        if self._named is None:
            self._named = {self.root.base: self.root}
            for part in _walk(self.root):
                schema = part.schema
                own = _identifier(schema)
                if part.base != self.root.base and own:
                    self._named.setdefault(part.base, part)
                anchors = [schema.get("$anchor"), schema.get("$dynamicAnchor")]
                if own.startswith("#"):
                    anchors.append(own[1:])
                for anchor in anchors:
                    if isinstance(anchor, str):
                        self._named.setdefault(f"{part.base}#{anchor}", part)
        return self._named


def _step(value: Any, step: str) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return cast("Sequence[Any]", value)[int(step)]
    return cast("Schema", value)[step]


def _walk(root: Located) -> Iterator[Located]:
    """Yield all objects in a schema."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part.schema, Mapping):
            yield part
            waiting.extend(part.inner(value, key) for key, value in cast("Schema", part.schema).items())
        elif isinstance(part.schema, Sequence) and not isinstance(part.schema, str):
            waiting.extend(part.inner(value, number) for number, value in enumerate(cast("Sequence[Any]", part.schema)))
