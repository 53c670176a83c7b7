"""The page of a report: figures beside what was estimated for this chip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_diffgemma.machine_report.page import page
from mlx_diffgemma.machine_report.pictures import draw_report
from mlx_diffgemma.machine_report.predictions import predictions
from mlx_diffgemma.machine_report.record import ReportRecord, StepResult

RELEASE = 15_400_000_000


@pytest.mark.parametrize(
    ("device", "chip"),
    [("Apple M3 Pro", "M3 Pro"), ("Apple M5 Max", "M5 Max"), ("Apple M2 Max", None), ("AMD EPYC", None), ("", None)],
)
def test_estimates_are_those_of_the_chip(device: str, chip: str | None) -> None:
    found = predictions(device, RELEASE)
    assert found.chip == chip
    assert (found.seconds(256, 1024) is None) == (chip is None)


def test_estimates_are_for_the_released_model_in_4_bits_alone() -> None:
    found = predictions("Apple M3 Pro", RELEASE)
    assert found.seconds(256, 1024) == 0.769
    assert found.seconds(256, 1) == found.seconds(256, 0) == 0.727
    assert found.seconds(64, 32_768) == 0.409
    assert found.seconds(128, 1024) is None
    assert found.ratios == {"steps-24": 1.57, "steps-16": 2.0}
    for weights in (8_000_000, 26_900_000_000, None):
        assert predictions("Apple M3 Pro", weights).chip is None
        assert predictions("Apple M3 Pro", weights).ratios == {}


def figures(steps: float, seconds: float) -> dict[str, Any]:
    return {
        "accepted": 5, "answers": 6, "acceptance": 5 / 6, "steps_per_canvas": steps, "tokens_per_forward": 9.0,
        "tokens_per_second": 12.5, "p50_seconds": seconds,
    }  # fmt: skip


def record() -> ReportRecord:
    points = [
        {"canvas": canvas, "prefix": prefix, "seconds_per_step": seconds, "peak_memory": peak}
        for canvas, prefix, seconds, peak in (
            (64, 1, 0.33, 16_000_000_000),
            (256, 1, 0.70, 17_000_000_000),
            (256, 32_768, 1.02, 18_500_000_000),
        )
    ]
    speed = {
        "models": [
            {
                "weights_bytes": RELEASE,
                "load_seconds": 11.5,
                "prefill": [{"tokens": 2048, "tokens_per_second": 321.0, "peak_memory": 17_200_000_000}],
                "steps": points,
            }
        ]
    }
    answers = [{"models": [{"all": figures(steps, seconds)}]} for steps, seconds in ((26.0, 20.0), (20.0, 13.0))]
    memory = {"early_memory": 10, "late_memory": 10, "early_seconds": 1.0, "late_seconds": 1.02}
    return ReportRecord(
        model="diffusiongemma-4bit",
        machine={"device": "Apple M3 Pro"},
        begun="2026-11-28T09:00:00+01:00",
        steps={
            "speed": StepResult(state="done", result=speed),
            "answers": StepResult(state="done", result=answers[0]),
            "steps-24": StepResult(state="cut short", reason="ended after 300 s", result=answers[1]),
            "steps-16": StepResult(state="failed", reason="signal 9"),
            "endurance": StepResult(state="done", result={"answers": 50, "peak_resident": 17_000_000_000, **memory}),
        },
    )


def test_the_page_has_every_figure_beside_its_estimate() -> None:
    text = page(record(), "Apple M3 Pro (gpu, 36 GiB)", [Path("steps.png")])
    for line in (
        "| 256 | 1 | 700.0 | 727 | 0.96 |",
        "| 256 | 32,768 | 1,020.0 | 1,130 | 0.90 |",
        "| 2,048 | 321.0 |",
        "| at most 48 steps | 5/6 | 26.0 | 9.0 | 12.5 | 20.00 | 1.00 | – |",
        "| at most 24 steps | 5/6 | 20.0 | 9.0 | 12.5 | 13.00 | 1.54 | 1.57 |",
        "- weights 15.40 GB, loaded in 11.5 s",
        "- most memory of a step after 32,768 tokens: 18.50 GB",
        "- 50 answers in one process: the last ten take 1.02 of the time of early ones, memory +0.0 MB, "
        "most resident 17.00 GB",
        "- at most 24 steps: cut short: ended after 300 s",
        "- at most 16 steps: failed: signal 9",
        "- causal mode: not begun",
        "![steps](steps.png)",
    ):
        assert line in text.splitlines(), line
    assert "at most 16 steps |" not in text
    assert "Estimated for M3 Pro on 2026-11-25. " in text


def test_a_report_of_nothing_says_so() -> None:
    empty = ReportRecord(model="demo", machine={}, begun="now")
    text = page(empty, "a machine", [])
    assert "## Speed" not in text and "## Answers" not in text
    assert "There is no estimate for this chip and this model to compare with." in text


def test_pictures_show_steps_and_limits(tmp_path: Path) -> None:
    drawn = draw_report(record(), tmp_path)
    assert [file.name for file in drawn] == ["steps.png", "limits.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in drawn)
    assert draw_report(ReportRecord(model="demo", machine={}, begun="now"), tmp_path) == []
