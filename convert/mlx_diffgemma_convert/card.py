"""The model card: a README.md with front matter for the Hub, how the result was made, and how to run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_diffgemma_convert.summary import ClassSummary, readable_size

RELEASE = "google/diffusiongemma-26B-A4B-it"
"""The base model of a source that is not a Hub repository: every DiffusionGemma descends from this release."""
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
    """The contents of a card apart from its table.

    `source` is the name of the converted model, a Hub repository if `repository` is true. `adapter` is the name of the
    adapter that was fused into it, None after a conversion. `target` is the model that the example runs, `note` says
    how the errors were measured.
    """

    source: str
    repository: bool
    target: str
    note: str
    adapter: str | None = None


def model_card(card: Card, summaries: Sequence[ClassSummary], version: str) -> str:
    """Return the text of README.md; `version` is the version of mlx-diffgemma."""
    origin = f"[{card.source}](https://huggingface.co/{card.source})" if card.repository else f"`{card.source}`"
    if card.adapter is not None:
        made, relation, note = f"Made of {origin} and the adapter `{card.adapter}`, fused", "finetune", card.note
    else:
        made, note = f"Converted from {origin}", card.note + VISION_KEPT
        relation = "quantized" if any(summary.error for summary in summaries) else None
    return CARD.format(
        base_model=card.source if card.repository else RELEASE,
        relation=f"base_model_relation: {relation}\n" if relation else "",
        title=card.target.rpartition("/")[2],
        made=made,
        target=card.target,
        version=version,
        rows="\n".join(_row(summary) for summary in summaries),
        note=note,
    )


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
