"""What comes of a schema with one engine: built or not, and whether its instances and answers are right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, TypeAlias

from constraining.cases import Case, Instance
from constraining.engines import Matcher, RefusedError, engine_class
from constraining.instances import reason, reordered, written
from constraining.watching import Ended, WatchedProcess, peak_memory

Status: TypeAlias = Literal["built", "refused", "too slow", "crashed"]
KEY_ORDER = "key order"


@dataclass(frozen=True, kw_only=True)
class Built:
    """The end of a build: how long it took, and why there is no matcher."""

    status: Status
    seconds: float
    message: str
    peak_memory: int
    """bytes that the process held at most, since it was started"""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a matcher does with an instance."""

    description: str
    valid: bool
    """what the instance's author says"""
    text: str
    takes_written: bool
    takes_reordered: bool
    """whether it takes the instance with its keys in the schema's order"""
    reason: str
    """why a valid instance is refused; "key order" if only its order is"""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A matcher's verdicts on the instances, and its own answers."""

    verdicts: tuple[Verdict, ...]
    answers: int
    faults: tuple[tuple[str, str], ...]
    """answers that are not valid, each with what is wrong with it"""
    unjudged: int
    """answers that `jsonschema` could not judge"""
    key_twice: int
    """valid answers with a key twice in an object"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a schema."""

    name: str
    group: str
    built: Built
    checked: Checked | None
    """None if there is no matcher, or if the checks ended early"""
    unchecked: str
    """why the checks of a matcher ended early"""


def work_of(engine: str, vocabulary: Path | None, answers: int) -> Callable[[Case], Iterator[object]]:
    """Return what a process does with each schema: build, then check the instances and some answers.

    It reports a Built, and for a matcher a Checked, or why it could not be checked.
    """
    # Imported before the first schema, whose time it would take otherwise.
    import_module("constraining.validity")
    made = engine_class(engine)(vocabulary)

    def work(case: Case) -> Iterator[object]:
        begin, matcher, status, message = time.perf_counter(), None, "built", ""
        try:
            matcher = made.build(case.schema)
        except RefusedError as error:
            status, message = "refused", str(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - any is a crash; a panic of Rust is no Exception
            status, message = "crashed", f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - begin
        yield Built(status=status, seconds=seconds, message=message, peak_memory=peak_memory())
        if matcher is not None:
            try:
                yield _checked(case, matcher, answers)
            except Exception as error:  # noqa: BLE001 - any is reported
                yield f"{type(error).__name__}: {error}"

    return work


def outcome_of(case: Case, process: WatchedProcess, limit: float) -> Outcome:
    """Return what comes of a schema in a process. limit: seconds that the process lets a part take."""
    reports = list(process.run(case))
    ended = next((report for report in reports if isinstance(report, Ended)), None)
    built = next((report for report in reports if isinstance(report, Built)), None)
    if built is None:
        assert ended is not None
        built = Built(status=ended.status, seconds=limit, message=ended.message, peak_memory=ended.peak_memory)
        ended = None
    return Outcome(
        name=case.name,
        group=case.group,
        built=built,
        checked=next((report for report in reports if isinstance(report, Checked)), None),
        unchecked=next((report for report in reports if isinstance(report, str)), ended.message if ended else ""),
    )


def _checked(case: Case, matcher: Matcher, answers: int) -> Checked:
    verdicts = tuple(_verdict(case, matcher, instance) for instance in case.instances)
    from constraining.validity import UnjudgedError, Validity, has_key_twice

    validity, texts = Validity(case.schema), matcher.answers(answers)
    faults: list[tuple[str, str]] = []
    unjudged = key_twice = 0
    for text in texts:
        try:
            fault = validity.fault(text)
            key_twice += has_key_twice(text) if fault is None else 0
        except UnjudgedError:
            unjudged += 1
        else:
            if fault is not None:
                faults.append((text.decode(errors="replace"), fault))
    return Checked(verdicts=verdicts, answers=len(texts), faults=tuple(faults), unjudged=unjudged, key_twice=key_twice)


def _verdict(case: Case, matcher: Matcher, instance: Instance) -> Verdict:
    text = written(instance.data)
    in_order = written(reordered(case.schema, instance.data))
    takes_written = matcher.accepts(text)
    takes_reordered = takes_written if in_order == text else matcher.accepts(in_order)
    why = ""
    if instance.valid and not takes_written:
        why = KEY_ORDER if takes_reordered else reason(case.schema, instance.data)
    return Verdict(
        description=instance.description,
        valid=instance.valid,
        text=text.decode(errors="replace"),
        takes_written=takes_written,
        takes_reordered=takes_reordered,
        reason=why,
    )
