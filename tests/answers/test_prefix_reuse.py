"""Prefixes that were read before: the same answers, and no token is read twice."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tiny import random_model, tiny_config

import mlx_diffgemma
from mlx_diffgemma import GenerationConfig, Session, load
from mlx_diffgemma.errors import PromptError
from mlx_diffgemma.generation.prefixes import Prefixes
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.text.tokenizer import load_tokenizer

DEMO = Path(mlx_diffgemma.__file__).parent / "demo"
CONFIG = GenerationConfig(max_tokens=24, max_steps=2, stop_tokens=(106,))
WRITTEN_BY_THE_ENCODER = [{"mode": mode, "max_tokens": 5} for mode in ("causal", "speculative")]
Talk = list[dict[str, str]]


class Counted:
    """A session, and the tokens that its model has encoded."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.encoded = 0
        encode = session.model.encode

        def counting(rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
            self.encoded += sum(tokens.shape[1] for tokens in rows)
            return encode(rows, caches)

        session.model.encode = counting  # type: ignore[method-assign]


class Watched(Prefixes):
    """A store that remembers what was kept."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: set[tuple[int, ...]] = set()

    def keep(self, tokens: Sequence[int], cache: Cache, *, is_system: bool = False) -> None:
        """Remember the tokens too."""
        self.kept.add(tuple(tokens))
        super().keep(tokens, cache, is_system=is_system)

    def longest(self, tokens: Sequence[int]) -> int:
        """How many tokens of a prompt stand in a kept prefix."""
        return max((len(each) for each in self.kept if tuple(tokens[: len(each)]) == each), default=0)


@pytest.fixture(scope="module")
def counted() -> Counted:
    """Random weights, a window of 8 tokens, canvases of 16, over the demo's tokenizer."""
    model = random_model(tiny_config(vocab_size=888, max_position_embeddings=4096))
    return Counted(Session(model, load_tokenizer(DEMO), CONFIG))


@pytest.fixture(scope="module")
def demo() -> Counted:
    return Counted(load("demo"))


@pytest.fixture
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 tokens, so that a talk has many borders."""
    monkeypatch.setattr("mlx_diffgemma.generation.prefill.MAX_CHUNK", 16)
    monkeypatch.setattr("mlx_diffgemma.model.kernels.MAX_CHUNK", 16)
    monkeypatch.setattr("mlx_diffgemma.model.kernels.MIN_CHUNK", 16)


def asked(counted: Counted, store: Watched, talk: Talk, **options: Any) -> str:
    """Answer a talk with the store; it must be the answer of a fresh session, and read what is new alone."""
    session = counted.session
    prompt = session.tokens(talk, replace(session.defaults, **options))
    expected = session.generate(talk, **options)
    unread = len(prompt) - store.longest(prompt)
    before = counted.encoded
    answer = session.generate(talk, prefix=store, **options)
    assert answer.tokens == expected.tokens
    assert answer.stats.reused_tokens == len(prompt) - unread
    # Whole canvases before the last one are encoded too.
    later = sum(len(block) for block in blocks(answer.tokens, answer.stats.blocks, session))
    assert counted.encoded - before == unread + later
    return answer.text


def blocks(tokens: Sequence[int], count: int, session: Session) -> Iterator[Sequence[int]]:
    """The canvases of an answer but for the last."""
    length = session.model.config.canvas_length
    yield from (tokens[at * length : (at + 1) * length] for at in range(count - 1))


def moves(chance: random.Random, count: int) -> Iterator[tuple[str, str]]:
    words = "red green blue seven eight nine tea bread salt river".split()
    for _ in range(count):
        text = " ".join(chance.choices(words, k=chance.randint(1, 12)))
        yield chance.choice(["ask", "ask", "ask", "edit", "undo", "fork", "again"]), text


def play(counted: Counted, seed: int, count: int) -> Watched:
    """Ask, edit, undo, fork and regenerate at random; every answer is checked."""
    chance, store = random.Random(seed), Watched()
    system: Talk = [{"role": "system", "content": "Be brief."}] if seed % 2 else []
    talks: list[Talk] = [list(system)]
    for move, text in moves(chance, count):
        talk = chance.choice(talks)
        users = [at for at, message in enumerate(talk) if message["role"] == "user"]
        if move == "fork":
            talks.append(talk := list(talk))
        if move == "undo" and users:
            del talk[users[-1] :]
        if move == "again" and users:
            del talk[users[-1] + 1 :]
        elif move == "edit" and users:
            del talk[chance.choice(users) :]
            talk.append({"role": "user", "content": text})
        else:
            talk.append({"role": "user", "content": text})
        content = asked(counted, store, talk, seed=chance.randint(0, 5))
        talk.append({"role": "assistant", "content": content})
    return store


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.usefixtures("short_chunks")
def test_any_talk_goes_on_as_in_a_fresh_session_and_nothing_kept_is_read_again(counted: Counted, seed: int) -> None:
    assert len(play(counted, seed, 10).kept) > 8


def test_so_does_a_talk_with_the_demo(demo: Counted) -> None:
    assert play(demo, seed=3, count=4).kept


@pytest.mark.parametrize("options", [{"verify": 1e-6}, *WRITTEN_BY_THE_ENCODER, {"trim": True}])
def test_so_do_other_ways_to_write(counted: Counted, options: dict[str, Any]) -> None:
    session, store = counted.session, Prefixes()
    talk = [{"role": "user", "content": "red green blue"}]
    for _ in range(2):
        expected = session.generate(talk, **options)
        first = session.generate(talk, prefix=store, **options)
        before = counted.encoded
        second = session.generate(talk, prefix=store, **options)
        assert first.tokens == second.tokens == expected.tokens
        assert second.stats.reused_tokens >= second.stats.prompt_tokens - 1
        assert counted.encoded - before <= len(expected.tokens) + 1
        talk += [{"role": "assistant", "content": expected.text}, {"role": "user", "content": "tea"}]


def test_messages_that_were_read_are_not_read_again(counted: Counted) -> None:
    session = counted.session
    talk = [{"role": "system", "content": "Be brief. " * 20}]
    prefix = session.read(talk)
    assert prefix.cache is not None
    assert prefix.cache.offset == len(prefix.tokens)
    for text in ("red", "green"):
        question = [*talk, {"role": "user", "content": text}]
        expected, before = session.generate(question), counted.encoded
        answer = session.generate(question, prefix=prefix)
        assert answer.tokens == expected.tokens
        assert answer.stats.reused_tokens == len(prefix.tokens)
        assert counted.encoded - before < len(prefix.tokens)


def test_an_answer_gives_back_the_prefix_that_it_ends(counted: Counted) -> None:
    session = counted.session
    talk = [{"role": "user", "content": "red"}]
    prefix = session.read(talk)
    for text in ("green", "blue", "tea"):
        answer = session.generate(talk, prefix=prefix)
        assert answer.prefix is not None
        assert list(answer.prefix.tokens) == session.tokenizer.finished_chat(
            [*talk, {"role": "assistant", "content": answer.text}]
        )
        talk += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": text}]
        prefix = answer.prefix
        expected = session.generate(talk)
        again = session.generate(talk, prefix=prefix)
        assert again.tokens == expected.tokens
        # The second use finds the answer read as well.
        assert session.generate(talk, prefix=prefix).stats.reused_tokens == len(prefix.tokens)
    assert session.generate(talk).prefix is None


def test_a_prompt_that_begins_otherwise_is_refused(counted: Counted) -> None:
    prefix = counted.session.read([{"role": "user", "content": "red green"}])
    with pytest.raises(PromptError, match=r"the prompt does not begin with the prefix: they differ from token \d+ on"):
        counted.session.stream([{"role": "user", "content": "blue"}], prefix=prefix)


def test_templates_and_choices_use_prefixes_too(counted: Counted) -> None:
    session, store = counted.session, Prefixes()
    for _ in range(2):
        filled = session.infill("red <gap:2> blue", "Write words.", prefix=store)
        assert filled.text == session.infill("red <gap:2> blue", "Write words.").text
        chosen = session.choose("red or blue?", ["red", "blue"], prefix=store)
        assert chosen == pytest.approx(session.choose("red or blue?", ["red", "blue"]), rel=1e-4)
    before = counted.encoded
    session.choose("red or blue?", ["red", "blue"], prefix=store)
    assert counted.encoded - before == 1


def test_choosing_first_spares_the_answer_the_prompt(counted: Counted) -> None:
    session, store = counted.session, Prefixes()
    session.choose("red or blue?", ["red", "blue"], prefix=store)
    answer = session.generate("red or blue?", prefix=store, choices=("red", "blue"))
    assert answer.stats.reused_tokens == answer.stats.prompt_tokens - 1


def test_a_prefix_shares_its_arrays_until_somebody_writes(counted: Counted) -> None:
    session = counted.session
    prefix = session.read([{"role": "user", "content": "red green blue " * 40}])
    assert prefix.cache is not None
    mx.clear_cache()
    before = mx.get_active_memory()
    snapshots = [prefix.cache.snapshot() for _ in range(100)]
    assert mx.get_active_memory() == before
    assert sum(each.nbytes for each in snapshots) == 100 * prefix.nbytes > 1_000_000
