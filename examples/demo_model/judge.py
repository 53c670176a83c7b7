"""Judge whether an answer is right; blanks around it do not count.

A function is never run: the judge evaluates its syntax tree, so that an answer can do no harm.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Mapping

from demo_model.questions import Question
from demo_model.sudoku import CELLS, is_grid

OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
BUILTINS: dict[str, Callable[..., float]] = {"max": max, "min": min}
NUMBERS = [(7.0, 2.0), (2.0, 7.0), (12.0, 5.0), (-3.0, 4.0), (9.0, 9.0), (0.0, 1.0), (100.0, 8.0)]
"""Arguments on which two functions are compared."""


def judge(question: Question, answer: str) -> bool:
    """Return whether an answer to a question is right."""
    match question.kind:
        case "sudoku":
            return _solves(question.content, answer)
        case "json":
            return _same_json(question.answer, answer)
        case "sort":
            return [word.strip() for word in answer.split(",")] == question.answer.split(", ")
        case "function":
            return _same_function(question.answer, answer)
        case _:
            return answer.split() == question.answer.split()


def _solves(puzzle: str, answer: str) -> bool:
    lines = answer.split()
    cells = "".join(lines)
    shaped = [len(line) for line in lines] == [4] * 4 and len(cells) == CELLS
    return shaped and is_grid(cells) and all(wanted in (".", cell) for wanted, cell in zip(puzzle, cells, strict=True))


def _same_json(expected: str, answer: str) -> bool:
    try:
        # Compared as text, because True and 1.0 equal 1 in Python.
        return json.dumps(json.loads(answer), sort_keys=True) == json.dumps(json.loads(expected), sort_keys=True)
    except (ValueError, RecursionError):
        return False


def _same_function(expected: str, answer: str) -> bool:
    """Return whether two functions have equal names, arguments (in any order) and results."""
    try:
        ours, theirs = _parse(expected), _parse(answer)
        names = _arguments(ours)
        if theirs.name != ours.name or sorted(_arguments(theirs)) != sorted(names):
            return False
        trials = [dict(zip(names, numbers, strict=True)) for numbers in NUMBERS]
        return all(_returned(ours, trial) == _returned(theirs, trial) for trial in trials)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return False


def _parse(text: str) -> ast.FunctionDef:
    """Return the only function that a text defines. Raises SyntaxError, or ValueError for any other text."""
    body = ast.parse(text.strip()).body
    if len(body) == 1 and isinstance(body[0], ast.FunctionDef) and not body[0].decorator_list:
        return body[0]
    raise ValueError("not one function")


def _arguments(function: ast.FunctionDef) -> list[str]:
    names = [argument.arg for argument in function.args.args]
    if ast.unparse(function.args) != ", ".join(names):
        raise ValueError("not plain arguments")
    return names


def _returned(function: ast.FunctionDef, values: Mapping[str, float]) -> float:
    if len(function.body) == 1 and isinstance(function.body[0], ast.Return):
        return _value(function.body[0].value, values)
    raise ValueError("not one return statement")


def _value(node: ast.expr | None, values: Mapping[str, float]) -> float:
    """Evaluate an expression of numbers, arguments, arithmetic, max and min. Raises ValueError for any other."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name) if name in values:
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, values)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
            return OPERATORS[type(sign)](_value(left, values), _value(right, values))
        case ast.Call(func=ast.Name(id=name), args=[_, _, *_] as arguments, keywords=[]) if name in BUILTINS:
            return BUILTINS[name](*(_value(argument, values) for argument in arguments))
        case _:
            raise ValueError("not arithmetic")
