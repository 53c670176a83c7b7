"""Sums, differences, products and exact quotients."""

from __future__ import annotations

from demo_next.question import Question
from demo_next.source import Source

LARGEST = 999
TABLE = 12
"""Products and quotients are of numbers up to this."""
PHRASES = [
    *["What is {}?"] * 6, "what is {}", "What's {}?", "what's {}", "Calculate {}", "calculate {}", "Compute {}",
    "Work out {}",
    "How much is {}?", "how much is {}", "What is {} equal to?", "Please calculate {}", "Tell me {}", "Add up {}",
    "Solve {}",
    "What does {} make?", "Can you tell me what {} is?", "Hi, what is {}?", "{} = ?", "{}=", "{} =", "{}?", *["{}"] * 4,
]  # fmt: skip
WORDS = {
    "+": ["plus", "plus", "and"],
    "-": ["minus", "minus", "less"],
    "*": ["times", "times", "multiplied by"],
    "/": ["divided by"],
}
SIGNS = {"+": "+", "-": "-−", "*": "**x×", "/": "/÷"}


def sums(source: Source) -> Question:
    """Return a calculation with two numbers."""
    left, sign, right = operands(source)
    content = f"{left} {sign} {right}"
    phrase = source.pick(PHRASES)
    if phrase == "Add up {}" and sign != "+":
        phrase = "What is {}?"
    return Question(
        kind="sums",
        prompt=phrase.format(written(source, left, sign, right)),
        answer=f"{content} = {result(left, sign, right)}",
        content=content,
    )


def operands(source: Source) -> tuple[int, str, int]:
    """Return two numbers and what to do with them."""
    sign = source.rng.choices("+-*/", (44, 38, 14, 4))[0]
    if sign in "+-":
        return source.number(LARGEST), sign, source.number(LARGEST)
    left, right = source.rng.randint(1, TABLE), source.rng.randint(0 if sign == "*" else 1, TABLE)
    return (left * right if sign == "/" else left), sign, right


def result(left: int, sign: str, right: int) -> int:
    """Return what a calculation gives."""
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            return left // right


def written(source: Source, left: int, sign: str, right: int) -> str:
    """Return a calculation as people write it: with spaces, without, in words."""
    way = source.rng.random()
    if way < 0.6:
        return f"{left} {source.pick(SIGNS[sign])} {right}"
    if way < 0.85:
        return f"{left}{source.pick(SIGNS[sign])}{right}"
    return f"{left} {source.pick(WORDS[sign])} {right}"
