"""The smaller measuring programs: what they conclude from what they saw, and that they run."""

from __future__ import annotations

import sys
from statistics import fmean

import conditioning
import demo_options
import endurance
import pytest
import side_by_side
from demo_accuracy import Answer, Asked
from demo_model.questions import Question
from endurance import Ten

from mlx_diffgemma import Session, load


@pytest.fixture(scope="module")
def trained() -> Session:
    """The model in the package."""
    return load("demo")


def test_the_last_tens_are_held_against_the_first_without_the_very_first() -> None:
    seconds = [9.0, 2.0, 2.2, 2.1, 5.0, 5.0, 5.0, 3.3, 3.0, 3.1, 3.2, 3.0, 3.0, 3.0, 3.0]
    tens = [Ten(seconds=taken, resident=100 + place) for place, taken in enumerate(seconds)]
    slower, larger = endurance.ratios(tens)
    assert slower == pytest.approx(3.0 / 2.1)
    assert larger == pytest.approx(114 / 103)


def test_too_few_generations_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["endurance.py", "--generations", "29"])
    with pytest.raises(SystemExit):
        endurance.main()
    assert "--generations 29: give 30 or more" in capsys.readouterr().err


def test_steps_are_counted_per_answer_and_options_stand_beside_the_reference() -> None:
    question = Question(kind="sums", prompt="What is 1 + 1?", answer="1 + 1 = 2", content="1 + 1")

    def asked(text: str, *steps: int) -> Asked:
        answers = [Answer(question=question, text=text, right=text == question.answer, steps=steps)]
        return Asked(answers=answers, seconds=1.0)

    slow = demo_options.Effect(name="reference", asked=dict.fromkeys(demo_options.KINDS, asked("1 + 1 = 2", 4, 4)))
    fast = demo_options.Effect(name="trim", asked=dict.fromkeys(demo_options.KINDS, asked("1 + 1 = 3", 2)))
    assert (slow.steps, fast.steps) == (8, 2)
    right, same, steps, *rest = (list(column.cells) for column in demo_options.table([slow, fast]).columns[-5:])
    assert (right, same, steps) == (["100.0", "0.0"], ["100.0", "0.0"], ["8.00", "2.00"])
    assert rest == [["1.00", "0.25"], ["6", "6"]]


def test_the_exact_signal_has_no_error_and_fewer_tokens_have_more(trained: Session) -> None:
    (processed, *_) = conditioning.steps(trained, "What is 47 + 38?", 0)
    alone, some, most, everything = (conditioning.errors(trained, processed, count) for count in (1, 8, 64, 1024))
    assert max(everything) == 0
    assert max(alone) > max(some) > max(most)
    # A signal of 64 tokens leaves out less than float32 rounds to in most positions: 1e-6 of it is asked for.
    assert fmean(most) < 1e-6


def test_options_change_what_they_name_and_nothing_else(trained: Session) -> None:
    (effect,) = demo_options.effects(trained, 1, ["stability_threshold=0"])
    assert set(effect.asked) == set(demo_options.KINDS)
    # Without a second look a canvas whose first draft is sure is over at once; the reference looks at two drafts.
    steps = [steps for given in effect.asked.values() for answer in given.answers for steps in answer.steps]
    assert min(steps) == 1


def test_answers_side_by_side_are_timed_against_the_same_answers_one_by_one(trained: Session) -> None:
    prompts = ["What is 47 + 38?", "Sort: pear, fig", "Hello"]
    (turn,) = side_by_side.turns(trained, prompts, 3, 1)
    assert turn.ratio == pytest.approx(turn.alone / turn.together)
    assert turn.together > 0
