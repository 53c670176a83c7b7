"""What users say that a text must match, and the automata that are kept on disk."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from automata import STOPS, VOCABULARY, of_regex, of_schema, sampled

from mlx_diffgemma.constraint import cache as store
from mlx_diffgemma.constraint.automata.byte_automaton import ByteAutomaton, compiled
from mlx_diffgemma.constraint.automata.token_automaton import NOWHERE, TokenAutomaton
from mlx_diffgemma.constraint.cache import Vocabulary, automaton_of
from mlx_diffgemma.constraint.description import described
from mlx_diffgemma.constraint.expression import Expression
from mlx_diffgemma.constraint.spec import Choices, JsonSchema, Regex, constraint_of, read_schema
from mlx_diffgemma.errors import ConstraintError, DiffGemmaError
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import configured


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", "regex 'a(': missing ) for the group at position 1"),
        ("a)(?:b", "unbalanced parenthesis"),
        (r"(a)\1", "back-references"),
        ("(?=a)b", "the look-around (?= inside the pattern is not supported: it never holds at position 0"),
        ("a$b", "$ inside the pattern is not supported: it never holds at position 1"),
        ("[a", "a class is not closed"),
        ("[a&&b]", "a part of it cannot match anything"),
        ("a{2000}b{3,2}", "{3,2} at position 8 has a minimum above its maximum"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_named(pattern: str, message: str) -> None:
    with pytest.raises(ConstraintError) as raised:
        of_regex(pattern)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_byte_order_mark_before_a_schema_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('\ufeff{"type": "null"}')
    assert read_schema(file) == {"type": "null"}


def test_a_schema_is_a_dict_a_file_or_a_model(tmp_path: Path) -> None:
    import pydantic

    class Person(pydantic.BaseModel):
        name: str
        age: int | None = None
        friends: list[str] = []

    schema = read_schema(Person)
    assert schema == Person.model_json_schema()
    automaton = of_schema(schema)
    rng = random.Random(0)
    for _ in range(20):
        Person.model_validate_json(sampled(automaton, rng))
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    assert read_schema(tmp_path / "schema.json") == read_schema(str(tmp_path / "schema.json")) == schema
    (tmp_path / "schema.json").write_text("[")
    with pytest.raises(ConstraintError, match=r"schema\.json is not JSON"):
        read_schema(tmp_path / "schema.json")
    with pytest.raises(ConstraintError, match="is no dict, file or pydantic model"):
        read_schema(int)


def test_choices_are_taken_literally() -> None:
    automaton = compiled(described(Choices(("a+b", "New York", "New York City", "x|y"))).expression)
    texts = ("a+b", "New York", "New York City", "x|y", "aab", "x", "New York C")
    assert [automaton.accepts(text) for text in texts] == [True] * 4 + [False] * 3


# what is kept on disk


def test_automata_are_kept_and_made_anew_where_they_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Expression] = []

    def counted(expression: Expression, *, allow_empty: bool, prefix: str) -> ByteAutomaton:
        made.append(expression)
        return compiled(expression, allow_empty=allow_empty, prefix=prefix)

    monkeypatch.setattr(store, "compiled", counted)

    def automaton(pieces: tuple[bytes, ...] = VOCABULARY, prefix: str = "") -> TokenAutomaton:
        automaton_of.cache_clear()
        return automaton_of(Regex("a(b|ba)*"), Vocabulary(token_bytes=pieces), STOPS, False, prefix)

    first = automaton()
    again = automaton()
    assert len(made) == 1
    for name in store.AUTOMATON_ARRAYS:
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert again.stops == first.stops
    [file] = store.folder().iterdir()
    assert file.is_relative_to(tmp_path)
    for damage in (b"", b"no zip", file.read_bytes()[:-40]):
        file.write_bytes(damage)
        automaton()
    assert len(made) == 4
    automaton((*VOCABULARY, b"abb"))
    assert len(made) == 5
    assert len(list(store.folder().iterdir())) == 2
    # Another prefix is another automaton.
    assert automaton(prefix="b").after(0, [1]) == NOWHERE
    assert len(made) == 6


def test_a_cache_that_cannot_be_written_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    automaton_of.cache_clear()
    assert automaton_of(Regex("a"), Vocabulary(token_bytes=VOCABULARY), STOPS, True).states == 2


def test_constraints_are_values_that_are_checked_when_they_are_made(tmp_path: Path) -> None:
    assert Regex("a") == Regex("a") != Regex("b")
    assert Choices(["a", "b"]) == Choices(("a", "b"))
    file = tmp_path / "schema.json"
    file.write_text('{"type": "integer"}')
    assert JsonSchema(file) == JsonSchema({"type": "integer"})
    assert repr(JsonSchema(file)) == "JsonSchema(document={'type': 'integer'}, max_depth=5, is_strict=False)"
    for make, message in (
        (lambda: Regex(3), "regex=3 must be text"),  # type: ignore[arg-type]
        (lambda: Choices("yes"), "choices='yes' must be a list of texts"),
        (lambda: Choices(["a", "a"]), "must be a tuple of different texts"),
        (lambda: Choices(5), "choices=5 must be a tuple"),  # type: ignore[arg-type]
        (lambda: JsonSchema({}, max_depth=-1), "max_depth=-1 must be a whole number from 0 on"),
        (lambda: JsonSchema(5), "json_schema=5 is no dict, file or pydantic model"),  # type: ignore[arg-type]
        (lambda: GenerationConfig(constraint="a"), "must be a Regex, a JsonSchema, Choices, or None"),  # type: ignore[arg-type]
        (lambda: constraint_of(regex="a", choices=["b"]), "regex and choices cannot both be kept"),
        (lambda: configured(GenerationConfig(), {"constraint": Regex("a"), "regex": "b"}), "cannot both be kept"),
    ):
        with pytest.raises(DiffGemmaError, match=message):
            make()
    assert configured(GenerationConfig(), {"constraint": Regex("a")}).constraint == Regex("a")
    assert constraint_of() is None
