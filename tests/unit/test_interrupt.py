"""Ctrl-C between two events: what is accepted until then is the answer, and so is text that was held back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mlx_diffgemma.cli.interrupt import Interrupt
from mlx_diffgemma.completion import gather
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event
from mlx_diffgemma.text.until_stop import UntilStop

BLOCK = BlockCommitted(block=0, steps=1, tokens=(5, 6), last=False, text="one ", undecided="EN")
NOISE = CanvasStarted(block=1, canvas=(7, 8, 9))
DRAFT = Denoised(
    block=1,
    step=1,
    max_steps=8,
    best=(7, 8, 9),
    accepted=(True, True, False),
    changed=(True, True, True),
    mean_entropy=1.0,
    pieces=("D", "ED", "?"),
    undecided="EN",
)


def interrupted_after(*events: Event) -> str:
    """Return the text of an answer when Ctrl-C is pressed after the last of these events."""
    interrupt = Interrupt()

    def pressed() -> Iterator[Event]:
        for number, event in enumerate(events, start=1):
            interrupt.noted = number == len(events)
            yield event

    completion = gather(interrupt.until(pressed()), seed=0)
    assert completion.finish_reason == "interrupted"
    return completion.text


def test_accepted_positions_follow_the_text_that_was_held_back() -> None:
    assert interrupted_after(BLOCK, NOISE, DRAFT) == "one ENDED"


def test_text_that_was_held_back_is_not_lost_between_two_canvases() -> None:
    assert interrupted_after(BLOCK) == "one EN"
    assert interrupted_after(BLOCK, NOISE) == "one EN"


def test_text_is_not_held_back_twice() -> None:
    assert interrupted_after(BLOCK, NOISE, DRAFT, replace(BLOCK, block=1, text="ENDED", undecided="")) == "one ENDED"


def test_a_stop_string_of_the_draft_is_no_part_of_what_was_held_back() -> None:
    until_stop = UntilStop(["END"])
    assert until_stop.take("one EN", last=False) == "one "
    assert until_stop.held == "EN"
    assert until_stop.cut(("D", "ED"), 0) == ("", ("", ""))
    assert until_stop.cut(("?", "D"), 0) == ("EN", ("?", "D"))
    assert until_stop.take("D", last=False) == ""
    assert until_stop.held == ""
