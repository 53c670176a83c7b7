"""Counts: up, down, by twos; up to 120 numbers."""

from __future__ import annotations

from demo_next.question import Question
from demo_next.source import Source

LARGEST = 999
LONGEST = 120
UP = [
    *["Count from {} to {}"] * 5, "count from {} to {}", "Count from {} to {}.", "Count up from {} to {}",
    "Count from {} up to {}",
    "List the numbers from {} to {}", "Numbers from {} to {}", "Please count from {} to {}",
    "Can you count from {} to {}?",
    "Count {} to {}", "Write the numbers from {} to {}", "All numbers from {} to {}", "Count from {}-{}",
]  # fmt: skip
DOWN = [
    *["Count down from {} to {}"] * 3, "Count from {} down to {}", "Count backwards from {} to {}",
    "count down from {} to {}",
    "Count from {} to {}", "List the numbers from {} down to {}", "Please count down from {} to {}",
]  # fmt: skip
STEPS = {
    2: [" by twos", " by twos", " by 2", " in steps of 2", " in twos", " in steps of two"],
    3: [" by threes", " by 3", " in steps of 3"],
    5: [" by fives", " by 5", " in steps of 5"],
    10: [" by tens", " by 10", " in steps of 10"],
}
TO_ONE = ["Count to {}", "count to {}", "Count up to {}", "Please count to {}"]


def count(source: Source) -> Question:
    """Return a count of one to 120 numbers."""
    [most] = source.rng.choices((8, 22, 50, LONGEST), (30, 40, 15, 15))
    return counting(source, source.rng.randint(1, most))


def long_count(source: Source) -> Question:
    """Return a count of 25 to 120 numbers."""
    return counting(source, source.rng.randint(25, LONGEST))


def short_count(source: Source) -> Question:
    """Return a count of at most 20 numbers: one or two canvases, so that its end is seen often."""
    return counting(source, source.rng.randint(1, 20))


def counting(source: Source, numbers: int) -> Question:
    """Return a count of so many numbers."""
    step = source.rng.choices((1, 2, 3, 5, 10), (72, 16, 3, 5, 4))[0]
    numbers = min(numbers, LARGEST // step)
    spread = (numbers - 1) * step
    highest = LARGEST - spread
    start = source.rng.randint(0, min(highest, source.rng.choice((12, 100, 200, 999))))
    first, last = start, start + spread
    if source.chance(0.22):
        first, last = last, first
    # The last number that is asked for need not be reached.
    over = source.rng.randrange(step) if step > 1 and source.chance(0.3) and last > first else 0
    return Question(
        kind="count",
        prompt=asked(source, first, last + over, step),
        answer=listed(first, last, step),
        content=f"{first} {last + over} {step}",
    )


def asked(source: Source, first: int, last: int, step: int) -> str:
    """Return a request for a count."""
    if step == 1 and first == 1 < last and source.chance(0.4):
        return source.pick(TO_ONE).format(last)
    phrase = source.pick(UP if last >= first else DOWN)
    if step == 1:
        return phrase.format(first, last)
    end = phrase[-1] if phrase[-1] in ".?" else ""
    return phrase.removesuffix(end).format(first, last) + source.pick(STEPS[step]) + end


def listed(first: int, last: int, step: int) -> str:
    """Return the numbers from first to last."""
    return " ".join(map(str, range(first, last + 1, step) if last >= first else range(first, last - 1, -step)))
