""".ci/structure.py names what is outside the limits, on a small package made for it."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "structure.py"
DOCUMENTED = '''"""A module."""


def {name}(first, second):
    """Do it."""
    return first + second
'''


@pytest.fixture
def structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, pointed at the package `house` in an empty folder."""
    spec = spec_from_file_location("structure", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "PACKAGES", {"house": tmp_path / "house"})
    monkeypatch.setattr(sys, "argv", ["structure.py"])
    return script


def write(folder: Path, name: str, text: str) -> None:
    """Write a module of the package."""
    path = folder / "house" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def judged(structure: ModuleType, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return the script's exit code and the lines that it prints."""
    code = structure.main()
    return code, capsys.readouterr().out.splitlines()


def test_a_package_within_the_limits_passes(
    structure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "kitchen.py", DOCUMENTED.format(name="cook"))
    write(tmp_path, "cellar/wine.py", DOCUMENTED.format(name="pour"))
    assert judged(structure, capsys) == (0, ["the structure is within its limits"])


def body(lines: int) -> str:
    """A documented function of so many lines."""
    return "\n".join(['def long():\n    """Do it."""', *["    call()"] * (lines - 2)]) + "\n"


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        ("# a line\n" * 301, "house/room.py: 301 lines"),
        (body(61), "house/room.py:1: long has 61 lines"),
        (
            'def wide(a, b, c, d, e, f, g, h, *, i):\n    """Do it."""\n',
            "house/room.py:1: wide has 9 parameters",
        ),
        ("def bare():\n    return 1\n", "house/room.py: bare has no docstring"),
        (
            'class Room:\n    """A room."""\n\n    def enter(self):\n        pass\n',
            "house/room.py: enter has no docstring",
        ),
        ("class Bare:\n    pass\n", "house/room.py: Bare has no docstring"),
    ],
)
def test_what_is_outside_a_limit_is_named(
    structure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], module: str, fault: str
) -> None:
    write(tmp_path, "room.py", module)
    assert judged(structure, capsys) == (1, [fault])


@pytest.mark.parametrize(
    "module",
    [
        "# a line\n" * 300,
        body(60),
        'def method(self, a, b, c, d, e, f, g, h):\n    """Do it."""\n',
        "def _private():\n    return 1\n",
        "class _Private:\n    def enter(self):\n        pass\n",
        'class Room:\n    """A room."""\n\n    def _enter(self):\n        pass\n',
        "@overload\ndef either(a):\n    ...\n",
    ],
)
def test_what_is_just_within_a_limit_passes(
    structure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], module: str
) -> None:
    write(tmp_path, "room.py", module)
    assert judged(structure, capsys) == (0, ["the structure is within its limits"])


@pytest.mark.parametrize("definition", ['def twice():\n    """Do it."""\n', "twice = 1\n", "twice: int = 1\n"])
def test_a_public_name_that_two_modules_define_is_named(
    structure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], definition: str
) -> None:
    write(tmp_path, "attic.py", definition)
    write(tmp_path, "cellar/wine.py", definition)
    fault = "house: twice is defined in house/attic.py, house/cellar/wine.py"
    assert judged(structure, capsys) == (1, [fault])


@pytest.mark.parametrize("name", ["_twice", "main", "app"])
def test_private_names_and_those_of_every_program_may_repeat(
    structure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write(tmp_path, "attic.py", f"{name} = 1\n")
    write(tmp_path, "cellar.py", f"{name} = 1\n")
    assert judged(structure, capsys) == (0, ["the structure is within its limits"])


def test_all_prints_every_room_before_the_verdict(
    structure: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "kitchen.py", DOCUMENTED.format(name="cook"))
    write(tmp_path, "cellar/wine.py", DOCUMENTED.format(name="pour"))
    write(tmp_path, "cellar/cheese.py", DOCUMENTED.format(name="cut"))
    monkeypatch.setattr(sys, "argv", ["structure.py", "--all"])
    assert judged(structure, capsys) == (
        0,
        ["house: 1 modules, 6 lines", "house/cellar: 2 modules, 12 lines", "the structure is within its limits"],
    )
