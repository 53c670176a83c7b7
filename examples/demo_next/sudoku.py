"""Sudokus of four by four cells: all 288 grids are known, and a puzzle is solved by finding those that agree."""

from __future__ import annotations

import random
from functools import cache
from itertools import permutations

SIDE = 4
CELLS = SIDE * SIDE
EMPTY = "." * CELLS
FEWEST, MOST = 4, 11
"""Minimum and maximum number of givens in a puzzle."""

UNITS = (
    *([SIDE * row + column for column in range(SIDE)] for row in range(SIDE)),
    *([SIDE * row + column for row in range(SIDE)] for column in range(SIDE)),
    *([corner, corner + 1, corner + SIDE, corner + SIDE + 1] for corner in (0, 2, 8, 10)),
)
"""The cells of each row, column and box."""


def is_grid(cells: str) -> bool:
    """Return whether sixteen characters are a finished sudoku."""
    return len(cells) == CELLS and all({cells[cell] for cell in unit} == set("1234") for unit in UNITS)


@cache
def grids() -> tuple[str, ...]:
    """Return all finished sudokus, sixteen digits each, in order."""
    rows = ["".join(row) for row in permutations("1234")]
    halves = [first + second for first in rows for second in rows if not set(first[:2]) & set(second[:2])]
    return tuple(grid for top in halves for bottom in halves if is_grid(grid := top + bottom))


@cache
def holders(cell: int, digit: str) -> int:
    """Return the grids with this digit in this cell, one bit per grid."""
    return sum(1 << number for number, grid in enumerate(grids()) if grid[cell] == digit)


def solutions(cells: str) -> int:
    """Return how many grids agree with a puzzle: sixteen characters, "." for an empty cell."""
    fitting = (1 << len(grids())) - 1
    for cell, digit in enumerate(cells):
        if digit != ".":
            fitting &= holders(cell, digit)
    return fitting.bit_count()


def puzzle(rng: random.Random) -> tuple[str, str]:
    """Return a puzzle with exactly one solution, and the solution; sixteen characters each."""
    solution = rng.choice(grids())
    wanted = rng.randint(FEWEST, MOST)
    while True:
        cells, givens = solution, CELLS
        for cell in rng.sample(range(CELLS), CELLS):
            emptied = cells[:cell] + "." + cells[cell + 1 :]
            if givens > wanted and solutions(emptied) == 1:
                cells, givens = emptied, givens - 1
        if givens <= MOST:
            return cells, solution


def lines(cells: str) -> str:
    """Return sixteen characters as four lines."""
    return "\n".join(cells[row : row + SIDE] for row in range(0, CELLS, SIDE))
