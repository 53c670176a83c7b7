"""Watch the demo model solve a sudoku: the grid after every step, positions that are not accepted in brackets.

python examples/sudoku.py [..2./.3../...4/1...] [--model MODEL] [--seed 0]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from mlx_diffgemma import Denoised, load

SIZE = 4
PUZZLE = "..2./.3../...4/1..."


def puzzle(text: str) -> list[str]:
    """Parse four rows of digits and dots. Raises ArgumentTypeError for any other text."""
    rows = text.replace("/", "\n").split()
    if len(rows) != SIZE or any(len(row) != SIZE or set(row) - set("1234.") for row in rows):
        raise argparse.ArgumentTypeError(f"{text!r} is no sudoku: four rows of 1 to 4 and dots, such as {PUZZLE}")
    return rows


def drawn(pieces: Sequence[str], accepted: Sequence[bool]) -> str:
    """Return the grid at the beginning of a canvas, with positions that are not accepted in brackets."""
    cells = [piece if sure else f"[{piece}]" for piece, sure in zip(pieces, accepted, strict=True)]
    return "".join(cells[: SIZE * (SIZE + 1) - 1]).replace("[\n]", "\n").strip()


def broken_rule(givens: Sequence[str], solved: Sequence[str]) -> str | None:
    """Return what is wrong with a solution; None for a right one."""
    if [len(row) for row in solved] != [SIZE] * SIZE:
        return "it is no grid"
    if any(
        g not in (".", s) for before, row in zip(givens, solved, strict=True) for g, s in zip(before, row, strict=True)
    ):
        return "a given digit was changed"
    columns = ["".join(column) for column in zip(*solved, strict=True)]
    boxes = [solved[r][c : c + 2] + solved[r + 1][c : c + 2] for r in (0, 2) for c in (0, 2)]
    if any(set(unit) != set("1234") for unit in [*solved, *columns, *boxes]):
        return "a row, column or box lacks a digit"
    return None


def main() -> None:
    """Solve one puzzle and check the solution."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("puzzle", nargs="?", default=PUZZLE, type=puzzle, help=f"four rows, such as {PUZZLE}")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    givens = arguments.puzzle
    session = load(arguments.model)
    config = replace(session.defaults, seed=arguments.seed, max_tokens=32)
    best: Sequence[str] = ()
    for event in session.stream("Solve this sudoku:\n" + "\n".join(givens), config):
        if isinstance(event, Denoised):
            print(f"step {event.step}\n{drawn(event.pieces, event.accepted)}\n")
            best = event.pieces
    solved = "".join(best).split()[:SIZE]
    wrong = broken_rule(givens, solved)
    print("solved" if wrong is None else f"not solved: {wrong}")


if __name__ == "__main__":
    main()
