"""Filling the gaps of a template: with a model that is random, and with the demo, which knows what belongs there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from threaded import taken_in_threads
from tiny import denoised, encoded, random_model, tiny_config

import mlx_diffgemma
from mlx_diffgemma import Denoised, Gap, Session, load
from mlx_diffgemma.errors import DiffGemmaError, OptionError, PromptError, TemplateError
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Finished, GapFilled, Prefilled
from mlx_diffgemma.generation.prefill import following
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.infilling import candidates, filling, search
from mlx_diffgemma.infilling.candidates import Candidate, CanvasTask
from mlx_diffgemma.text.tokenizer import load_tokenizer

DEMO = Path(mlx_diffgemma.__file__).parent / "demo"
CONFIG = GenerationConfig(max_steps=3, stop_tokens=(1, 106), max_tokens=20)


@pytest.fixture(scope="module")
def demo() -> Session:
    return load("demo")


@pytest.fixture(scope="module")
def wild() -> Session:
    """Random weights, canvases of 16: it fills gaps with whatever is allowed, bytes of characters too."""
    return Session(random_model(tiny_config(vocab_size=888)), load_tokenizer(DEMO), CONFIG)


TEMPLATES = [
    "def area(w, h):\r\n\treturn <gap:3>\r\n",
    " leading <gap:1> and trailing \n\n",
    "漢字<gap:4>かな<gap:2>。",
    "👩‍👩‍👧‍👦<gap:3>🙂",
    "<gap:2><gap:1-3>x",
    "text before that no canvas holds, at all " * 3 + "<gap:2>" + " and text behind that none holds " * 3 + "<gap> end",
    "<gap:40>x",
    "<turn|><bos> <gap:2> <eos>",
    "ends in <gap>",
    "ends in <gap:5>",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_text_around_the_gaps_is_there_byte_for_byte(wild: Session, template: str) -> None:
    from mlx_diffgemma.infilling.template import filled, parse

    parts = parse(template)
    events = list(wild.stream_infill(template, "Go on."))
    fillings = [event.text for event in events if isinstance(event, GapFilled)]
    assert [event.gap for event in events if isinstance(event, GapFilled)] == list(range(len(fillings)))
    whole = filled(parts, fillings)
    assert wild.infill(template, "Go on.").text == whole
    # What is shown block by block is the same text.
    assert "".join(event.text for event in events if isinstance(event, BlockCommitted)) == whole
    assert isinstance(events[-1], Finished)
    assert [event.last for event in events if isinstance(event, BlockCommitted)].count(True) == 1
    for event in events:
        if isinstance(event, Denoised):
            assert all(sure for sure, pinned in zip(event.accepted, event.pinned, strict=True) if pinned)
    sizes = {gap: event.tokens for gap, event in enumerate(e for e in events if isinstance(e, GapFilled))}
    for number, gap in enumerate(part for part in parts if isinstance(part, Gap)):
        if gap.max_tokens is not None:
            assert gap.min_tokens <= sizes[number] <= gap.max_tokens


def watch_candidates(monkeypatch: pytest.MonkeyPatch, seen: list[tuple[CanvasTask, bool]]) -> None:
    """Note for every candidate that is started what it is for, and whether its characters must be whole."""

    def watched(task: CanvasTask, lengths: tuple[int, ...], *, whole_characters: bool) -> Candidate:
        seen.append((task, whole_characters))
        return candidates.start_candidate(task, lengths, whole_characters=whole_characters)

    for module in (search, filling):
        monkeypatch.setattr(module, "start_candidate", watched)


def test_a_filling_that_is_no_text_is_denoised_again_without_parts_of_characters(
    wild: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of random weights one in seven tokens is such a part: it needs no luck to meet one."""
    seen: list[tuple[CanvasTask, bool]] = []
    watch_candidates(monkeypatch, seen)
    for seed in range(4):
        wild.infill("a<gap:12>b", "Go on.", replace(CONFIG, seed=seed)).text.encode()
    assert True in [whole_characters for _, whole_characters in seen]


def test_the_cache_after_a_window_is_that_of_its_text(wild: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next canvas sees the same prefix as after encoding prompt and text in one go."""
    seen: list[tuple[CanvasTask, bool]] = []
    watch_candidates(monkeypatch, seen)
    parts = ("one two three ", Gap(2, 2), " and " * 30, Gap(1, 1), " end")
    committed: list[int] = []
    boundaries = wild.preparation.boundaries(CONFIG)
    for event in filling.fill_template(
        wild.model, boundaries, wild.tokens("Go on."), boundaries.token_parts(parts), CONFIG
    ):
        if isinstance(event, CanvasStarted) and event.block == 1:
            break
        if isinstance(event, BlockCommitted):
            committed += event.tokens
    plain = wild.model.make_cache()
    encoded(wild.model, mx.array([[*wild.tokens("Go on."), *committed]]), plain)
    canvas = mx.arange(16)[None]
    cache = seen[-1][0].before.cache
    assert cache.offset == plain.offset
    difference = mx.abs(denoised(wild.model, canvas, cache) - denoised(wild.model, canvas, plain)).max().item()
    assert difference < 1e-3


def test_a_candidate_is_judged_as_the_encoder_finds_its_text(wild: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = wild.tokens("Go on.")
    scores: dict[tuple[int, ...], float] = {}

    def watched(task: CanvasTask, candidate: Candidate) -> None:
        candidates.judge(task, candidate)
        scores[candidate.best] = candidate.score

    for module in (search, filling):
        monkeypatch.setattr(module, "judge", watched)
    list(wild.stream_infill(("a ", Gap(1, 3), " b"), "Go on."))
    assert len(scores) >= 3
    for tokens, score in scores.items():
        hidden = encoded(wild.model, mx.array([[*prompt, *tokens]]), wild.model.make_cache())
        likely = following(wild.model, hidden[:, len(prompt) - 1 : -1], mx.array([tokens]))
        assert likely.mean().item() == pytest.approx(score, abs=1e-3)


def test_the_same_seed_fills_the_same_and_any_thread_may_take_the_events(wild: Session) -> None:
    expected = list(wild.stream_infill("a <gap:1-4> b", "Go on."))
    taken = taken_in_threads(wild.stream_infill("a <gap:1-4> b", "Go on."))
    assert taken[:-1] == expected[:-1]
    other = wild.infill("a <gap:9> b", "Go on.", replace(CONFIG, seed=7)).text
    assert other != wild.infill("a <gap:9> b", "Go on.").text


def test_the_events_come_in_their_order(wild: Session) -> None:
    kinds = [type(event) for event in wild.stream_infill("long text " * 20 + "<gap:2> end", "Go on.")]
    merged = [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind is not before]
    assert merged == [Prefilled, BlockCommitted, CanvasStarted, Denoised, BlockCommitted, GapFilled, Finished]


@pytest.mark.parametrize(
    ("config", "template", "error", "message"),
    [
        (replace(CONFIG, mode="causal"), "a<gap>", OptionError, "mode='causal' cannot fill gaps"),
        (replace(CONFIG, mode="speculative"), "a<gap>", OptionError, "mode='speculative' cannot fill gaps"),
        (replace(CONFIG, verify=0.1), "a<gap>", OptionError, "verify cuts a canvas"),
        (replace(CONFIG, canvas_length=17), "a<gap>", OptionError, "canvas_length=17 is longer than the 16 positions"),
        (
            CONFIG,
            "a " * 400 + "<gap>",
            PromptError,
            "the prompt and the text around the gaps need [0-9]+ positions, and the model has 512: give a part",
        ),
        (CONFIG, "a", TemplateError, "the template has no gap"),
        (replace(CONFIG, raw=True, canvas_length=8), "a<gap:3>", None, ""),
        (replace(CONFIG, stop_tokens=()), "a<gap:3>b", None, ""),
        (replace(CONFIG, stop_tokens=()), "a<gap:3>", None, ""),
    ],
)
def test_what_cannot_be_filled_is_refused_at_once(
    wild: Session, config: GenerationConfig, template: str, error: type[DiffGemmaError] | None, message: str
) -> None:
    if error is None:
        assert wild.infill(template, "Go on.", config).gaps
        return
    with pytest.raises(error, match=message):
        wild.stream_infill(template, "Go on.", config)


def test_an_edit_leaves_every_other_character_as_it_was(wild: Session) -> None:
    text = "eins 漢字\r\nzwei 🙂 drei\n"
    for span in [(0, 4), (5, 7), (14, 15), (3, 3), (len(text), len(text)), (0, len(text))]:
        edited = wild.edit(text, "Anders.", span)
        assert edited.text == text[: span[0]] + edited.gaps[0] + text[span[1] :]
    with pytest.raises(TemplateError, match="the span 3:99 is outside the text"):
        wild.edit(text, "Anders.", (3, 99))
    assert len(wild.tokenizer.literal(wild.edit("a b c", "Anders.", (2, 3), gap=Gap(2, 2)).gaps[0])) + 1 >= 2


# the demo


def test_the_demo_fills_what_is_missing_whatever_its_length(demo: Session) -> None:
    record = demo.infill(
        '{"name": "Ada", "age": <gap:1-4>, "city": "<gap:1-2>"}', "Give JSON: Ada is 33 and lives in Oslo."
    )
    assert record.text == '{"name": "Ada", "age": 33, "city": "Oslo"}'
    assert record.gaps == ("33", "Oslo")
    assert record.finish_reason == "stop"
    function = demo.infill(
        "def area(width, height):\n    return <gap>", "Write a Python function area that multiplies width and height"
    )
    assert function.gaps == ("width * height",)


def test_the_demo_rewrites_a_span_as_the_prompt_asks(demo: Session) -> None:
    """It knows no instructions to edit: the prompt is one that it does know."""
    parts = demo.edit_template("12 13 99 15 16 17", (6, 8), Gap(2, 2))
    assert parts == ("12 13 ", Gap(2, 2), " 15 16 17")
    events = demo.stream_infill(parts, "Count from 12 to 17")
    assert [event.text for event in events if isinstance(event, GapFilled)] == ["14"]
