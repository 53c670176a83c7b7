"""What a program may do with anything: answer, or refuse in one line; and leave files as they were."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fuzzing.cases import Case

_CODES = (0, 1, 2, 130)
_LONGEST_LINE = 1000
_ERROR = re.compile(r"(?i)^error\b")
_TYPER = ("Usage: ", "Try ")
"""How the lines that typer writes before an error begin."""
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a case: exit code, None if its process died or hung; what it wrote; files before and afterwards."""

    code: int | None
    stdout: str = ""
    stderr: str = ""
    before: Mapping[str, str]
    after: Mapping[str, str]
    seconds: float


def faults(case: Case, outcome: Outcome) -> list[str]:
    """Return what is wrong with an outcome; nothing, if the program did what it may do."""
    return [*_output_faults(outcome), *_file_faults(case, outcome)]


def _output_faults(outcome: Outcome) -> Iterator[str]:
    if outcome.code is None:
        yield outcome.stderr
        return
    if TRACEBACK in outcome.stderr:
        yield "traceback"
        return
    if outcome.code not in _CODES:
        yield f"exit code {outcome.code}"
    lines = [line for line in re.split("\r\n|\n|\r", outcome.stderr) if line.strip() and not line.startswith(_TYPER)]
    errors = [line for line in lines if _ERROR.match(line)]
    if len(errors) != (outcome.code in (1, 2)):
        yield f"{len(errors)} lines of error with exit code {outcome.code}"
    if errors and outcome.code in (1, 2) and lines[-1] != errors[-1]:
        yield "something is written after the error"
    # A usage error repeats what was written on the command line.
    if any(len(line) > _LONGEST_LINE for line in errors if line.startswith("error")):
        yield "an error that is not to be read: too long"


def _file_faults(case: Case, outcome: Outcome) -> Iterator[str]:
    """Yield files that were left behind, and those that are no longer what they were."""
    for name in sorted(outcome.after.keys() - outcome.before.keys()):
        is_wanted = outcome.code in (0, 130) and _is_asked_for(case, name)
        if not is_wanted and not _is_kept_to_resume(case, name):
            yield f"left behind: {name}"
    for name in sorted(outcome.before):
        if outcome.after.get(name) != outcome.before[name] and not _is_rewritten(case, name):
            yield f"changed: {name}"


def _is_asked_for(case: Case, name: str) -> bool:
    """Whether a new file is what the words name, in a folder that they name, or a folder on the way to it."""
    return any((word and f"{name}/".startswith(f"{word}/")) or word.startswith(f"{name}/") for word in _values(case))


def _is_kept_to_resume(case: Case, name: str) -> bool:
    """Whether a new file is part of an unfinished conversion, with which the same command goes on."""
    return case.program in ("convert", "fuse") and re.match(r"[^/]*\.partial(/|$)", name) is not None


def _is_rewritten(case: Case, name: str) -> bool:
    """Whether the words ask for a file, or for a folder with it, to be written over."""
    writes = {"infill": "--in-place", "edit": "--in-place", "convert": "--overwrite", "fuse": "--overwrite"}
    return case.program == "train" or (writes.get(case.program) in case.words and _is_asked_for(case, name))


def _values(case: Case) -> Iterator[str]:
    for word in case.words:
        yield word.partition("=")[2] if word.startswith("--") and "=" in word else word
