"""Whether an answer is accepted: one small class per kind of check, read from JSON.

    {"regex": "\\\\b42\\\\b"}                        found anywhere in the answer; (?i) and the like inside it
    {"exact": "42"}                             the whole answer, blanks around it aside
    {"json_schema": {"type": "object", ...}}    the answer is JSON, bare or in a ``` fence, and valid
    {"command": "python judge.py"}              gets the answer on stdin, exit code 0 accepts; "timeout": seconds

Nothing that a model wrote is run, unless a command of the user's own does so.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NoReturn, Protocol, cast

from mlx_diffgemma.errors import BenchmarkError, DataError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

KINDS = ("regex", "exact", "json_schema", "command")
FENCE = re.compile(r"```[\w-]*\s*(.*?)```", re.DOTALL)
TIMEOUT = 10.0
"""Seconds that a command has, unless its check says otherwise."""
LONGEST = 40
"""Characters of a reason's quotations."""


class Check(Protocol):
    """A rule that answers are held to."""

    def refusal(self, answer: str) -> str | None:
        """Why the answer is refused, in a few words; None where it is accepted."""
        ...


@dataclass(frozen=True, kw_only=True)
class Regex:
    """Accepts an answer in which the pattern is found."""

    pattern: re.Pattern[str]

    def refusal(self, answer: str) -> str | None:
        """See Check."""
        return None if self.pattern.search(answer) else f"no match for {_short(self.pattern.pattern, quoted=False)}"


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Accepts one answer; blanks around it do not count."""

    text: str

    def refusal(self, answer: str) -> str | None:
        """See Check."""
        return None if answer.strip() == self.text.strip() else f"not {_short(self.text)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class JsonSchema:
    """Accepts an answer whose JSON is valid under a schema."""

    validator: Validator

    def refusal(self, answer: str) -> str | None:
        """See Check."""
        from jsonschema.exceptions import best_match

        try:
            error = best_match(self.validator.iter_errors(embedded_json(answer)))
        except ValueError:
            return "no JSON"
        except RecursionError:
            return "JSON nested too deeply"
        return None if error is None else f"{error.json_path}: {_short(error.message, quoted=False)}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """Accepts an answer on which a command ends with exit code 0 within `timeout` seconds."""

    words: tuple[str, ...]
    timeout: float = TIMEOUT

    def refusal(self, answer: str) -> str | None:
        """See Check. What the command prints last is the reason."""
        # Files and no pipes: what a command leaves running would keep those open.
        with TemporaryFile() as given, TemporaryFile() as said:
            given.write(answer.encode())
            given.seek(0)
            try:
                code = self._run(given, said)
            except OSError as error:
                raise BenchmarkError(f"the check {shlex.join(self.words)} cannot be run: {error.strerror}") from None
            except subprocess.TimeoutExpired:
                return f"no verdict within {self.timeout:g} s"
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
        return None if code == 0 else f"exit code {code}" + (f": {_short(last, quoted=False)}" if last else "")

    def _run(self, given: IO[bytes], said: IO[bytes]) -> int:
        with subprocess.Popen(
            self.words, stdin=given, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            try:
                return process.wait(self.timeout)
            finally:
                if process.poll() is None:
                    # macOS answers "not permitted" for a group that has just ended.
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)


def embedded_json(answer: str) -> Any:
    """The JSON that an answer is, or else the first that stands in a ``` fence. Raises ValueError."""
    for text in (answer, *FENCE.findall(answer)):
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            continue
    raise ValueError("no JSON")


def _refuse_constant(name: str) -> NoReturn:
    """NaN and Infinity are Python's, not JSON's."""
    raise ValueError(name)


def read_check(where: str, record: object) -> Check:
    """The check that a record describes. Raises DataError beginning with `where`."""
    entries = cast("Mapping[str, Any]", record) if isinstance(record, Mapping) else {}
    kinds = [kind for kind in KINDS if kind in entries]
    if len(kinds) != 1:
        raise DataError(f"{where}: the check must have one of {', '.join(KINDS)}")
    kind, value = kinds[0], entries[kinds[0]]
    if unknown := sorted(entries.keys() - {kind} - ({"timeout"} if kind == "command" else set[str]())):
        raise DataError(f"{where}: unknown beside {kind}: {', '.join(unknown)}")
    match kind:
        case "json_schema":
            return json_schema(where, value)
        case "command":
            return command(where, value, entries.get("timeout", TIMEOUT))
        case _ if not isinstance(value, str):
            raise DataError(f"{where}: {kind} must be text, not {_short(value)}")
        case "exact":
            return Exact(text=value)
        case _:
            return regex(where, value)


def regex(where: str, pattern: str) -> Regex:
    """A check by a regular expression of Python's kind. Raises DataError beginning with `where`."""
    try:
        return Regex(pattern=re.compile(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(f"{where}: {_short(pattern)} is no regular expression: {error}") from None


def json_schema(where: str, schema: object) -> JsonSchema:
    """A check by a JSON schema, draft 2020-12 unless it names another. Raises DataError beginning with `where`."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    if not isinstance(schema, (dict, bool)):
        raise DataError(f"{where}: a JSON schema is an object, not {_short(schema)}")
    # The classes take a format checker, the protocol that they are typed by does not know of it.
    kind: Any = validator_for(schema, default=Draft202012Validator)
    registry = Registry[Any]()
    try:
        kind.check_schema(schema, format_checker=kind.FORMAT_CHECKER)
    except SchemaError as error:
        raise DataError(f"{where}: no JSON schema: {error.json_path}: {error.message}") from None
    resolver = registry.resolver_with_root(DRAFT202012.create_resource(schema))
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise DataError(f"{where}: the JSON schema refers to {reference!r}, which is not in it") from None
    # An empty registry: references to other documents would be downloaded otherwise.
    return JsonSchema(validator=kind(schema, registry=registry))


def _references(schema: object) -> Iterator[str]:
    """Everything that a schema refers to; what stands in const and enum is data."""
    if isinstance(schema, list):
        for part in cast("list[object]", schema):
            yield from _references(part)
    elif isinstance(schema, dict):
        for key, part in cast("dict[str, object]", schema).items():
            if key == "$ref" and isinstance(part, str):
                yield part
            elif key not in ("const", "enum", "default", "examples"):
                yield from _references(part)


def command(where: str, line: object, timeout: object) -> Command:
    """A check by a command, a list of words or a line of them. Raises DataError beginning with `where`."""
    try:
        words = shlex.split(line) if isinstance(line, str) else line
    except ValueError as error:
        raise DataError(f"{where}: {_short(line)} is no command: {error}") from None
    listed = cast("Sequence[object]", words) if isinstance(words, list) else []
    texts = tuple(word for word in listed if isinstance(word, str))
    if not texts or len(texts) != len(listed):
        raise DataError(f"{where}: a command is a line or a list of words, not {_short(line)}")
    if shutil.which(texts[0]) is None:
        raise DataError(f"{where}: there is no command {texts[0]!r}")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise DataError(f"{where}: timeout must be a number of seconds above 0, not {_short(timeout)}")
    return Command(words=texts, timeout=float(timeout))


def _short(value: object, *, quoted: bool = True) -> str:
    """A value in one line, its middle left out where it is long."""
    text = repr(value) if quoted else " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 15]} ... {text[-10:]}"
