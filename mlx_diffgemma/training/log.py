"""The log of a training: log.jsonl, one step or evaluation per line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeAlias, cast

from mlx_diffgemma.errors import TrainingError
from mlx_diffgemma.files import replacing
from mlx_diffgemma.training.loop import Evaluated, Stepped, TrainingEvent

_NAME = "log.jsonl"
Record: TypeAlias = dict[str, Any]
"""One line of a log: its kind under "event", and the fields of the event."""


class Log:
    """An open log, in memory and in its file."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open the log after `step`. Raises TrainingError if the file cannot be written.

        Records of later steps are dropped, because a resumed training repeats those steps.
        """
        self.path = folder / _NAME
        try:
            self.records = [record for record in read_log(self.path) if record["step"] <= step]
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary:
                temporary.write_text("".join(map(_line, self.records)), encoding="utf-8")
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"the log {self.path} cannot be read or written: {error.strerror}") from None

    def add(self, event: TrainingEvent) -> None:
        """Append a step or an evaluation; other events are not logged."""
        match event:
            case Stepped():
                record = {"event": "step", **dataclasses.asdict(event)}
            case Evaluated():
                record = {"event": "evaluation", **dataclasses.asdict(event)}
            case _:
                return
        self.records.append(record)
        self._file.write(_line(record))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[Record]:
    """Return the records of a log up to the first damaged line; none without a file. Raises OSError.

    A process that is killed can leave a last line that is cut off, so a damaged line is not an error here.
    """
    if not path.exists():
        return []
    records: list[Record] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(cast("Record", json.loads(line)))
        except ValueError:
            break
    return records


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"
