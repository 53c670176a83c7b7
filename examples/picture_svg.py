"""Draw rows of a terminal, frame by frame, as one animated SVG that loads nothing.

    typed rows, frames -> draw -> SVG: the window, the command being typed, one <g> per frame

A row that several frames show is defined once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple
from xml.sax.saxutils import escape

from mlx_diffgemma.display.cells import Ink, ScreenRow, graphemes

KEY, PAUSE = 0.03, 0.4
"""Seconds for typing a character, and seconds between the last character and the first frame."""
CELL, LINE, BASE, MIDDLE = 9, 22, 16, 11
"""Width and height of a cell, the baseline and the middle in it, in pixels."""
SIDE, BAR, ABOVE, GAP, BELOW = 24, 40, 16, 8, 18
"""Margins left and right of the text, height of the title bar, margins above and below the command and the text."""
NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML cannot contain, not even escaped."""

INKS = {Ink.FINISHED: "s", Ink.CHANGED: "c", Ink.THOUGHT: "t", Ink.STATUS: "t"}
SHADES = {"▓": "d", "▒": "m", "░": "n"}
"""Inks and glyphs of noise -> classes of STYLE. Noise is drawn as lines, because fonts shade differently."""

# CSS instead of SMIL, because only CSS can ask for reduced motion; GitHub shows the picture in <img>, where browsers
# play both, run no script and load nothing. Readers who prefer reduced motion, and programs that play nothing, see the
# last frame, which is the only one visible without animation. The reader's font is unknown, so x and textLength place
# the letters.
STYLE = """
text{font:15px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace}
text{white-space:pre}.s{fill:#f0f6fc}.c{fill:#56d364;font-weight:700}.t{fill:#8b98a8}
.d,.m,.n{stroke:#8199c4;stroke-width:16}.d{opacity:.6}.m{opacity:.4}.n{opacity:.22}
.f,.y{visibility:hidden}.f:last-of-type{visibility:visible}
@media(prefers-reduced-motion:reduce){.l,.y,.f{animation-name:none!important}}
"""
BODY, TITLE, EDGE, CURSOR = "#10151d", "#1c232d", "#3a434f", "#8b98a8"
WINDOW = f"""\
<rect x=".5" y=".5" width="{{width}}" height="{{height}}" rx="10" fill="{BODY}" stroke="{EDGE}"/>
<path d="M1 {BAR}V10.5a9.5 9.5 0 0 1 9.5-9.5h{{bar}}a9.5 9.5 0 0 1 9.5 9.5V{BAR}z" fill="{TITLE}"/>
<circle cx="22" cy="20.5" r="6" fill="#ff5f57"/>
<circle cx="42" cy="20.5" r="6" fill="#febc2e"/>
<circle cx="62" cy="20.5" r="6" fill="#28c840"/>
<text class="t" x="{{middle}}" y="25" text-anchor="middle" style="font-size:13px">mlx-diffgemma</text>
"""


class Typed(NamedTuple):
    """A row of the command; the first `given` cells are the shell's prompt."""

    row: ScreenRow
    given: int

    @property
    def strokes(self) -> int:
        """Number of keys to type the row; an empty row takes the return key."""
        return max(1, self.row.cells - self.given)


class Frame(NamedTuple):
    """The rows below the command, and the seconds for which they are shown."""

    rows: tuple[ScreenRow, ...]
    seconds: float


def draw(typed: Sequence[Typed], frames: Sequence[Frame], columns: int) -> str:
    """Return the SVG of a terminal in which a command is typed and every frame is shown, again and again."""
    top = LINE * len(typed) + GAP
    width, height = columns * CELL, top + LINE * max(len(frame.rows) for frame in frames)
    across, down = width + 2 * SIDE, BAR + ABOVE + height + BELOW
    ids: dict[ScreenRow, int] = {}
    for frame in frames:
        for row in frame.rows:
            ids.setdefault(row, len(ids))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{across}" height="{down}" viewBox="0 0 {across} {down}" ',
        'xml:space="preserve" role="img">\n',
        "<title>mlx_diffgemma.generate in a terminal: a canvas of noise becomes the answer</title>\n",
        f"<style>{STYLE}{_animation(typed, frames)}</style>\n<defs>\n",
        *(f'<g id="r{n}">{"".join(_row(row))}</g>\n' for row, n in ids.items()),
        "</defs>\n",
        WINDOW.format(width=across - 1, height=down - 1, bar=across - 21, middle=across // 2),
        f'<svg x="{SIDE}" y="{BAR + ABOVE}" width="{width}" height="{height}">\n',
        *(_line(n, line) for n, line in enumerate(typed)),
        *(_frame(n, [ids[row] for row in frame.rows], top) for n, frame in enumerate(frames)),
        "</svg>\n</svg>\n",
    ]
    return "".join(parts)


def _animation(typed: Sequence[Typed], frames: Sequence[Frame]) -> str:
    """Return the animation rules; each lasts for the whole picture, so that they restart together."""
    keys = list(accumulate((KEY * line.strokes for line in typed), initial=0.0))
    shown = list(accumulate((frame.seconds for frame in frames), initial=keys[-1] + PAUSE))
    starts, ticks = ([f"{100 * at / shown[-1]:.3f}%" for at in times] for times in (keys, shown))
    hidden = [*starts[1:-1], ticks[0]]
    rules = [f".l,.y,.f{{animation:{shown[-1]:.2f}s step-end infinite}}\n"]
    rules += [_typing(n, line.strokes, starts[n], starts[n + 1], hidden[n]) for n, line in enumerate(typed)]
    rules += [_showing(n, ticks[n], ticks[n + 1]) for n in range(len(frames))]
    return "".join(rules)


def _typing(n: int, strokes: int, start: str, end: str, hidden: str) -> str:
    """Return the rules of line `n`: it appears at `start`, its cover moves off until `end`, hidden at `hidden`."""
    return (
        f"@keyframes l{n}{{0%{{visibility:hidden}}{start}{{visibility:visible}}}}\n"
        f"@keyframes y{n}{{0%{{visibility:hidden}}"
        f"{start}{{visibility:visible;transform:translateX(0);animation-timing-function:steps({strokes})}}"
        f"{end}{{visibility:visible;transform:translateX({strokes * CELL}px)}}{hidden}{{visibility:hidden}}}}\n"
    )


def _showing(n: int, start: str, end: str) -> str:
    return f"@keyframes f{n}{{0%{{visibility:hidden}}{start}{{visibility:visible}}{end}{{visibility:hidden}}}}\n"


def _line(n: int, line: Typed) -> str:
    x, width = line.given * CELL, (line.strokes + 1) * CELL
    return (
        f'<g class="l" style="animation-name:l{n}"><g transform="translate(0 {n * LINE})">{"".join(_row(line.row))}'
        f'<g class="y" style="animation-name:y{n}"><path fill="{BODY}" d="M{x} 0h{width}v{LINE}h-{width}z"/>'
        f'<path fill="{CURSOR}" d="M{x} 2h{CELL}v{LINE - 4}h-{CELL}z"/></g></g></g>\n'
    )


def _frame(n: int, ids: Iterable[int], top: int) -> str:
    used = "".join(f'<use href="#r{row}" y="{top + LINE * index}"/>' for index, row in enumerate(ids))
    return f'<g class="f" style="animation-name:f{n}">{used}</g>\n'


class _Glyph(NamedTuple):
    column: int
    cells: int
    text: str
    ink: Ink


def _row(row: ScreenRow) -> Iterator[str]:
    """Yield each run of glyphs of one ink and one width at its column, without the blanks around it."""
    for (ink, cells), run in groupby(_glyphs(row), lambda glyph: (glyph.ink, glyph.cells)):
        glyphs = list(run)
        if ink is Ink.NOISE:
            yield from _noise(glyphs)
            continue
        drawn = [n for n, glyph in enumerate(glyphs) if glyph.text != " "]
        if drawn:
            glyphs = glyphs[drawn[0] : drawn[-1] + 1]
            text = escape("".join(glyph.text for glyph in glyphs))
            x, length = glyphs[0].column * CELL, cells * len(glyphs) * CELL
            yield f'<text class="{INKS[ink]}" x="{x}" y="{BASE}" textLength="{length}">{text}</text>'


def _glyphs(row: ScreenRow) -> Iterator[_Glyph]:
    column = 0
    for span in row.spans:
        text = NO_XML.sub("\ufffd", span.text)
        for grapheme, cells in graphemes(text):
            if cells:
                yield _Glyph(column, cells, grapheme, span.ink)
            column += cells


def _noise(glyphs: Sequence[_Glyph]) -> Iterator[str]:
    """Yield a path per shade, with strokes as high as a letter and almost as wide as a cell."""
    for shade, name in SHADES.items():
        strokes = "".join(f"M{glyph.column * CELL} {MIDDLE}h{CELL - 1}" for glyph in glyphs if glyph.text == shade)
        if strokes:
            yield f'<path class="{name}" d="{strokes}"/>'
