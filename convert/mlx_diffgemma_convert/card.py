"""The model card: README.md with the front matter that the Hub reads, what was done, and how to run the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_diffgemma_convert.summary import Line, size

RELEASE = "google/diffusiongemma-26B-A4B-it"
"""The base model of a folder on disk: every DiffusionGemma descends from this release."""
VISION_KEPT = "\nThe vision tower and its projection, where the source has them, are kept in bfloat16."

CARD = """\
---
license: apache-2.0
library_name: mlx
pipeline_tag: text-generation
base_model: {base_model}
{relation}tags:
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
    """What the card says but for the table.

    `source` is the name of what was converted, a Hub id where `repository`, and `adapter` that of what was fused into
    it; `target` is what to run; `note` says how the errors were measured.
    """

    source: str
    repository: bool
    target: str
    note: str
    adapter: str | None = None


def model_card(card: Card, lines: Sequence[Line], version: str) -> str:
    """The text of README.md; `version` is this package's."""
    origin = f"[{card.source}](https://huggingface.co/{card.source})" if card.repository else f"`{card.source}`"
    if card.adapter is not None:
        made, relation, note = f"Made of {origin} and the adapter `{card.adapter}`, fused", "finetune", card.note
    else:
        made, note = f"Converted from {origin}", card.note + VISION_KEPT
        relation = "quantized" if any(line.error for line in lines) else None
    return CARD.format(
        base_model=card.source if card.repository else RELEASE,
        relation=f"base_model_relation: {relation}\n" if relation else "",
        title=card.target.rpartition("/")[2],
        made=made,
        target=card.target,
        version=version,
        rows="\n".join(_row(line) for line in lines),
        note=note,
    )


def _row(line: Line) -> str:
    error = "" if line.error is None else f"{line.error:.4f}"
    cells = (line.kind, line.packing, f"{line.values:,}", size(line.nbytes), f"{line.bits_per_weight:.2f}", error)
    return f"| {' | '.join(cells)} |"
