"""Sudokus of four by four cells, on four lines or on one."""

from __future__ import annotations

from demo_model import sudoku
from demo_next.question import Question
from demo_next.source import Source

PHRASES = [
    *["Solve this sudoku:"] * 5, "Solve this sudoku", "solve this sudoku:", "Complete this sudoku:",
    "Fill in this sudoku:", "Sudoku:",
    "Solve the sudoku:", "Please solve this sudoku:", "Solve:", "Can you solve this sudoku?", "Finish this sudoku:",
]  # fmt: skip
EMPTIES = "." * 8 + "_" + "0" + "?" + "x" + "-"


def sudoku_puzzle(source: Source) -> Question:
    """Return a sudoku of four to eleven givens."""
    cells, solution = sudoku.puzzle(source.rng)
    shown = cells.replace(".", source.pick(EMPTIES))
    way = source.rng.random()
    grid = sudoku.lines(shown) if way < 0.7 else sudoku.lines(shown).replace("\n", " ") if way < 0.9 else shown
    between = "\n" if way < 0.7 or source.chance(0.1) else " "
    return Question(
        kind="sudoku",
        prompt=f"{source.pick(PHRASES)}{between}{grid}",
        answer=sudoku.lines(solution),
        content=cells,
    )


def blank_sudoku(source: Source) -> Question:
    """Return an empty sudoku with any grid as its answer; it teaches to complete the digits on a canvas."""
    solution = source.pick(sudoku.grids())
    prompt = f"{source.pick(PHRASES)}\n{sudoku.lines(sudoku.EMPTY)}"
    return Question(kind="blank sudoku", prompt=prompt, answer=sudoku.lines(solution), content=solution)
