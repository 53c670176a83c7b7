"""Start a worker and talk to it over a pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

BENCHMARKS = Path(__file__).parent.parent


class ProgramError(Exception):
    """A worker ended before it answered."""


@dataclass(kw_only=True)
class Worker:
    """A program on one checkpoint; its process starts with the first request and ends with `close`."""

    name: str
    folder: Path
    options: tuple[str, ...]
    """options of the worker's command line"""
    python: str = sys.executable
    started: dict[str, Any] = field(default_factory=dict)
    """its first message: version and size of the vocabulary"""
    _process: subprocess.Popen[str] | None = None
    _errors: TextIO | None = None

    @property
    def running(self) -> bool:
        """Whether the process runs and holds a model."""
        return self._process is not None

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer. Raises ProgramError."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._ended(process) from None
        return self._reply(process)

    def close(self) -> None:
        """End the process, which frees its memory."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._errors is not None:
            self._errors.close()
        self._process = None

    def _start(self) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")]))
        command = [self.python, "-m", "comparing.worker", self.name, str(self.folder), *self.options]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open for as long as the process lives
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._process = process
        self.started = self._reply(process)
        return process

    def _reply(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise self._ended(process)
        return json.loads(line)

    def _ended(self, process: subprocess.Popen[str]) -> ProgramError:
        process.wait()
        assert self._errors is not None
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        last = lines[-1] if lines else "it printed nothing"
        code = process.returncode
        self._process = None
        return ProgramError(f"{self.name} ended with {code} on {self.folder}: {last}")
