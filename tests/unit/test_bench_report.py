"""How a benchmark's figures are printed, to the letter; what --json holds; what the picture is."""

from __future__ import annotations

import io
import json
import re
import struct
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from benched import AUTOREGRESSIVE, DIFFUSION, MACHINE, attempt, found, reply
from matplotlib.figure import Figure
from rich.console import Console

from mlx_diffgemma.benchmark.plot import check_plot_file, save_plot
from mlx_diffgemma.benchmark.report import as_object, notes, show
from mlx_diffgemma.benchmark.results import Benchmark, Figures, Measured
from mlx_diffgemma.errors import BenchmarkError
from mlx_diffgemma.training.plot import draw_losses

PNG = b"\x89PNG\r\n\x1a\n"
ALONE = """\
Apple M9 (gpu, 32 GiB), Darwin arm64, mlx-diffgemma 0.1.0, MLX 0.32.4, mlx-lm 0.32.2

 speed                    diffusiongemma-4bit
 ────────────────────────────────────────────
 loading                               11.5 s
 weights in memory                   16.98 GB
 most memory                         19.00 GB
 prefill of 512                     394 tok/s
 prefill of 8,192                   371 tok/s
 step of 64 after 512                  255 ms
 step of 256 after 512                 970 ms
 step of 256 after 8,192               1.21 s


 suite                                      steps/  tokens/
 full   accepted  tries   p50   p95  first  canvas  forward  tok/s  cost
 ───────────────────────────────────────────────────────────────────────
 chat        2/2    1.0  5.00  5.90   2.50     7.0      2.9   8.00  5.00
 count       1/2    1.5  11.0  11.9   5.50     7.0      2.9   3.64  33.0
 all         3/4    1.2  10.0  11.8   5.00     7.0      2.9   4.65  14.3

tries: attempts per answer. p50, p95: seconds from prompt to whole answer. first: to the first
block, of an autoregressive model to the first token. cost: all seconds spent, per accepted answer.
refused: count, diffusiongemma-4bit, 2 of 3: no match for 1 2 3, in '1 2 4'
left out: prefill of 300,000 tokens: diffusiongemma-4bit holds 262,144 tokens
"""
TOGETHER = """\
Apple M9 (gpu, 32 GiB), Darwin arm64, mlx-diffgemma 0.1.0, MLX 0.32.4, mlx-lm
0.32.2

 speed                    diffusiongemma-4bit    gemma-4
 ───────────────────────────────────────────────────────
 loading                               11.5 s     9.80 s
 weights in memory                   16.98 GB   16.00 GB
 most memory                         19.00 GB   17.50 GB
 prefill of 512                     394 tok/s  410 tok/s
 prefill of 8,192                   371 tok/s          –
 step of 64 after 512                  255 ms          –
 step of 256 after 512                 970 ms          –
 step of 256 after 8,192               1.21 s          –
 token after 512                            –    16.0 ms


 suite                                             steps/  tokens/
 full          accepted  tries   p50   p95  first  canvas  forward  tok/s  cost
 ──────────────────────────────────────────────────────────────────────────────
 chat
   diffusiong       2/2    1.0  5.00  5.90   2.50     7.0      2.9   8.00  5.00
   emma-4bit
   gemma-4          1/1    1.0  1.00  1.00   0.12       –      1.0   40.0  1.00
 count
   diffusiong       1/2    1.5  11.0  11.9   5.50     7.0      2.9   3.64  33.0
   emma-4bit
   gemma-4            –      –     –     –      –       –        –      –     –
 all
   diffusiong       3/4    1.2  10.0  11.8   5.00     7.0      2.9   4.65  14.3
   emma-4bit
   gemma-4          1/1    1.0  1.00  1.00   0.12       –      1.0   40.0  1.00

tries: attempts per answer. p50, p95: seconds from prompt to whole answer.
first: to the first block, of an autoregressive model to the first token. cost:
all seconds spent, per accepted answer.
refused: count, diffusiongemma-4bit, 2 of 3: no match for 1 2 3, in '1 2 4'
ended before everything was measured
"""
SLOW_STEPS = replace(DIFFUSION, attempts=())
NO_STEPS = replace(DIFFUSION, steps=())


def printed(benchmark: Benchmark, width: int = 100) -> str:
    """The text on a terminal of `width` columns, without the blanks at the ends of lines."""
    file = io.StringIO()
    show(benchmark, MACHINE, Console(file=file, width=width, highlight=False, force_terminal=True, color_system=None))
    return "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


# the tables


def test_one_model_has_a_row_per_prompt() -> None:
    assert printed(found(dropped=("prefill of 300,000 tokens: diffusiongemma-4bit holds 262,144 tokens",))) == ALONE


def test_a_baseline_stands_beside_it_also_on_eighty_columns() -> None:
    assert printed(found(DIFFUSION, AUTOREGRESSIVE, whole=False), 80) == TOGETHER


def test_without_answers_there_is_no_table_of_them() -> None:
    alone = printed(found(SLOW_STEPS))
    assert "step of 256" in alone
    assert "suite" not in alone
    assert "cost" not in alone


def test_without_steps_the_answers_are_there() -> None:
    alone = printed(found(replace(NO_STEPS, prefill=())))
    assert "prefill" not in alone
    assert "\n all " in alone


def test_a_prompt_that_was_not_asked_has_no_row() -> None:
    assert "\n other " not in printed(found(prompts=("chat", "other", "count")))


def test_prompts_of_a_group_share_a_row_a_note_and_a_place_in_the_object() -> None:
    """The prompts of DIFFUSION, and a third one that is in no group."""
    groups = {"chat": "talk", "count": "talk"}
    benchmark = found(
        replace(DIFFUSION, attempts=(*DIFFUSION.attempts, attempt("alone"))),
        prompts=("chat", "alone", "count"),
        groups=groups,
    )
    assert benchmark.rows == {"talk": ("chat", "count"), "alone": ("alone",)}
    rows = [
        row.split()[:2] for row in printed(benchmark).splitlines() if row.split()[1:2] in (["3/4"], ["1/1"], ["4/5"])
    ]
    assert rows == [["talk", "3/4"], ["alone", "1/1"], ["all", "4/5"]]
    assert notes(benchmark) == ["refused: talk, diffusiongemma-4bit, 2 of 5: no match for 1 2 3, in '1 2 4'"]
    [model] = as_object(benchmark, MACHINE)["models"]
    assert [(answers["prompt"], answers.get("group")) for answers in model["answers"]] == [
        ("chat", "talk"),
        ("alone", None),
        ("count", "talk"),
    ]
    [talk] = model["groups"]
    assert (talk["group"], talk["answers"], talk["accepted"]) == ("talk", 4, 3)


def test_names_are_no_markup_and_move_no_cursor() -> None:
    said = attempt("[red]x", refusal="exit code 1: \x1b[2J[bold]", said=reply("\x1b[H" + "a" * 50))
    benchmark = found(replace(DIFFUSION, attempts=(said,)), prompts=("[red]x",))
    assert "\n [red]x " in printed(benchmark)
    [line] = [line for line in printed(benchmark, 200).splitlines() if line.startswith("refused")]
    assert "\x1b" not in line
    assert "[bold], in ..." in line
    assert line.endswith("a" * 39 + "'")


def test_the_last_refusal_is_in_the_notes() -> None:
    refused = [attempt(refusal=reason, said=reply("no")) for reason in ("first", "second")]
    assert notes(found(replace(DIFFUSION, attempts=(*refused, attempt())))) == [
        "refused: chat, diffusiongemma-4bit, 2 of 3: second, in 'no'"
    ]


# --json


def test_the_object_holds_every_figure_and_every_reply() -> None:
    benchmark = found(DIFFUSION, AUTOREGRESSIVE, dropped=("x",))
    made = json.loads(json.dumps(as_object(benchmark, MACHINE)))
    assert list(made) == ["machine", "suite", "prompts", "asking", "models", "left_out", "whole"]
    assert made["machine"] == asdict(MACHINE)
    assert (made["suite"], made["prompts"], made["left_out"], made["whole"]) == ("full", ["chat", "count"], ["x"], True)
    assert made["asking"] == {"max_tokens": 256, "repeats": 2, "retries": 2, "seed": 0}
    model, baseline = made["models"]
    assert list(model) == (
        "model kind options load_seconds weights_bytes peak_memory prefill steps answers all".split()
    )
    assert (model["model"], model["kind"], baseline["kind"]) == (
        "models/diffusiongemma-4bit",
        "diffusion",
        "autoregressive",
    )
    assert (model["load_seconds"], model["weights_bytes"], model["peak_memory"]) == (11.52, 16.98e9, 19e9)
    assert model["prefill"][1] == {
        "tokens": 8192,
        "tokens_per_second": pytest.approx(8192 / 22.1),
        "seconds": [22.1],
        "peak_memory": 17_500_000_000,
    }
    assert model["steps"][1] == {
        "prefix": 512,
        "canvas": 256,
        "seconds_per_step": 0.97,
        "seconds": [0.97, 0.96, 0.99],
        "peak_memory": 17_500_000_000,
    }
    keys = set(Figures.__dataclass_fields__)
    assert set(model["all"]) == keys
    assert [answers["prompt"] for answers in model["answers"]] == ["chat", "count"]
    assert set(model["answers"][1]) == {"prompt", "replies"} | keys
    assert (model["all"]["acceptance"], baseline["answers"][0]["steps_per_canvas"]) == (0.75, None)


def test_a_reply_in_the_object_is_whole() -> None:
    [model] = as_object(found(), MACHINE)["models"]
    assert model["answers"][1]["replies"][0] == {
        "answer": 0,
        "seed": 0,
        "accepted": False,
        "refusal": "no match for 1 2 3",
        "text": "1 2 2",
        "finish_reason": "stop",
        "tokens": 40,
        "forwards": 14,
        "canvases": 2,
        "first_seconds": 5.0,
        "seconds": 10.0,
        "peak_memory": 17_000_000_000,
    }


def test_what_was_not_asked_is_null() -> None:
    [model] = as_object(found(SLOW_STEPS), MACHINE)["models"]
    assert (model["answers"], model["all"]) == ([], None)


# --plot


@pytest.mark.parametrize(
    ("models", "height"),
    [((DIFFUSION,), 864), ((DIFFUSION, AUTOREGRESSIVE), 864), ((SLOW_STEPS,), 432), ((NO_STEPS,), 432)],
)
def test_the_picture_is_a_png_with_a_row_for_what_was_measured(
    tmp_path: Path, models: tuple[Measured, ...], height: int
) -> None:
    file = tmp_path / "figures.png"
    save_plot(found(*models), MACHINE, file)
    picture = file.read_bytes()
    assert picture.startswith(PNG)
    assert struct.unpack(">II", picture[16:24]) == (1080, height)
    assert 8_000 < len(picture) < 300_000
    assert [path.name for path in tmp_path.iterdir()] == ["figures.png"]


def test_the_picture_says_what_was_measured_where_and_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    drawn = Figure.suptitle
    monkeypatch.setattr(
        Figure, "suptitle", lambda figure, text, **style: (titles.append(text), drawn(figure, text, **style))
    )
    save_plot(found(DIFFUSION, AUTOREGRESSIVE), MACHINE, tmp_path / "figures.png")
    draw_losses([{"event": "step", "step": 1, "canvas": 1.0, "causal": 1.0}], titles[0], tmp_path / "loss.png")
    models, machine = titles[0].split("\n")
    assert models == "models/diffusiongemma-4bit and hub/gemma-4"
    assert re.fullmatch(r"Apple M9 \(gpu, 32 GiB\), Darwin arm64, mlx-diffgemma 0\.1\.0, .*, \d{4}-\d\d-\d\d", machine)
    for name in ("figures.png", "loss.png"):
        assert b"Apple M9" in (tmp_path / name).read_bytes()
    assert titles == [titles[0]] * 2


def test_many_prompts_have_room_for_their_names(tmp_path: Path) -> None:
    names = tuple(f"a prompt of a long name, {number}" for number in range(20))
    asked = tuple(attempt(name) for name in names)
    save_plot(found(replace(DIFFUSION, attempts=asked), prompts=names), MACHINE, tmp_path / "many.png")
    assert (tmp_path / "many.png").stat().st_size > 8_000


def test_there_is_no_picture_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="has nothing to show: neither steps nor answers were measured"):
        save_plot(found(replace(NO_STEPS, attempts=())), MACHINE, tmp_path / "none.png")


def test_a_file_that_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    check_plot_file(tmp_path / "figures.PNG")
    with pytest.raises(BenchmarkError, match=r"the plot must be a .png file, not figures.jpg"):
        check_plot_file(Path("figures.jpg"))
    with pytest.raises(BenchmarkError, match=r"none/figures.png cannot be written: there is no folder .*/none"):
        check_plot_file(tmp_path / "none" / "figures.png")


def test_a_picture_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BenchmarkError) as raised:
        check_plot_file(tmp_path / "figures.png")
    assert str(raised.value) == "--plot needs more packages: pip install 'mlx-diffgemma[plot]'"


def test_a_folder_in_the_pictures_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "figures.png" / "x").mkdir(parents=True)
    with pytest.raises(BenchmarkError, match=r"figures.png cannot be written: Is a directory"):
        save_plot(found(), MACHINE, tmp_path / "figures.png")
    assert [path.name for path in tmp_path.iterdir()] == ["figures.png"]
