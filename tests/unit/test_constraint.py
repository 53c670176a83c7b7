"""Patterns and schemas as automata over bytes and over tokens, against Python's re, jsonschema, and brute force."""

from __future__ import annotations

import itertools
import json
import random
import re
from datetime import datetime, time
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from mlx_diffgemma.constraint import cache as store
from mlx_diffgemma.constraint.byte_automaton import ByteAutomaton, compiled
from mlx_diffgemma.constraint.cache import Vocabulary, automaton_of
from mlx_diffgemma.constraint.integers import integer_between
from mlx_diffgemma.constraint.regex import within_json
from mlx_diffgemma.constraint.schema import schema_regex
from mlx_diffgemma.constraint.search import TokenCandidates, most_probable
from mlx_diffgemma.constraint.spec import Choices, JsonSchema, Regex, constraint_of, pattern_of, read_schema
from mlx_diffgemma.constraint.token_automaton import NOWHERE, TokenAutomaton, over_tokens
from mlx_diffgemma.errors import ConstraintError, DiffGemmaError
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import configured


def accepts(automaton: ByteAutomaton, text: str) -> bool:
    state = 0
    for byte in text.encode():
        state = automaton.steps[state, byte]
        if state == len(automaton.steps):
            return False
    return bool(automaton.accepting[state])


def sampled(automaton: ByteAutomaton, rng: random.Random) -> str:
    """A random text that the automaton accepts: some random bytes, then the shortest way to an end."""
    distance = distances(automaton)
    state, text, random_bytes = 0, b"", rng.randint(0, 30)
    while not (automaton.accepting[state] and len(text) >= random_bytes):
        possible = np.flatnonzero(automaton.steps[state] < len(automaton.steps)).tolist()
        if not possible:
            break
        ahead = [distance[automaton.steps[state, byte]] for byte in possible]
        nearest = [byte for byte, rest in zip(possible, ahead, strict=True) if rest == min(ahead)]
        # Seldom a byte that begins a longer character.
        usual = [byte for byte in possible if byte < 128 or rng.random() < 0.1] or possible
        byte = rng.choice(usual if len(text) < random_bytes else nearest)
        text += bytes([byte])
        state = automaton.steps[state, byte]
    return text.decode()


@lru_cache(maxsize=1)
def distances(automaton: ByteAutomaton) -> list[int]:
    """Bytes from each state to an end."""
    distance = [0 if accepting else 10**6 for accepting in automaton.accepting]
    for _ in distance:
        for state, row in enumerate(automaton.steps):
            ahead = [distance[target] + 1 for target in set(row.tolist()) if target < len(distance)]
            distance[state] = min([distance[state], *ahead])
    return distance


# patterns

PATTERNS = [
    "a|ab",
    "^a$|^b$",
    "(a|b)*abb",
    "a*?",
    "[^a]b?",
    "a{2,3}",
    "(?i)^ab$",
    r"\d{1,2}-b",
    "é|a\n",
    r"[\d-]+",
    ".a",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_accepts_what_python_matches_whole(pattern: str) -> None:
    automaton = compiled(pattern)
    for length in range(4):
        for characters in itertools.product("ab1-éA\n", repeat=length):
            text = "".join(characters)
            assert accepts(automaton, text) == bool(re.fullmatch(pattern, text)), text


def test_states_that_differ_in_nothing_are_one() -> None:
    assert len(compiled("ab|cb|db").steps) == 3
    assert len(compiled("(?:a|b|c)(?:x|y)*").steps) == 2


def test_digits_are_those_of_ascii() -> None:
    assert not accepts(compiled(r"\d"), "٣")
    assert not accepts(compiled(r"[\d.]"), "٣")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", "regex 'a(' cannot be used: missing )"),
        ("a)(?:b", "cannot be used: unbalanced parenthesis"),
        ("(?=a)b", "look-around, back-references and word boundaries are not supported"),
        (r"(a)\1", "back-references"),
        (r"\bfoo", r"\b inside the pattern is not supported"),
        ("a$b", "$ inside the pattern is not supported"),
        ("[a", "a class is not closed"),
        ("[a&&b]", "a part of it cannot match anything"),
        ("a{2000}", "{2000} repeats more than 1000 times"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_named(pattern: str, message: str) -> None:
    with pytest.raises(ConstraintError, match=re.escape(message)) as raised:
        compiled(pattern)
    assert "\n" not in str(raised.value)


def test_the_empty_text_can_be_taken_out() -> None:
    automaton = compiled("a*").nonempty()
    assert [accepts(automaton, text) for text in ("", "a", "aa", "b")] == [False, True, True, False]
    with pytest.raises(ConstraintError, match="only the empty text matches"):
        compiled("").nonempty()


@pytest.mark.parametrize(
    "pattern", ["^[ -~]+$", "abc|^x", r"\.\\\d", '"', "a.b$", r"^\S$", r"^[^a]$", "^a\tb$", r"^\x22?a\tb$"]
)
def test_a_pattern_inside_json_finds_what_python_finds_in_the_string(pattern: str) -> None:
    """Whatever is accepted is found; the other way round holds for strings without what JSON writes otherwise."""
    automaton = compiled(f'"{within_json(pattern)}"')
    rng = random.Random(0)
    for _ in range(30):
        assert re.search(pattern, json.loads(sampled(automaton, rng)))
    for text in ["xabcx", "x", "yx", "a.b", ".\\3", "a", "b", " a ", "a\tb", '"']:
        written = json.dumps(text)
        if written[1:-1] == text or not set(pattern) & set("[.S"):
            assert accepts(automaton, written) == bool(re.search(pattern, text)), text


# whole numbers


def test_whole_numbers_between_bounds_and_no_others() -> None:
    rng = random.Random(0)
    for _ in range(150):
        low, high = rng.choice([None, rng.randint(-300, 300)]), rng.choice([None, rng.randint(-300, 1300)])
        if low is not None and high is not None and low > high:
            low, high = high, low
        pattern = re.compile(integer_between(low, high))
        for number in range(-1400, 1400):
            inside = (low is None or number >= low) and (high is None or number <= high)
            assert bool(pattern.fullmatch(str(number))) == inside, (low, high, number)


# schemas

SCHEMAS: list[dict[str, Any]] = [
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "pattern": "^[A-Z]{2}[0-9]$"},
    {"type": ["integer", "null"], "minimum": -3, "exclusiveMaximum": 12},
    {"type": "number", "minimum": 0},
    {"enum": ["a", 3, None, True, {"b": [1, 'x"']}]},
    {"type": "string", "enum": ["a", 3]},
    {"const": 'say "hi"\n'},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "null"}, {"type": "integer"}], "items": {"const": 1}, "maxItems": 4},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {
        "title": "Person",
        "properties": {
            "name": {"type": "string", "description": "all of it"},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "home": {"$ref": "#/$defs/Home"},
            "tags": {"type": "array", "items": {"anyOf": [{"enum": ["a", "b"]}, {"type": "number"}]}},
        },
        "required": ["age"],
        "additionalProperties": False,
        "$defs": {"Home": {"type": "object", "properties": {"city/é": {"type": "string"}}, "required": ["city/é"]}},
    },
    {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "null"}}, "required": ["kind"]},
            {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
            {"type": "string", "format": "uuid"},
        ]
    },
    {"oneOf": [{"type": ["string", "null"], "maxLength": 3}, {"type": ["integer", "boolean"]}]},
    *({"type": "string", "format": name} for name in ("date", "email", "ipv4")),
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:60])
def test_whatever_is_accepted_validates(schema: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    automaton, rng = compiled(schema_regex(schema)), random.Random(0)
    for _ in range(40):
        validator.validate(json.loads(sampled(automaton, rng)))


@pytest.mark.parametrize(("name", "read"), [("time", time), ("date-time", datetime)])
def test_times_are_those_of_the_standard(name: str, read: type[time] | type[datetime]) -> None:
    automaton, rng = compiled(schema_regex({"type": "string", "format": name})), random.Random(0)
    for _ in range(30):
        assert read.fromisoformat(json.loads(sampled(automaton, rng))).tzinfo is not None


@pytest.mark.parametrize(
    ("schema", "text", "accepted"),
    [
        ({"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}, "{}", True),
        ({"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}, '{"b": 1}', True),
        ({"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}, '{"a":1,"b":2}', True),
        ({"properties": {"a": {"type": "integer"}}, "required": ["a"]}, '{\n  "a": 1\n}', True),
        ({"properties": {"a": {"type": "integer"}}, "required": ["a"]}, "{}", False),
        ({"type": "number"}, "-1.5e+3", True),
        ({"type": "number"}, "01", False),
        ({"type": "string"}, '"a\\"b\\né"', True),
        ({"type": "string"}, '"a\nb"', False),
        ({"type": "array", "items": {"type": "null"}}, "[]", True),
        ({"type": "array", "items": {"type": "null"}}, "[null, null]", True),
    ],
)
def test_json_as_it_is_written(schema: dict[str, Any], text: str, accepted: bool) -> None:
    assert accepts(compiled(schema_regex(schema)), text) == accepted


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({}, "json_schema: it has no type"),
        ({"not": {}}, "json_schema: the keyword 'not' is not supported"),
        ({"type": "array"}, "an array needs 'items'"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "'uniqueItems' is not supported"),
        ({"type": "strin"}, "type 'strin' is none of JSON's"),
        ({"type": "object"}, "an object needs 'properties'"),
        ({"properties": {"a": {"type": "integer", "multipleOf": 2}}}, "json_schema at /a: the keyword 'multipleOf'"),
        ({"properties": {"a": {"$ref": "#"}}}, "# refers to itself: recursion is not supported"),
        ({"properties": {}, "required": ["a"]}, "the required 'a' is none of the properties"),
        ({"$ref": "#/x"}, "'#/x' leads nowhere"),
        ({"$ref": "other.json"}, "'other.json' leads out of the schema"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "'oneOf' is supported only if"),
        ({"allOf": [{"type": "integer"}, {"type": "number"}]}, "'allOf' with more than one schema"),
        ({"anyOf": [{"type": "integer"}], "minimum": 3}, "'minimum' beside 'anyOf' is not supported"),
        ({"type": "string", "format": "hostname"}, "the format 'hostname' is not supported"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, "only one can be kept"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no integer lies between 5 and 4"),
        ({"type": "number", "maximum": 4}, "the only limit of a number that is supported"),
        ({"type": "string", "enum": [3]}, "no value is allowed"),
        ({"type": 3}, "'type' must be a text or a list of texts, not 3"),
        ({"type": ["string", {}]}, "'type' must be a text or a list of texts"),
        ({"type": "string", "maxLength": -1}, "'maxLength' must be a whole number from 0 on, not -1"),
        ({"type": "string", "minLength": True}, "'minLength' must be a whole number from 0 on, not True"),
        ({"type": "string", "pattern": []}, "'pattern' must be a text, not []"),
        ({"type": "integer", "minimum": "3"}, "'minimum' must be a number, not '3'"),
        ({"type": "number", "minimum": float("inf")}, "'minimum' must be a number, not inf"),
        ({"properties": []}, "'properties' must be an object, not []"),
        ({"properties": {"a": {"type": "null"}}, "required": [["a"]]}, "'required' must be a list of texts"),
        ({"properties": {"a": {"anyOf": []}}}, "json_schema at /a: 'anyOf' must be a list that is not empty, not []"),
        ({"enum": 5}, "'enum' must be a list that is not empty, not 5"),
        ({"$ref": None}, "'$ref' must be a text, not None"),
        ({"oneOf": [{"type": ["object", "null"]}, {"type": ["null", "string"]}]}, "an object needs 'properties'"),
        ({"oneOf": [{"type": ["string", "null"]}, {"type": "null"}]}, "'oneOf' is supported only if"),
    ],
)
def test_what_cannot_be_kept_is_named(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ConstraintError, match=re.escape(message)):
        schema_regex(schema)


def test_a_schema_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConstraintError, match="json_schema: it is nested too deeply"):
        schema_regex(schema)
    file = tmp_path / "schema.json"
    file.write_text("[" * 100_000)
    with pytest.raises(ConstraintError, match=r"schema\.json is not JSON: .*recursion"):
        read_schema(file)


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
    automaton = compiled(schema_regex(schema))
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
    automaton = compiled(pattern_of(Choices(("a+b", "New York", "New York City", "x|y"))))
    texts = ("a+b", "New York", "New York City", "x|y", "aab", "x", "New York C")
    assert [accepts(automaton, text) for text in texts] == [True] * 4 + [False] * 3


# tokens

STOPS = (0, 6)
VOCABULARY = [b"<end>", b"a", b"b", b"ab", b"ba", b"c", b"", b"bb", b""]


def over(pattern: str) -> TokenAutomaton:
    return over_tokens(compiled(pattern), VOCABULARY, STOPS)


@pytest.mark.parametrize("pattern", ["a|ab", "(ab)*c", "a(b|ba)*", "[abc]{2,5}", "bba?c"])
def test_tokens_lead_where_their_bytes_do(pattern: str) -> None:
    automaton, bytewise = over(pattern), compiled(pattern)
    for length in range(1, 5):
        for tokens in itertools.product(range(len(VOCABULARY)), repeat=length):
            state = automaton.after(0, tokens)
            if any(token in STOPS or not VOCABULARY[token] for token in tokens):
                assert state == NOWHERE
                continue
            text = b"".join(VOCABULARY[token] for token in tokens).decode()
            accepted = state != NOWHERE and bool(automaton.accepting[state])
            assert accepted == accepts(bytewise, text)


def test_the_distance_is_that_of_the_shortest_text() -> None:
    assert [int(over(pattern).distance[0]) for pattern in ("abba", "a*", "ab{5}", "c{3}")] == [2, 0, 3, 3]


def test_only_tokens_after_which_the_rest_fits_are_allowed() -> None:
    automaton = over("a|abbbb")
    assert np.flatnonzero(automaton.allowed(0, 5)).tolist() == [1, 3]
    assert np.flatnonzero(automaton.allowed(0, 1)).tolist() == [1]


def test_tokens_alike_are_one_class() -> None:
    words = [b"".join(pair) for pair in itertools.product([b"x", b"y", b"z"], repeat=2)]
    automaton = over_tokens(compiled('"[a-z]*"'), [b"", b'"', *words], (0,))
    assert automaton.class_count == 2


def test_a_constraint_that_no_token_can_meet_is_refused() -> None:
    with pytest.raises(ConstraintError, match="no text that matches can be made up of this model's tokens"):
        over("xyz")


# the most probable text


def brute_force(automaton: TokenAutomaton, logits: np.ndarray, left: int) -> float:
    """The best sum of logits of all sequences of tokens that are allowed."""
    best = -np.inf
    for tokens in itertools.product(range(len(VOCABULARY)), repeat=len(logits)):
        state, ended = 0, False
        for token in tokens:
            if token in STOPS and not ended:
                ended = True
                if not automaton.accepting[state]:
                    state = NOWHERE
            elif not ended:
                state = automaton.after(state, [token])
            if state == NOWHERE:
                break
        if state != NOWHERE and (ended or automaton.distance[state] <= left):
            best = max(best, float(sum(row[token] for row, token in zip(logits, tokens, strict=True))))
    return best


def candidates(automaton: TokenAutomaton, logits: np.ndarray, likely: int) -> TokenCandidates:
    ids = np.argsort(-logits, axis=1)[:, :likely].astype(np.int32)
    return TokenCandidates(
        likely=ids,
        likely_logits=np.take_along_axis(logits, ids, axis=1),
        member_logits=logits[:, automaton.members[0]],
        stop_logits=logits[:, list(automaton.stops)],
        best=logits.argmax(axis=1).astype(np.int32),
        best_logits=logits.max(axis=1),
    )


@pytest.mark.parametrize("pattern", ["a|ab", "(ab)*c", "a(b|ba)*", "[abc]{2,5}", "bba?c"])
def test_the_path_is_the_most_probable_text(pattern: str) -> None:
    automaton, rng = over(pattern), np.random.default_rng(0)
    for length, left in itertools.product(range(1, 5), (0, 1, 3)):
        if automaton.distance[0] > length + left:
            continue
        logits = 3 * rng.normal(size=(length, len(VOCABULARY))).astype(np.float32)
        path = most_probable(automaton, 0, candidates(automaton, logits, 3), automaton.finishing(0, left))
        found = sum(row[token] for row, token in zip(logits, path.tokens, strict=True))
        assert found == pytest.approx(brute_force(automaton, logits, left), abs=1e-4)
        if path.end is not None:
            assert path.tokens[path.end] in STOPS
            assert automaton.accepting[automaton.after(0, path.tokens[: path.end])]


# what is kept on disk


def test_automata_are_kept_and_made_anew_where_they_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[str] = []
    monkeypatch.setattr(store, "compiled", lambda pattern: made.append(pattern) or compiled(pattern))

    def automaton(pieces: list[bytes] = VOCABULARY) -> TokenAutomaton:
        automaton_of.cache_clear()
        return automaton_of("a(b|ba)*", Vocabulary(token_bytes=tuple(pieces)), STOPS, False)

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
    automaton([*VOCABULARY, b"abb"])
    assert len(made) == 5
    assert len(list(store.folder().iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    automaton_of.cache_clear()
    assert automaton_of("a", Vocabulary(token_bytes=tuple(VOCABULARY)), STOPS, True).states == 2


def test_constraints_are_values_that_are_checked_when_they_are_made(tmp_path: Path) -> None:
    assert Regex("a") == Regex("a") != Regex("b")
    assert Choices(["a", "b"]) == Choices(("a", "b"))
    file = tmp_path / "schema.json"
    file.write_text('{"type": "integer"}')
    assert JsonSchema(file) == JsonSchema({"type": "integer"})
    assert repr(JsonSchema(file)) == "JsonSchema(document={'type': 'integer'})"
    for make, message in (
        (lambda: Regex(3), "regex=3 must be text"),  # type: ignore[arg-type]
        (lambda: Choices("yes"), "choices='yes' must be a list of texts"),
        (lambda: Choices(["a", "a"]), "must be a tuple of different texts"),
        (lambda: Choices(5), "choices=5 must be a tuple"),  # type: ignore[arg-type]
        (lambda: JsonSchema(5), "json_schema=5 is no dict, file or pydantic model"),  # type: ignore[arg-type]
        (lambda: GenerationConfig(constraint="a"), "must be a Regex, a JsonSchema, Choices, or None"),  # type: ignore[arg-type]
        (lambda: constraint_of(regex="a", choices=["b"]), "regex and choices cannot both be kept"),
        (lambda: configured(GenerationConfig(), {"constraint": Regex("a"), "regex": "b"}), "cannot both be kept"),
    ):
        with pytest.raises(DiffGemmaError, match=message):
            make()
    assert configured(GenerationConfig(), {"constraint": Regex("a")}).constraint == Regex("a")
    assert constraint_of() is None
