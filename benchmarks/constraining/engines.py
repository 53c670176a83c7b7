"""What builds a matcher from a schema: this project, and others.

An engine imports its library when it is made, which is in a process of its own.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

END = 256
"""The id that ends a text; the ids before it are bytes."""
DEMO_PROMPT = "Give JSON: Ana is 34."
DEMO_TOKENS = 128


class RefusedError(Exception):
    """An engine says that it cannot keep a schema."""


class Matcher(Protocol):
    """What an engine builds from one schema."""

    def accepts(self, text: bytes) -> bool:
        """Return whether the whole text matches."""
        ...

    def answers(self, count: int) -> Sequence[bytes]:
        """Return texts that match, by the engine's word; none if it writes none."""
        ...


class Engine(Protocol):
    """A builder of matchers."""

    needs: ClassVar[str]
    """the library that it imports"""

    def build(self, schema: Any) -> Matcher:
        """Return the matcher of a schema. Raises RefusedError."""
        ...


class Ours:
    """This project's automata: over bytes, and over the tokens of a vocabulary if one is given."""

    needs = "mlx_diffgemma"

    def __init__(self, vocabulary: Path | None) -> None:
        """vocabulary: the folder of a tokenizer."""
        from constraining import ours
        from constraining.walks import ByteWalker
        from mlx_diffgemma.errors import DiffGemmaError

        self._ours, self._walker, self._refusal = ours, ByteWalker, DiffGemmaError
        self._vocabulary = None if vocabulary is None else ours.read_vocabulary(vocabulary)

    def build(self, schema: Any) -> Matcher:
        """Return the matcher of a schema. Raises RefusedError."""
        try:
            automaton = self._ours.schema_automaton(schema)
            if self._vocabulary is not None:
                self._ours.tokens_automaton(automaton, self._vocabulary)
        except self._refusal as error:
            raise RefusedError(str(error)) from None
        return self._walker(automaton)


class Llguidance:
    """llguidance with a vocabulary of single bytes."""

    needs = "llguidance"

    def __init__(self, vocabulary: Path | None) -> None:
        """vocabulary: not used."""
        del vocabulary
        from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

        self._matcher = LLMatcher
        self._tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()))

    def build(self, schema: Any) -> Matcher:
        """Return the matcher of a schema. Raises RefusedError."""
        try:
            grammar = self._matcher.grammar_from_json_schema(json.dumps(schema))
            matcher = self._matcher(self._tokenizer, grammar, log_level=0)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        if matcher.is_error():
            raise RefusedError(matcher.get_error())
        return _LlguidanceMatcher(matcher)


class _Bytes:
    """What llguidance asks of a tokenizer."""

    eos_token_id, bos_token_id = END, None
    tokens: ClassVar = [*(bytes([byte]) for byte in range(END)), b"<end>"]
    special_token_ids: ClassVar = [END]

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


class _LlguidanceMatcher:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def accepts(self, text: bytes) -> bool:
        self._matcher.reset()
        return self._matcher.try_consume_tokens(list(text)) == len(text) and self._matcher.is_accepting()

    def answers(self, count: int) -> Sequence[bytes]:
        del count
        return ()


class OutlinesCore:
    """outlines-core: its regular expression of a schema, and its index over single bytes."""

    needs = "outlines_core"

    def __init__(self, vocabulary: Path | None) -> None:
        """vocabulary: not used."""
        del vocabulary
        from outlines_core import Index, Vocabulary
        from outlines_core.json_schema import build_regex_from_schema

        self._index, self._pattern = Index, build_regex_from_schema
        self._bytes = Vocabulary(END, {bytes([byte]): [byte] for byte in range(END)})

    def build(self, schema: Any) -> Matcher:
        """Return the matcher of a schema. Raises RefusedError."""
        try:
            return _IndexMatcher(self._index(self._pattern(json.dumps(schema)), self._bytes))
        except ValueError as error:
            raise RefusedError(str(error)) from None


class _IndexMatcher:
    def __init__(self, index: Any) -> None:
        self._index = index

    def accepts(self, text: bytes) -> bool:
        state = self._index.get_initial_state()
        for byte in text:
            state = self._index.get_next_state(state, byte)
            if state is None:
                return False
        return self._index.is_final_state(state)

    def answers(self, count: int) -> Sequence[bytes]:
        del count
        return ()


class Reference:
    """`jsonschema` itself, to see where it disagrees with the marks of instances."""

    needs = "jsonschema"

    def __init__(self, vocabulary: Path | None) -> None:
        """vocabulary: not used."""
        del vocabulary
        from constraining.validity import Validity

        self._validity = Validity

    def build(self, schema: Any) -> Matcher:
        """Return a matcher that validates."""
        return _ReferenceMatcher(self._validity(schema))


class _ReferenceMatcher:
    def __init__(self, validity: Any) -> None:
        self._validity = validity

    def accepts(self, text: bytes) -> bool:
        return self._validity.fault(text) is None

    def answers(self, count: int) -> Sequence[bytes]:
        del count
        return ()


class Demo:
    """The demo model, which writes one answer for a schema while the matcher is built."""

    needs = "mlx_diffgemma"

    def __init__(self, vocabulary: Path | None) -> None:
        """vocabulary: not used."""
        del vocabulary
        from mlx_diffgemma import load
        from mlx_diffgemma.errors import DiffGemmaError

        self._session, self._refusal = load("demo"), DiffGemmaError

    def build(self, schema: Any) -> Matcher:
        """Return what holds the model's answer. Raises RefusedError, also if no text fits the tokens."""
        try:
            answer = self._session.generate(DEMO_PROMPT, json_schema=schema, max_tokens=DEMO_TOKENS)
        except self._refusal as error:
            raise RefusedError(str(error)) from None
        return _Written(answer.text.encode())


class _Written:
    def __init__(self, text: bytes) -> None:
        self._text = text

    def accepts(self, text: bytes) -> bool:
        return text == self._text

    def answers(self, count: int) -> Sequence[bytes]:
        return [self._text] if count else []


ENGINES: dict[str, str] = {
    "ours": "constraining.engines:Ours",
    "llguidance": "constraining.engines:Llguidance",
    "outlines-core": "constraining.engines:OutlinesCore",
}
"""The classes of the engines that are compared."""
REFERENCE, DEMO = "constraining.engines:Reference", "constraining.engines:Demo"


def engine_class(name: str) -> Any:
    """Return the class of an engine: one of ENGINES, or MODULE:CLASS. One that is missing ends the program."""
    module, _, attribute = ENGINES.get(name, name).partition(":")
    found = getattr(importlib.import_module(module), attribute, None) if find_spec(module) and attribute else None
    if found is None:
        sys.exit(f"{name!r} is no engine: give one of {', '.join(ENGINES)}, or MODULE:CLASS")
    if find_spec(found.needs) is None:
        sys.exit(f"the engine {name} needs {found.needs}: pip install 'mlx-diffgemma[bench]', or leave it out")
    return found
