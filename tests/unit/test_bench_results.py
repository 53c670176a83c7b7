"""What a benchmark computes and decides: percentiles, cost, retries, sizes that fit, what is left out."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from benched import AUTOREGRESSIVE, DIFFUSION, ScriptedSubject, attempt, found, point, reply

from mlx_diffgemma.benchmark import measure, run
from mlx_diffgemma.benchmark.answers import Asking, ask
from mlx_diffgemma.benchmark.baseline import BaselineChoice
from mlx_diffgemma.benchmark.checks import ExactCheck
from mlx_diffgemma.benchmark.diffusion import Diffusion, ModelChoice
from mlx_diffgemma.benchmark.measure import Sizes, fit, read_sizes, time_prefill, time_steps
from mlx_diffgemma.benchmark.results import Attempt, Point, figures, percentile, short_names
from mlx_diffgemma.benchmark.run import BenchmarkPlan
from mlx_diffgemma.benchmark.subject import repeated, steady
from mlx_diffgemma.benchmark.suite import Case, Suite
from mlx_diffgemma.errors import BenchmarkError, OptionError, OutOfMemoryError
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.session import Session

PLAN = BenchmarkPlan(
    source=ModelChoice(model="demo"),
    baseline=None,
    suite=None,
    only=None,
    sizes=None,
    answers=True,
    repeats=3,
    retries=3,
    seed=0,
    max_tokens=None,
)
YES = Case(name="chat", prompt="yes or no", check=ExactCheck(text="yes"))

# figures


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([3.0], 95, 3.0), ([1.0, 2.0], 50, 1.5), ([4.0, 1.0, 2.0], 50, 2.0), ([float(n) for n in range(101)], 95, 95.0)],
)
def test_percentiles(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_percentiles_are_numpys() -> None:
    values = [0.3, 12.0, 4.5, 4.4, 7.25, 0.1, 9.75]
    for percent in (0, 5, 37, 50, 95, 99, 100):
        assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_cost_is_all_seconds_by_accepted_answers() -> None:
    attempts = [
        attempt(refusal="no", said=reply(seconds=3.0)),
        attempt(said=reply(seconds=5.0)),
        attempt(answer=1, said=reply(seconds=2.0)),
        attempt("other", refusal="no", said=reply(seconds=10.0)),
    ]
    these = figures(attempts)
    assert (these.answers, these.accepted, these.attempts) == (3, 2, 4)
    assert (these.seconds, these.cost_seconds, these.acceptance) == (20.0, 10.0, pytest.approx(2 / 3))
    assert (these.p50_seconds, these.p95_seconds, these.first_seconds) == (4.0, pytest.approx(9.25), 2.0)
    assert (these.tokens, these.tokens_per_second) == (160, 8.0)
    assert these.tokens_per_forward == pytest.approx(40 / 14)
    assert these.steps_per_canvas == 7.0


def test_there_is_no_cost_without_an_accepted_answer_and_no_canvas_without_one() -> None:
    these = figures([attempt(refusal="no", said=reply(canvases=0, forwards=40))])
    assert (these.accepted, these.cost_seconds, these.steps_per_canvas, these.tokens_per_forward) == (
        0,
        None,
        None,
        1.0,
    )


def test_steps_are_told_apart_by_canvas_and_by_prefix() -> None:
    assert [at.canvas for at in DIFFUSION.by_canvas] == [64, 256]
    assert [at.prefix for at in DIFFUSION.by_prefix] == [512, 8192]
    assert DIFFUSION.by_prefix[0].median == 0.97
    assert DIFFUSION.prefill[0].tokens_per_second == pytest.approx(512 / 1.3)
    empty = replace(DIFFUSION, steps=())
    assert (empty.by_canvas, empty.by_prefix) == ((), ())


def test_peak_memory_is_that_of_everything_measured() -> None:
    assert DIFFUSION.peak_memory == 19_000_000_000
    assert replace(DIFFUSION, steps=()).peak_memory == 17_500_000_000
    assert replace(DIFFUSION, steps=(), prefill=()).peak_memory == 17_030_000_000


def test_names_are_short_where_that_tells_them_apart() -> None:
    assert short_names([DIFFUSION, AUTOREGRESSIVE]) == ["diffusiongemma-4bit", "gemma-4"]
    other = replace(DIFFUSION, loaded=replace(DIFFUSION.loaded, model="b/diffusiongemma-4bit/"))
    assert short_names([DIFFUSION, other]) == ["models/diffusiongemma-4bit", "b/diffusiongemma-4bit/"]
    assert found(DIFFUSION).models[0].attempts_at("chat") == DIFFUSION.attempts[:2]


# answers


def asked(script: Sequence[str], *, repeats: int = 1, retries: int = 3, **changes: object) -> list[Attempt]:
    subject = ScriptedSubject(script=script, **changes)
    return list(ask(subject, YES, Asking(max_tokens=7, repeats=repeats, retries=retries, seed=10)))


def test_an_answer_is_tried_until_it_is_accepted() -> None:
    attempts = asked(["no", "no", "yes", "unasked"])
    assert [(one.reply.text, one.seed, one.last) for one in attempts] == [
        ("no", 10, False),
        ("no", 11, False),
        ("yes", 12, True),
    ]
    assert [one.refusal for one in attempts] == ["not 'yes'", "not 'yes'", None]
    assert figures(attempts).cost_seconds == 1.0 + 2.0 + 3.0


def test_retries_end_and_every_attempt_has_its_own_seed() -> None:
    attempts = asked(["no"], repeats=2, retries=2)
    assert [(one.answer, one.seed, one.last) for one in attempts] == [
        (0, 10, False),
        (0, 11, True),
        (1, 12, False),
        (1, 13, True),
    ]
    accepted = asked(["yes", "no", "yes"], repeats=2, retries=2)
    assert [(one.answer, one.seed) for one in accepted] == [(0, 10), (1, 12), (1, 13)]


def test_what_no_seed_can_change_is_asked_once() -> None:
    assert len(asked(["no"], repeats=2, retries=5, varies=False)) == 2


def test_a_prompt_may_have_its_own_length() -> None:
    subject = ScriptedSubject()
    asking = Asking(max_tokens=7, repeats=1, retries=1, seed=0)
    list(ask(subject, YES, asking))
    list(ask(subject, replace(YES, max_tokens=99), asking))
    assert [longest for _, longest, _ in subject.asked] == [7, 99]


def test_a_prompt_may_have_its_own_seed() -> None:
    asking = Asking(max_tokens=7, repeats=2, retries=2, seed=10)
    attempts = list(ask(ScriptedSubject(script=["no"]), replace(YES, seed=100), asking))
    assert [one.seed for one in attempts] == [110, 111, 112, 113]


# sizes


def test_sizes_are_numbers_with_commas() -> None:
    assert read_sizes("--lengths", "512, 64,64") == (64, 512)
    for text in ("", "64,", "a", "0", "-3,64", "1.5"):
        with pytest.raises(OptionError, match=r"^--lengths .*: give whole numbers above 0, separated by commas$"):
            read_sizes("--lengths", text)


def test_what_a_model_can_hold_is_measured_and_the_rest_is_named() -> None:
    fitting = fit(ScriptedSubject(context=1000, canvas=64), Sizes(lengths=(100, 1000, 1001), prefixes=(100, 936, 937)))
    assert fitting.lengths == (100, 1000)
    assert fitting.steps == ((100, 8), (100, 16), (100, 32), (100, 64), (936, 64))
    assert fitting.dropped == (
        "prefill of 1,001 tokens: models/diffusiongemma-4bit holds 1,000 tokens",
        "prefix of 937 tokens: models/diffusiongemma-4bit holds 1,000 tokens, a canvas of 64 among them",
    )


def test_canvases_that_are_too_long_are_named() -> None:
    some = fit(ScriptedSubject(canvas=64), Sizes(lengths=(10,), prefixes=(10, 20), canvases=(16, 128, 2048)))
    assert some.steps == ((10, 16), (20, 16))
    assert some.dropped == ("canvas of 128 and 2,048 tokens: models/diffusiongemma-4bit denoises 64 positions at most",)
    none = fit(ScriptedSubject(canvas=64), Sizes(lengths=(10,), prefixes=(10,), canvases=(128,)))
    assert (none.steps, len(none.dropped)) == ((), 1)


def test_a_model_without_canvas_is_measured_token_by_token() -> None:
    fitting = fit(ScriptedSubject(canvas=1), Sizes(lengths=(10,), prefixes=(10, 20), canvases=(16, 32)))
    assert (fitting.steps, fitting.dropped) == (((10, 1), (20, 1)), ())


def test_the_shortest_canvas_is_one_position() -> None:
    assert fit(ScriptedSubject(canvas=4), Sizes(lengths=(9,), prefixes=(9,))).steps == ((9, 1), (9, 2), (9, 4))


# timing


def test_a_prefill_is_repeated_after_a_warm_up_while_patience_lasts() -> None:
    subject = ScriptedSubject()
    quick = time_prefill(subject, 100)
    assert isinstance(quick, Point)
    assert quick.seconds == (1.0,) * measure.PREFILLS
    assert subject.prefilled == [100] * (measure.PREFILLS + 1)
    slow = time_prefill(subject, 600)
    assert isinstance(slow, Point)
    assert slow.seconds == (6.0, 6.0)
    slowest = time_prefill(subject, 2000)
    assert isinstance(slowest, Point)
    assert slowest.seconds == (20.0,)


def test_what_does_not_fit_into_memory_is_an_error_that_is_returned() -> None:
    subject = ScriptedSubject(full=500)
    failed = time_prefill(subject, 501)
    assert isinstance(failed, OutOfMemoryError)
    assert str(failed) == "out of memory while measuring 501 tokens: shorter ones are measured"
    assert isinstance(time_steps(subject, 501, 64), OutOfMemoryError)
    fits = time_steps(subject, 500, 64)
    assert isinstance(fits, Point)
    assert fits == point(500, 64, *[0.064] * measure.STEPS, peak_memory=fits.peak_memory)


def test_the_first_two_steps_are_left_out_where_there_are_more() -> None:
    assert steady([0.0, 9.0, 11.0, 12.0, 14.0]) == [1.0, 2.0]
    assert steady([0.0, 9.0, 11.0]) == [2.0]
    assert steady([0.0, 9.0]) == [9.0]


def test_a_prefix_is_a_text_again_and_again() -> None:
    assert repeated([2, 5, 7], 7) == [2, 5, 7, 2, 5, 7, 2]


# plans


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 0}, "repeats=0 must be at least 1"),
        ({"retries": 0}, "retries=0 must be at least 1"),
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"seed": 2**64 - 8}, "seed=18446744073709551608 is too large: the last attempt's must be below 2\\*\\*64"),
        ({"answers": False}, "neither speeds nor answers: there is nothing to measure"),
    ],
)
def test_plans_that_cannot_be_meant_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}$"):
        replace(PLAN, **changes)


def test_options_out_of_range_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(OptionError, match="max_steps=0 must be at least 1"):
        ModelChoice(model="demo", choices={"max_steps": 0})


# runs


class Loaders:
    """Gives out scripted subjects in place of loaded models, and holds on to none of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[weakref.ref[ScriptedSubject]] = []
        self.alive: list[int] = []
        other = AUTOREGRESSIVE.loaded
        monkeypatch.setattr(run, "check_baseline", lambda _: None)
        monkeypatch.setattr(run, "load_diffusion", lambda _: self._give(ScriptedSubject(full=300)))
        monkeypatch.setattr(
            run, "load_baseline", lambda _: self._give(ScriptedSubject(full=300, canvas=1, loaded=other))
        )

    def _give(self, subject: ScriptedSubject) -> ScriptedSubject:
        self.alive.append(sum(given() is not None for given in self.given))
        self.given.append(weakref.ref(subject))
        return subject


TWO = replace(
    PLAN,
    baseline=BaselineChoice(model="hub/gemma-4"),
    suite=Suite(name="mine", cases=(YES, replace(YES, name="word", prompt="yes"), replace(YES, name="no"))),
    sizes=Sizes(lengths=(200, 400), prefixes=(200, 400)),
    repeats=1,
    retries=1,
)


def test_both_models_go_through_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    loaders = Loaders(monkeypatch)
    findings = run.Findings()
    for event in run.run_benchmark(TWO):
        findings.add(event)
    benchmark = findings.benchmark(whole=True)
    assert benchmark is not None
    assert (benchmark.suite, benchmark.prompts) == ("mine", ("chat", "word", "no"))
    assert benchmark.asking == {"max_tokens": 77, "repeats": 1, "retries": 1, "seed": 0}
    for model in benchmark.models:
        assert [at.prefix for at in model.prefill] == [200]
        assert {at.prefix for at in model.steps} == {200}
        assert [(one.prompt, one.accepted) for one in model.attempts] == [("chat", True), ("no", True)]
    assert benchmark.dropped == (
        "prompt word for models/diffusiongemma-4bit: 'yes' and 77 tokens do not fit",
        "out of memory while measuring 400 tokens: shorter ones are measured",
        "out of memory while thinking",
        "prompt word for hub/gemma-4: 'yes' and 77 tokens do not fit",
        "out of memory while measuring 400 tokens: shorter ones are measured",
        "out of memory while thinking",
    )
    # One model is in memory at a time.
    assert loaders.alive == [0, 0]


def test_a_run_that_ended_early_has_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    Loaders(monkeypatch)
    findings = run.Findings()
    for event in run.run_benchmark(TWO):
        findings.add(event)
        if isinstance(event, run.Began) and event.what == "prefill":
            assert findings.benchmark(whole=False) is None
        if isinstance(event, run.PrefillTimed):
            break
    benchmark = findings.benchmark(whole=False)
    assert benchmark is not None
    assert (benchmark.whole, len(benchmark.models), len(benchmark.models[0].prefill)) == (False, 1, 1)


def test_parts_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    Loaders(monkeypatch)
    speeds = [type(event).__name__ for event in run.run_benchmark(replace(TWO, answers=False, baseline=None))]
    assert speeds == ["Began", "Loaded", "Began", "PrefillTimed", "Dropped", "Began", *["StepsTimed"] * 4, "Dropped"]
    Loaders(monkeypatch)
    answers = [type(event).__name__ for event in run.run_benchmark(replace(TWO, sizes=None, baseline=None, only="o"))]
    assert answers == ["Began", "Loaded", "SuiteChosen", "Dropped", "Began", "Attempt"]


def test_the_given_length_goes_over_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    Loaders(monkeypatch)
    own = Suite(name="mine", cases=(replace(YES, max_tokens=99),))
    for wanted, expected in ((None, 99), (5, 5)):
        plan = replace(TWO, suite=own, max_tokens=wanted, baseline=None, sizes=None)
        [chosen] = [event for event in run.run_benchmark(plan) if isinstance(event, run.SuiteChosen)]
        assert [case.max_tokens for case in chosen.suite.cases] == [expected]


def test_a_name_that_no_prompt_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Loaders(monkeypatch)
    with pytest.raises(OptionError, match="only='x' is in no name of the suite mine: chat, word, no"):
        list(run.run_benchmark(replace(TWO, only="x", baseline=None)))


def test_the_suite_is_chosen_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_diffusion", lambda _: pytest.fail("loaded"))
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    monkeypatch.setitem(sys.modules, "jsonschema.exceptions", None)
    with pytest.raises(BenchmarkError, match=r"a json_schema check needs more packages: pip install"):
        list(run.run_benchmark(replace(PLAN, suite="full")))
    with pytest.raises(OptionError, match="only='x' is in no name of the suite demo: sudoku, sum, json, count, "):
        list(run.run_benchmark(replace(PLAN, only="x")))


def test_options_go_from_checkpoint_to_prompt_to_command_line() -> None:
    session = SimpleNamespace(defaults=GenerationConfig(max_steps=30, seed=3))
    options = {"max_steps": 4, "until_end": False, "trim": True}
    case = replace(YES, options=options)
    for choices, expected in (
        ({}, {"max_steps": 4, "until_end": False, "trim": True, "seed": 3}),
        ({"max_steps": 9}, {"max_steps": 9, "until_end": False, "trim": True, "seed": 3}),
        ({"max_steps": 9, "exact": True}, {"max_steps": 9, "until_end": False, "trim": False, "seed": 3}),
        ({"max_steps": 9, "fast": True}, {"max_steps": 9, "min_steps": 8, "first_canvas": 64, "trim": True}),
    ):
        choice = ModelChoice(model="demo", choices=choices)
        subject = Diffusion(
            session=cast("Session", session),
            choice=choice,
            config=choice.over(session.defaults),
            loaded=DIFFUSION.loaded,
            text=[],
        )
        made = subject.config_for(case)
        assert {name: getattr(made, name) for name in expected} == expected
