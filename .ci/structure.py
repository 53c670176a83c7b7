"""Print what the structure is held to, and exit with 1 where it is not: see CONTRIBUTING.md.

    python .ci/structure.py [--all]

modules per room; modules of more than 300 lines; functions of more than 60 lines or 8 parameters; public names that
several modules of one package define; public names without a docstring. --all prints every measure, not faults alone.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = {"mlx_diffgemma": ROOT / "mlx_diffgemma", "mlx_diffgemma_convert": ROOT / "convert/mlx_diffgemma_convert"}
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 300, 60, 8
SHARED = {"main", "app"}
"""Names that every program has."""


def modules(package: Path) -> list[Path]:
    """All modules of a package, sorted."""
    return sorted(package.rglob("*.py"))


def public_names(tree: ast.Module) -> Iterator[str]:
    """Functions, classes and constants that a module defines at its top level."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case _:
                pass


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a function has, self not counted."""
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and methods of public classes without a docstring; overloads need none."""
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else []
        for each in (node, *inside):
            if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or each.name.startswith("_"):
                continue
            decorators = {ast.unparse(decorator) for decorator in each.decorator_list}
            if ast.get_docstring(each) is None and "overload" not in decorators:
                yield each.name


def faults(name: str, package: Path) -> Iterator[str]:
    """What is outside the limits in one package."""
    defined: dict[str, list[str]] = defaultdict(list)
    for path in modules(package):
        where = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        if (lines := text.count("\n")) > MOST_LINES:
            yield f"{where}: {lines} lines"
        for function in functions(tree):
            size = (function.end_lineno or function.lineno) - function.lineno + 1
            if size > MOST_FUNCTION_LINES:
                yield f"{where}:{function.lineno}: {function.name} has {size} lines"
            if parameters(function) > MOST_PARAMETERS:
                yield f"{where}:{function.lineno}: {function.name} has {parameters(function)} parameters"
        yield from (f"{where}: {each} has no docstring" for each in undocumented(tree))
        for each in set(public_names(tree)):
            if not each.startswith("_") and each not in SHARED:
                defined[each].append(where)
    for each, places in sorted(defined.items()):
        if len(places) > 1:
            yield f"{name}: {each} is defined in {', '.join(places)}"


def rooms(package: Path) -> Iterator[str]:
    """Modules and lines per folder."""
    found: dict[Path, list[int]] = defaultdict(list)
    for path in modules(package):
        found[path.parent].append(path.read_text(encoding="utf-8").count("\n"))
    for folder, lines in sorted(found.items()):
        yield f"{folder.relative_to(ROOT)}: {len(lines)} modules, {sum(lines)} lines"


def main() -> int:
    """Print and judge."""
    wrong = [fault for name, package in PACKAGES.items() for fault in faults(name, package)]
    if "--all" in sys.argv[1:]:
        for package in PACKAGES.values():
            print("\n".join(rooms(package)))
    print("\n".join(wrong) if wrong else "the structure is within its limits")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
