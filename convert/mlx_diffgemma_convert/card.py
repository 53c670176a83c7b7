"""The model card: README.md with the front matter that the Hub reads, what was done, and how to run the result."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_diffgemma_convert.summary import Line, size

RELEASE = "google/diffusiongemma-26B-A4B-it"
"""The base model of a folder on disk: every DiffusionGemma descends from this release."""

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

Converted from {origin} with mlx-diffgemma {version}.
DiffusionGemma writes by denoising: a canvas of 256 tokens starts as noise and settles over a few dozen steps.

```sh
mlx_diffgemma.generate --model {target} "Why is the sky blue?"
```

## What is stored how

| class | packing | values | size | bits per weight | largest relative error |
|---|---|---:|---:|---:|---:|
{rows}

{note}
The vision tower and its projection, where the source has them, are kept in bfloat16.
"""


def model_card(*, source: str, repository: bool, target: str, version: str, lines: Sequence[Line], note: str) -> str:
    """The text of README.md.

    `source` is the name that was converted, a Hub id where `repository`; `target` is what to run; `note` says how the
    errors were measured.
    """
    packed = any(line.error for line in lines)
    return CARD.format(
        base_model=source if repository else RELEASE,
        relation="base_model_relation: quantized\n" if packed else "",
        title=target.rpartition("/")[2],
        origin=f"[{source}](https://huggingface.co/{source})" if repository else f"`{source}`",
        target=target,
        version=version,
        rows="\n".join(_row(line) for line in lines),
        note=note,
    )


def _row(line: Line) -> str:
    error = "" if line.error is None else f"{line.error:.4f}"
    cells = (line.kind, line.packing, f"{line.values:,}", size(line.nbytes), f"{line.bits_per_weight:.2f}", error)
    return f"| {' | '.join(cells)} |"
