"""Python functions of one expression."""

from __future__ import annotations

from demo_next.question import Question
from demo_next.source import Source

ASK = [
    *["Write a Python function {}"] * 6, "Write a Python function {}.", "write a python function {}",
    "Write a function {}", "Define a Python function {}", "Define a function {}", "Give me a Python function {}",
    "Make a function {}", "Python function {}", "Write the Python function {}", "Please write a Python function {}",
    "Create a Python function {}", "Implement a function {}",
]  # fmt: skip
NAMING = ["{} that ", "{} that ", "{} that ", "{} which ", "called {} that ", "named {} that ", "{}: it "]
TWO = {
    "{a} * {b}": [
        "multiplies {a} and {b}",
        "multiplies {a} by {b}",
        "returns {a} times {b}",
        "returns the product of {a} and {b}",
    ],
    "{a} + {b}": [
        "adds {a} and {b}",
        "returns the sum of {a} and {b}",
        "adds {b} to {a}",
        "returns {a} plus {b}",
        "sums {a} and {b}",
    ],
    "{a} - {b}": ["subtracts {b} from {a}", "returns {a} minus {b}", "returns the difference of {a} and {b}"],
    "{a} / {b}": ["divides {a} by {b}", "returns {a} divided by {b}", "returns the quotient of {a} and {b}"],
    "max({a}, {b})": [
        "returns the larger of {a} and {b}",
        "returns the maximum of {a} and {b}",
        "returns the greater of {a} and {b}",
        "finds the maximum of {a} and {b}",
    ],
    "min({a}, {b})": [
        "returns the smaller of {a} and {b}",
        "returns the minimum of {a} and {b}",
        "finds the minimum of {a} and {b}",
    ],
    "({a} + {b}) / 2": [
        "averages {a} and {b}",
        "returns the average of {a} and {b}",
        "returns the mean of {a} and {b}",
    ],
    "{a} % {b}": [
        "returns the remainder of {a} divided by {b}",
        "returns the remainder of dividing {a} by {b}",
        "returns {a} modulo {b}",
    ],
    "{a} == {b}": ["checks whether {a} equals {b}", "tests if {a} and {b} are equal"],
}
"""The expression that a function of two arguments returns -> its descriptions."""
ONE = {
    "{a} % 2 == 0": [
        "checks whether {a} is even",
        "returns whether {a} is even",
        "tests if {a} is even",
        "checks if {a} is even",
    ],
    "{a} % 2 == 1": [
        "checks whether {a} is odd",
        "returns whether {a} is odd",
        "tests if {a} is odd",
        "checks if {a} is odd",
    ],
    "{a}[::-1]": ["reverses {a}", "reverses the string {a}", "returns {a} reversed", "reverses the list {a}"],
    "{a} * {a}": ["squares {a}", "returns the square of {a}"],
    "{a} * 2": ["doubles {a}", "returns twice {a}", "returns {a} times two"],
    "{a} / 2": ["halves {a}", "returns half of {a}"],
    "-{a}": ["negates {a}", "returns minus {a}"],
    "abs({a})": ["returns the absolute value of {a}"],
    "len({a})": ["returns the length of {a}", "counts the items of {a}"],
    "sum({a})": [
        "returns the sum of the list {a}",
        "adds up the list {a}",
        "sums the list {a}",
        "sums all numbers in {a}",
    ],
    "sum({a}) / len({a})": [
        "returns the average of the list {a}",
        "averages the list {a}",
        "returns the mean of the list {a}",
    ],
    "max({a})": ["returns the largest item of {a}", "returns the maximum of the list {a}", "finds the maximum of {a}"],
    "min({a})": ["returns the smallest item of {a}", "returns the minimum of the list {a}", "finds the minimum of {a}"],
    "sorted({a})": ["sorts {a}", "returns {a} sorted", "sorts the list {a}"],
    "{a}.upper()": ["returns {a} in upper case", "makes {a} upper case"],
    "{a}.lower()": ["returns {a} in lower case", "makes {a} lower case"],
    "{a}[0]": ["returns the first item of {a}"],
    "{a}[-1]": ["returns the last item of {a}"],
}
"""The expression that a function of one argument returns -> its descriptions."""
BARE = [
    ("add", ("a", "b"), "{a} + {b}", ["adds two numbers", "returns the sum of two numbers", "sums two numbers"]),
    ("subtract", ("a", "b"), "{a} - {b}", ["subtracts two numbers"]),
    ("multiply", ("a", "b"), "{a} * {b}", ["multiplies two numbers", "returns the product of two numbers"]),
    ("divide", ("a", "b"), "{a} / {b}", ["divides two numbers"]),
    ("average", ("a", "b"), "({a} + {b}) / 2", ["averages two numbers", "returns the average of two numbers"]),
    (
        "maximum",
        ("a", "b"),
        "max({a}, {b})",
        ["returns the larger of two numbers", "returns the maximum of two numbers", "finds the larger of two numbers"],
    ),
    (
        "minimum",
        ("a", "b"),
        "min({a}, {b})",
        ["returns the smaller of two numbers", "returns the minimum of two numbers"],
    ),
    (
        "area",
        ("width", "height"),
        "{a} * {b}",
        ["returns the area of a rectangle", "computes the area of a rectangle", "calculates the area"],
    ),
    (
        "is_even",
        ("n",),
        "{a} % 2 == 0",
        ["checks whether a number is even", "tells if a number is even", "checks if a number is even"],
    ),
    ("is_odd", ("n",), "{a} % 2 == 1", ["checks whether a number is odd", "checks if a number is odd"]),
    ("reverse", ("s",), "{a}[::-1]", ["reverses a string", "reverses a list"]),
    ("square", ("x",), "{a} * {a}", ["squares a number", "returns the square of a number"]),
    ("double", ("x",), "{a} * 2", ["doubles a number"]),
    ("absolute", ("x",), "abs({a})", ["returns the absolute value of a number"]),
    ("length", ("items",), "len({a})", ["returns the length of a list", "counts the items of a list"]),
    ("total", ("items",), "sum({a})", ["sums a list", "adds up a list", "returns the sum of a list"]),
    ("largest", ("items",), "max({a})", ["returns the largest item of a list", "finds the maximum of a list"]),
    ("upper", ("s",), "{a}.upper()", ["makes a text upper case"]),
]
"""A name, arguments and an expression for a function that is described without them."""


def function(source: Source) -> Question:
    """Return a request for a Python function."""
    if source.chance(0.15):
        name, task, answer = bare(source)
    else:
        name, task, answer = described(source)
    told = source.pick(NAMING).format(name) + task
    about = f"{name} to {infinitive(task)}" if source.chance(0.12) else told
    return Question(kind="function", prompt=source.pick(ASK).format(about), answer=answer)


def infinitive(task: str) -> str:
    """Return a task as it follows "to": add a and b."""
    verb, rest = task.split(" ", 1)
    return f"{'multiply' if verb == 'multiplies' else verb.removesuffix('s')} {rest}"


def described(source: Source) -> tuple[str, str, str]:
    """Return a name, what the function does to arguments with names, and its code."""
    name = source.pick(BARE)[0] if source.chance(0.25) else source.identifier()
    value, tasks = source.pick(list((TWO if source.chance(0.65) else ONE).items()))
    a, b = arguments(source)
    task = source.pick(tasks)
    used = (a, b) if "{b}" in task else (a,)
    # The arguments come in the order in which they are named.
    ordered = sorted(used, key=lambda each: task.format(a=f"<{a}>", b=f"<{b}>").index(f"<{each}>"))
    return name, task.format(a=a, b=b), code(name, tuple(ordered), value.format(a=a, b=b))


def bare(source: Source) -> tuple[str, str, str]:
    """Return a function whose arguments the description does not name."""
    usual, names, value, tasks = source.pick(BARE)
    name = usual if source.chance(0.5) and not source.held_out else source.identifier()
    values = dict(zip("ab", names, strict=False))
    return name, source.pick(tasks), code(name, names, value.format(**values))


def code(name: str, arguments: tuple[str, ...], value: str) -> str:
    """Return a function of one expression."""
    return f"def {name}({', '.join(arguments)}):\n    return {value}"


def arguments(source: Source) -> tuple[str, str]:
    """Return two different names: single letters, or words."""
    while True:
        if source.chance(0.3):
            a, b = source.rng.sample("abcdefghijklmnopqrstuvwxyz", 2)
        else:
            a, b = source.identifier(8), source.identifier(8)
        if a != b:
            return a, b
