"""Build this project's automata: the only module of these benchmarks that knows how."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from mlx_diffgemma.constraint.automata.byte_automaton import ByteAutomaton, compiled
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.constraint.automata.token_reading import over_tokens
from mlx_diffgemma.constraint.cache import Vocabulary
from mlx_diffgemma.constraint.description import described
from mlx_diffgemma.constraint.spec import Choices, JsonSchema, Regex
from mlx_diffgemma.text.tokenizer import Tokenizer
from mlx_diffgemma.text.tokenizer_files import read_tokenizer_files

Constraint: TypeAlias = Regex | JsonSchema | Choices


def bytes_automaton(constraint: Constraint) -> ByteAutomaton:
    """Return the automaton over bytes. Raises ConstraintError."""
    return compiled(described(constraint).expression)


def schema_automaton(schema: Any) -> ByteAutomaton:
    """Return the automaton over bytes of a JSON schema. Raises ConstraintError."""
    return bytes_automaton(JsonSchema(schema))


def tokens_automaton(automaton: ByteAutomaton, vocabulary: Vocabulary) -> TokenAutomaton:
    """Return the automaton over the tokens of a vocabulary, whose token 1 ends a text. Raises ConstraintError."""
    return over_tokens(automaton, vocabulary.token_bytes, (1,))


def read_vocabulary(folder: Path) -> Vocabulary:
    """Return the vocabulary of the tokenizer in a folder."""
    return Vocabulary(token_bytes=tuple(Tokenizer(read_tokenizer_files(folder)).all_token_bytes))
