"""Draw one generation as an animated picture of a terminal for the README, event by event.

    python examples/picture.py PROMPT --model MODEL --output FILE.svg [--seed N]

    prompt -> Session.stream -> [Event, ...] -> frames -> [Frame, ...] -> draw -> SVG

Rows and inks are those of the live display (`mlx_diffgemma.display`). Only the pace is not: every step is shown
equally long, and figures that depend on the machine are left out, so that the same events give the same bytes.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from picture_svg import Frame, Typed, draw

from mlx_diffgemma import load
from mlx_diffgemma.display.cells import Ink, InkedText, ScreenRow, printable, split_last_row, wrap
from mlx_diffgemma.display.frame import View, advance, render, summary
from mlx_diffgemma.errors import DiffGemmaError
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, Prefilled

COLUMNS, LINES = 64, 12
"""Size of the terminal below the command, in cells; the picture is as high as its highest frame."""
SECONDS = {Prefilled: 0.3, CanvasStarted: 0.9, Denoised: 0.45, BlockCommitted: 0.3, Finished: 3.5}
"""Seconds for which the frame after an event is shown."""
TIMELESS = 3
"""The number of parts of the summary, from the left, that do not depend on the speed of the machine."""


def frames(events: Iterable[Event], columns: int = COLUMNS, lines: int = LINES) -> Iterator[Frame]:
    """Yield one frame per event: finished text and below it the live canvas, at most the last `lines` rows."""
    view = View()
    printed: list[ScreenRow] = []
    for event in events:
        view = advance(view, event)
        if isinstance(event, BlockCommitted):
            for text, ink in ((event.thought, Ink.THOUGHT), (event.text, Ink.FINISHED)):
                full, tail = finish(view.tail, InkedText(printable(text), ink), columns)
                view = replace(view, tail=tail)
                printed += full
        if isinstance(event, Finished):
            figures = " · ".join(summary(event.stats).split(" · ")[:TIMELESS])
            ending = [span for span in (view.tail, InkedText(figures, Ink.STATUS)) if span.text]
            live = [row for span in ending for row in wrap([span], columns)]
        else:
            live = render(view, columns, lines + 1)
            view = replace(view, rows=len(live) - 1)
        yield Frame(tuple([*printed, *live][-lines:]), SECONDS[type(event)])


def finish(tail: InkedText, added: InkedText, columns: int) -> tuple[list[ScreenRow], InkedText]:
    """Return the rows that finished text fills, and the row that later text continues, as in the live display."""
    full: list[ScreenRow] = []
    if not added.text:
        return full, tail
    if added.ink is not tail.ink:
        full += wrap([tail], columns) if tail.text else []
        full += [ScreenRow((), 0)] if added.ink is Ink.FINISHED else []
        tail = InkedText("", added.ink)
    text, rest = split_last_row(tail.text + added.text, columns)
    full += wrap([InkedText(text.removesuffix("\n"), added.ink)], columns) if text else []
    return full, InkedText(rest, added.ink)


def command(prompt: str, seed: int | None = None) -> str:
    """Return the command that is typed: the program and its prompt, quoted for a shell."""
    quoted = shlex.quote(prompt) if re.search(r'["$`\\!]', prompt) else f'"{prompt}"'
    return " ".join(["mlx_diffgemma.generate", *([] if seed is None else [f"--seed {seed}"]), quoted])


def typed_rows(typed: str, columns: int = COLUMNS) -> Iterator[Typed]:
    """Yield a command as a shell shows it: the first line after "$ ", other lines after "> "."""
    for n, line in enumerate(printable(typed).split("\n")):
        sign = InkedText("> " if n else "$ ", Ink.STATUS)
        for part, row in enumerate(wrap([sign, InkedText(line, Ink.FINISHED)], columns)):
            yield Typed(row, 0 if part else len(sign.text))


def picture(prompt: str, events: Iterable[Event], seed: int | None = None) -> str:
    """Return the SVG of one generation."""
    return draw(list(typed_rows(command(prompt, seed))), list(frames(events)), COLUMNS)


def main() -> None:
    """Generate once and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("prompt")
    parser.add_argument("--model", required=True, help="a folder or a Hub repository")
    parser.add_argument("--output", required=True, type=Path, help="the SVG file")
    parser.add_argument("--seed", type=int, help="all other options are the checkpoint's own")
    arguments = parser.parse_args()
    try:
        session = load(arguments.model)
        config = session.defaults if arguments.seed is None else replace(session.defaults, seed=arguments.seed)
        drawn = picture(arguments.prompt, session.stream(arguments.prompt, config), arguments.seed)
    except DiffGemmaError as error:
        sys.exit(f"error: {error}")
    arguments.output.write_text(drawn, encoding="utf-8")
    print(f"{arguments.output}: {len(drawn.encode()) / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
