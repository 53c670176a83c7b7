"""The model card: a README.md with front matter for the Hub, how the result was made, and how to run it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_diffgemma_convert.summary import ClassSummary, readable_size

CARD_FILE = "README.md"
FRONT_MATTER = re.compile(r"---\s*\n(.*?)\n---\s*(?:\n|$)", re.DOTALL)
LICENSE = re.compile(r"^license(?:_name|_link)?:[ \t]*\S.*$", re.MULTILINE)
"""The keys of a card's front matter that state the license."""
VISION_KEPT = "\nThe vision tower and its projection, where the source has them, are kept in bfloat16."

CARD = """\
---
{license}library_name: mlx
pipeline_tag: text-generation
{base}tags:
- mlx
- mlx-diffgemma
- diffusion_gemma
- text-diffusion
---

# {title}

{made} with mlx-diffgemma {version}.
DiffusionGemma writes by denoising: a canvas of 256 tokens starts as noise and settles over a few dozen steps.

```sh
mlx_diffgemma.generate --model {target} "Why is the sky blue?"
```

## What is stored how

| class | packing | values | size | bits per weight | largest relative error |
|---|---|---:|---:|---:|---:|
{rows}

{note}
"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """The contents of a card apart from its table.

    `source` is the name of the converted model, a Hub repository if `repository` is true, else a folder. `license` is
    what the source's card says of it, line by line. `adapter` is the name of the adapter that was fused into it, None
    after a conversion. `target` is the model that the example runs, `note` says how the errors were measured.
    """

    source: str
    repository: bool
    target: str
    note: str
    license: tuple[str, ...] = ()
    adapter: str | None = None


def read_license(source: Path) -> tuple[str, ...]:
    """Return what the card of the folder `source` says of its license, as lines; nothing without a card."""
    try:
        text = (source / CARD_FILE).read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return ()
    front = FRONT_MATTER.match(text)
    return tuple(LICENSE.findall(front[1])) if front else ()


def model_card(card: Card, summaries: Sequence[ClassSummary], version: str) -> str:
    """Return the text of README.md; `version` is the version of mlx-diffgemma.

    The front matter names a base model only if that is a Hub repository, because a folder cannot be looked up.
    """
    repository = f"[{card.source}](https://huggingface.co/{card.source})"
    origin = repository if card.repository else f"the local folder `{card.source}`"
    if card.adapter is not None:
        made, relation, note = f"Made of {origin} and the adapter `{card.adapter}`, fused", "finetune", card.note
    else:
        made, note = f"Converted from {origin}", card.note + VISION_KEPT
        relation = "quantized" if any(summary.error for summary in summaries) else None
    base = [f"base_model: {card.source}", *([f"base_model_relation: {relation}"] if relation else [])]
    return CARD.format(
        license=_lines(card.license),
        base=_lines(base if card.repository else []),
        title=card.target.rpartition("/")[2],
        made=made,
        target=card.target,
        version=version,
        rows="\n".join(_row(summary) for summary in summaries),
        note=note,
    )


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _row(summary: ClassSummary) -> str:
    cells = (
        summary.tensor_class,
        summary.packing,
        f"{summary.values:,}",
        readable_size(summary.nbytes),
        f"{summary.bits_per_weight:.2f}",
        "" if summary.error is None else f"{summary.error:.4f}",
    )
    return f"| {' | '.join(cells)} |"
