"""While a program is being loaded, Ctrl-C ends it in silence.

Each program imports this module before the others, which take a tenth of a second. `console.run_program` takes over.
Where the program is imported by something else, nothing changes.
"""

from __future__ import annotations

# `signal` is made of it, but imports `enum` first: in that time Ctrl-C would print a traceback.
import _signal  # pyright: ignore[reportMissingImports]
import os
import sys


def is_started() -> bool:
    """Return whether this process is one of the programs: `python -m mlx_diffgemma.NAME`, or a script of that name."""
    spec = sys.modules["__main__"].__spec__
    name = os.path.basename(sys.argv[0]) if spec is None else spec.name  # noqa: PTH119 - pathlib takes long to import
    return name.partition(".")[0] == "mlx_diffgemma"


if is_started() and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
