"""An engine whose schemas say what becomes of them, to see what a benchmark makes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from constraining.engines import RefusedError


class ScriptedEngine:
    """Refuses, hangs, dies or fails as the schema's title says; otherwise takes everything and writes nonsense."""

    needs = "json"

    def __init__(self, vocabulary: Path | None) -> None:
        pass

    def build(self, schema: Any) -> Takes:
        match schema.get("title"):
            case "refused":
                raise RefusedError("the keyword 'title' is in 'x'")
            case "slow":
                signal.pause()
            case "dies":
                os.abort()
            case "fails":
                raise KeyError("title")
            case _:
                pass
        return Takes()


class Takes:
    def accepts(self, text: bytes) -> bool:
        return True

    def answers(self, count: int) -> Sequence[bytes]:
        return [b'{"age": 1}', b'{"name": "x"}', b"{"][:count]
