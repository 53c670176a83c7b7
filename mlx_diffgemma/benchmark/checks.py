"""Decide whether an answer is accepted: one small class per kind of check, read from JSON.

    {"regex": "\\\\b42\\\\b"}                        found anywhere in the answer; flags such as (?i) go inside
    {"exact": "42"}                             the whole answer, except for blanks around it
    {"json": {"age": 42}}                       the answer is JSON, bare or in a ``` fence, and has this value
    {"json_schema": {"type": "object", ...}}    the answer is JSON, bare or in a ``` fence, and valid; needs [bench]
    {"command": "python judge.py"}              gets the answer on stdin, exit code 0 accepts; "timeout": seconds

Nothing that a model wrote is executed, except by a command that the user names.
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

from mlx_diffgemma.errors import BenchmarkError, DataError, needs_extra

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

KINDS = ("regex", "exact", "json", "json_schema", "command")
TIMEOUT = 10.0
"""Seconds that a command may take, unless its check says otherwise."""
_FENCE = re.compile(r"```[\w-]*\s*(.*?)```", re.DOTALL)
_QUOTED = 40
"""Maximum characters of a quotation in a reason."""
_TOO_DEEP = "JSON nested too deeply"


class Check(Protocol):
    """A rule that accepts or refuses answers."""

    def refusal(self, answer: str) -> str | None:
        """Return why the answer is refused, in a few words; None if it is accepted."""
        ...


@dataclass(frozen=True, kw_only=True)
class RegexCheck:
    """Accept an answer in which the pattern is found."""

    pattern: re.Pattern[str]

    def refusal(self, answer: str) -> str | None:
        """See Check."""
        return None if self.pattern.search(answer) else f"no match for {_short(self.pattern.pattern, quoted=False)}"


@dataclass(frozen=True, kw_only=True)
class ExactCheck:
    """Accept one answer, with any blanks around it."""

    text: str

    def refusal(self, answer: str) -> str | None:
        """See Check."""
        return None if answer.strip() == self.text.strip() else f"not {_short(self.text)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class JsonCheck:
    """Accept an answer whose JSON has one value; blanks and the order of keys do not count."""

    value: Any

    def refusal(self, answer: str) -> str | None:
        """See Check."""
        try:
            found = embedded_json(answer)
        except ValueError:
            return "no JSON"
        except RecursionError:
            return _TOO_DEEP
        # Compared as text, because True and 1.0 equal 1 in Python.
        same = json.dumps(found, sort_keys=True) == json.dumps(self.value, sort_keys=True)
        return None if same else f"not {_short(self.value)}"


@dataclass(frozen=True, kw_only=True, eq=False)
class SchemaCheck:
    """Accept an answer whose JSON is valid under a schema."""

    validator: Validator

    def refusal(self, answer: str) -> str | None:
        """See Check."""
        from jsonschema.exceptions import best_match

        try:
            error = best_match(self.validator.iter_errors(embedded_json(answer)))
        except ValueError:
            return "no JSON"
        except RecursionError:
            return _TOO_DEEP
        return None if error is None else f"{error.json_path}: {_short(error.message, quoted=False)}"


@dataclass(frozen=True, kw_only=True)
class CommandCheck:
    """Accept an answer for which a command ends with exit code 0 within `timeout` seconds."""

    words: tuple[str, ...]
    timeout: float = TIMEOUT

    def refusal(self, answer: str) -> str | None:
        """See Check. The last line that the command prints is the reason. Raises BenchmarkError."""
        # Files instead of pipes: a process that the command leaves running would keep a pipe open.
        with TemporaryFile() as stdin, TemporaryFile() as output:
            stdin.write(answer.encode())
            stdin.seek(0)
            try:
                code = self._run(stdin, output)
            except OSError as error:
                raise BenchmarkError(f"the check {shlex.join(self.words)} cannot be run: {error.strerror}") from None
            except subprocess.TimeoutExpired:
                return f"no verdict within {self.timeout:g} s"
            output.seek(0)
            last = output.read().decode(errors="replace").strip().rpartition("\n")[2]
        return None if code == 0 else f"exit code {code}" + (f": {_short(last, quoted=False)}" if last else "")

    def _run(self, stdin: IO[bytes], output: IO[bytes]) -> int:
        with subprocess.Popen(
            self.words, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            try:
                return process.wait(self.timeout)
            finally:
                if process.poll() is None:
                    # macOS reports "not permitted" for a process group that has just ended.
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)


def embedded_json(answer: str) -> Any:
    """Return the JSON value of the whole answer, or else of the first ``` fence that holds one. Raises ValueError."""
    for text in (answer, *_FENCE.findall(answer)):
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            continue
    raise ValueError("no JSON")


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser accepts and JSON does not have."""
    raise ValueError(name)


def read_check(where: str, record: object) -> Check:
    """Return the check that a record describes. Raises DataError beginning with `where`."""
    entries = cast("Mapping[str, Any]", record) if isinstance(record, Mapping) else {}
    kinds = [kind for kind in KINDS if kind in entries]
    if len(kinds) != 1:
        raise DataError(f"{where}: the check must have one of {', '.join(KINDS)}")
    kind, value = kinds[0], entries[kinds[0]]
    if unknown := sorted(entries.keys() - {kind} - ({"timeout"} if kind == "command" else set[str]())):
        raise DataError(f"{where}: unknown beside {kind}: {', '.join(unknown)}")
    match kind:
        case "json":
            return JsonCheck(value=value)
        case "json_schema":
            return schema_check(where, value)
        case "command":
            return command_check(where, value, entries.get("timeout", TIMEOUT))
        case _ if not isinstance(value, str):
            raise DataError(f"{where}: {kind} must be text, not {_short(value)}")
        case "exact":
            return ExactCheck(text=value)
        case _:
            return regex_check(where, value)


def regex_check(where: str, pattern: str) -> RegexCheck:
    """Return a check by a regular expression of Python's `re`. Raises DataError beginning with `where`."""
    try:
        return RegexCheck(pattern=re.compile(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(f"{where}: {_short(pattern)} is no regular expression: {error}") from None


def schema_check(where: str, schema: object) -> SchemaCheck:
    """Return a check by a JSON schema, of draft 2020-12 unless the schema names another draft.

    Raises DataError beginning with `where`, and BenchmarkError if the packages of the extra [bench] are missing.
    """
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012
    except ImportError:
        raise BenchmarkError(f"{where}: {needs_extra('a json_schema check', 'bench')}") from None

    if not isinstance(schema, (dict, bool)):
        raise DataError(f"{where}: a JSON schema is an object, not {_short(schema)}")
    # The classes take a format checker, but the protocol that types them does not know it.
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
    # The registry is empty, because references to other documents would be downloaded otherwise.
    return SchemaCheck(validator=kind(schema, registry=registry))


def _references(schema: object) -> Iterator[str]:
    """Yield every reference of a schema; the values of const, enum, default and examples are data and have none."""
    if isinstance(schema, list):
        for part in cast("list[object]", schema):
            yield from _references(part)
    elif isinstance(schema, dict):
        for key, part in cast("dict[str, object]", schema).items():
            if key == "$ref" and isinstance(part, str):
                yield part
            elif key not in ("const", "enum", "default", "examples"):
                yield from _references(part)


def command_check(where: str, line: object, timeout: object) -> CommandCheck:
    """Return a check by a command: a list of words, or one line. Raises DataError beginning with `where`."""
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
    return CommandCheck(words=texts, timeout=float(timeout))


def _short(value: object, *, quoted: bool = True) -> str:
    """Return a value in one line, without its middle if it is long."""
    text = repr(value) if quoted else " ".join(str(value).split())
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 15]} ... {text[-10:]}"
