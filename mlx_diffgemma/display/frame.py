"""What a terminal shows below the finished text: pure functions, so that tests compare exact text.

event -> advance(view, event) -> View -> render(view, width, height) -> [ScreenRow, ...]
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlx_diffgemma.display.cells import Ink, InkedText, ScreenRow, graphemes, printable, wrap
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, GapFilled, Prefilled, Stats

_CHANGING, _STEADY = "▓▒▓", "▒░░"
"""Glyphs of noise whose most likely token changed in the last step, and of noise whose did not."""
_LONGEST_NOISE = 12
"""Cells of noise drawn for one position at most: a token can be a long run of blanks or dashes."""

_MEANINGFUL = 1.0
"""Seconds after which the speed of finished blocks is shown."""
_SEPARATOR = " · "

_NO_TEXT = InkedText("", Ink.FINISHED)
_EMPTY_ROW = ScreenRow((), 0)


@dataclass(frozen=True, kw_only=True)
class View:
    """All that a frame is drawn from.

    tail: finished text of a row that is not full yet; the canvas continues it.
    canvas: one span per position, up to the end of the answer. accepted: the positions accepted in the last step.
    status: the parts of the status line, most important first. committed: how many tokens the finished blocks hold.
    speed: their tokens per second, None before that means something. rows: what the frame had above its status line,
    at most, since the canvas began.
    """

    tail: InkedText = _NO_TEXT
    canvas: tuple[InkedText, ...] = ()
    accepted: tuple[bool, ...] = ()
    status: tuple[str, ...] = ("reading the prompt",)
    committed: int = 0
    speed: float | None = None
    rows: int = 0


def advance(view: View, event: Event, seconds: float = 0.0) -> View:
    """Return the view after `event`, which came `seconds` into the generation.

    The tail is not touched: it depends on what the display has printed.
    """
    match event:
        case Prefilled(done=done, total=total):
            return replace(view, status=(f"reading the prompt {done}/{total}",))
        case CanvasStarted(block=block):
            return replace(view, canvas=_initial_canvas(event), accepted=(), status=(f"block {block + 1}",))
        case Denoised():
            canvas = _denoised_canvas(event, view.accepted)
            return replace(view, canvas=canvas, accepted=event.accepted, status=_status(event))
        case BlockCommitted(tokens=tokens, steps=steps):
            # Pinned tokens, and blocks of no steps, were written by the caller and not by the model.
            written = len(tokens) - sum(span.ink is Ink.PINNED for span in view.canvas) if steps else 0
            committed = view.committed + written
            # Before, a few tokens over a fraction of a second would be a wild number.
            speed = committed / seconds if committed and seconds >= _MEANINGFUL else view.speed
            return replace(view, canvas=(), accepted=(), committed=committed, speed=speed, rows=0)
        case GapFilled() | Finished():
            return view


def render(view: View, width: int, height: int) -> list[ScreenRow]:
    """Draw the frame for a terminal of `width` x `height` cells.

    At most height - 1 rows, the last one the status line. Of a canvas that is taller, the rows around the first noise;
    after one that is lower than `view.rows`, empty rows, so that the status line stays where it is.
    """
    capacity = max(1, height - 1) - 1
    spans = [span for span in (view.tail, *view.canvas) if span.text]
    body = wrap(spans, width) if spans else []
    noisy = (n for n, row in enumerate(body) if any(span.ink is Ink.NOISE for span in row.spans))
    top = max(0, min(next(noisy, len(body)) - capacity // 3, len(body) - capacity))
    shown = body[top : top + capacity]
    empty = [_EMPTY_ROW] * (min(view.rows, capacity) - len(shown))
    return [*shown, *empty, _status_row(view, width)]


def tokens_text(count: int) -> str:
    """Return a number of tokens in words."""
    return f"{count} token" + "s" * (count != 1)


def summary(stats: Stats, width: int | None = None) -> str:
    """Return the figures of a generation in one line of at most `width` cells: the most important ones that fit."""
    blocks = f"{stats.blocks} block" + "s" * (stats.blocks != 1)
    peak = stats.peak_memory / 1e9
    # Each with its rank: those of the highest numbers are left out first.
    figures = [
        (0, f"{tokens_text(stats.tokens)} in {blocks}"),
        (2, f"{stats.steps / max(1, stats.blocks):.1f} steps/block"),
        (5, f"{stats.tokens_per_forward:.1f} tokens/forward"),
        (7, f"prefill {stats.prefill_seconds:.2f} s"),
        (6, f"first block {stats.seconds_to_first_block:.2f} s"),
        (3, f"{stats.seconds_per_step:.3f} s/step"),
        (1, f"{stats.tokens_per_second:.1f} tok/s"),
        (4, f"peak {peak:.2f} GB" if peak >= 0.1 else f"peak {peak * 1000:.0f} MB"),
    ]
    line = _SEPARATOR.join(text for _, text in figures)
    while width is not None and len(line) > width and len(figures) > 1:
        figures.remove(max(figures))
        line = _SEPARATOR.join(text for _, text in figures)
    return line[:width]


def _status(event: Denoised) -> tuple[str, ...]:
    free = [accepted for n, accepted in enumerate(event.accepted) if not (event.pinned and event.pinned[n])]
    fraction = sum(free) / max(1, len(free))
    return (
        f"block {event.block + 1}",
        f"step {event.step}/{event.max_steps}",
        f"entropy {event.mean_entropy:.3f}",
        f"accepted {fraction:.0%}",
    )


def _status_row(view: View, width: int) -> ScreenRow:
    """Join as many whole parts as fit, at least the first one; the last cell stays free."""
    parts = view.status
    if view.speed is not None:
        parts = (*parts, f"{view.speed:.1f} tok/s")
    line = parts[0][: max(0, width - 1)]
    for part in parts[1:]:
        if len(line) + len(part) + 3 >= width:
            break
        line += _SEPARATOR + part
    return ScreenRow((InkedText(line, Ink.STATUS),), len(line))


def _initial_canvas(event: CanvasStarted) -> tuple[InkedText, ...]:
    """Draw a canvas before its first step: pinned text, and noise whose lengths come from the random tokens."""
    return tuple(
        InkedText(printable(event.pieces[n]), Ink.PINNED)
        if event.pinned and event.pieces and event.pinned[n]
        else InkedText(_noise(" " * (token % 5), n, True), Ink.NOISE)
        for n, token in enumerate(event.canvas)
    )


def _denoised_canvas(event: Denoised, accepted_before: tuple[bool, ...]) -> tuple[InkedText, ...]:
    """Draw one span per position up to an accepted end token."""
    pieces = event.pieces or ("",) * len(event.best)
    length = len(pieces) if event.end is None or not event.accepted[event.end] else event.end
    spans: list[InkedText] = []
    for n, piece in enumerate(pieces[:length]):
        if event.pinned and event.pinned[n]:
            spans.append(InkedText(printable(piece), Ink.PINNED))
        elif not event.accepted[n]:
            spans.append(InkedText(_noise(piece, n, event.changed[n]), Ink.NOISE))
        elif event.changed[n] or not (n < len(accepted_before) and accepted_before[n]):
            spans.append(InkedText(printable(piece), Ink.CHANGED))
        else:
            spans.append(InkedText(printable(piece), Ink.THOUGHT if n < event.thought else Ink.FINISHED))
    return tuple(spans)


def _noise(piece: str, position: int, changed: bool) -> str:
    """Draw noise in the shape of `piece`, so that the canvas keeps its shape when the position is accepted.

    A leading blank and newlines at the end stay: they make words and lines. The pattern differs from position to
    position.
    """
    line = piece.rstrip("\n")
    body = line.strip(" ") or line[1:]
    blank = " " if line[:1] == " " and line != body else ""
    cells = max(1, min(_LONGEST_NOISE, sum(cells for _, cells in graphemes(body))))
    glyphs = _CHANGING if changed else _STEADY
    noise = "".join(glyphs[(position * 7 + n * 5 + (position * n) % 11) % 3] for n in range(cells))
    return blank + noise + piece[len(line) :]
