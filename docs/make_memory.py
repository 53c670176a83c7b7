"""Write the tables of Macs in README.md and docs/install.md: `python docs/make_memory.py`.

Sizes follow from the configuration of Google's checkpoint and the recipes; nothing is downloaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mlx_diffgemma_convert.best_recipe import memory_for
from mlx_diffgemma_convert.parameters import text_shapes
from mlx_diffgemma_convert.plan import make_plan
from mlx_diffgemma_convert.recipe import Recipe, RecipeName, make_quantization, make_recipe

from mlx_diffgemma.checkpoint.names import sort_tensors
from mlx_diffgemma.checkpoint.safetensors import TensorInfo
from mlx_diffgemma.device.memory import smallest_mac
from mlx_diffgemma.model.config import parse_config

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "tests" / "fixtures" / "checkpoints" / "google.config.json"
RELEASE_BYTES = 51_647_562_456
"""Of Google's files, as their index says: what is not text is the vision tower, which is converted as it is."""
BEGIN, END = "<!-- begin: python docs/make_memory.py -->\n", "<!-- end -->"
README, INSTALL = ROOT / "README.md", ROOT / "docs" / "install.md"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A conversion of the release; sizes in bytes."""

    options: str
    disk: int
    weights: int
    memory: int
    """with all positions of a canvas at once, after a prompt of 1,024 tokens"""
    mac: int
    """gigabytes of the smallest Mac that holds it, there perhaps with logits in parts"""


@cache
def rows() -> tuple[Row, ...]:
    """Return the conversions, the smallest first."""
    config = parse_config(json.loads(CONFIG.read_text()))
    shapes = text_shapes(config)
    contents = sort_tensors(
        {
            name: TensorInfo(name=name, file=Path(), dtype="BF16", shape=shape, offset=0)
            for name, shape in shapes.items()
        }
    )
    vision = RELEASE_BYTES - sum(source.parts[0].nbytes for source in contents.text.values())

    def row(options: str, recipe: Recipe) -> Row:
        plan = make_plan(contents, config, recipe, "BF16", RELEASE_BYTES)
        need = memory_for(plan, config)
        short = memory_for(plan, config, usable=0).total
        mac = smallest_mac(short)
        assert mac is not None
        return Row(options=options, disk=plan.nbytes + vision, weights=need.weights, memory=need.total, mac=mac)

    def affine(name: RecipeName, bits: int) -> Recipe:
        return make_recipe(name, make_quantization("affine", bits, None), {})

    def packed(mode: str) -> Recipe:
        return make_recipe("mixed", make_quantization(mode, None, None), {})

    return (
        row("`--recipe small`", affine("small", 4)),
        row("`--mode mxfp4`", packed("mxfp4")),
        row("`--bits 4` (default)", affine("mixed", 4)),
        row("`--mode nvfp4`", packed("nvfp4")),
        row("`--bits 5`", affine("mixed", 5)),
        row("`--bits 6`", affine("mixed", 6)),
        row("`--mode mxfp8`", packed("mxfp8")),
        row("`--bits 8`", affine("mixed", 8)),
        row("bf16", Recipe()),
    )


def short_table() -> str:
    """Return the table of README.md: the affine conversions."""
    lines = ["| weights | disk | memory | smallest Mac |", "|---|---|---|---|"]
    for row in rows():
        if "--mode" not in row.options:
            lines.append(f"| {row.options} | {_size(row.disk)} | {_size(row.memory)} | {row.mac} GB |")
    return "\n".join(lines) + "\n"


def long_table() -> str:
    """Return the table of docs/install.md."""
    lines = [
        "| weights | disk | weights in memory | memory for a prompt of 1,024 tokens | smallest Mac |",
        "|---|---|---|---|---|",
    ]
    for row in rows():
        sizes = f"{row.disk / 1e9:.2f} GB | {row.weights / 1e9:.2f} GB | {_size(row.memory)}"
        lines.append(f"| {row.options} | {sizes} | {row.mac} GB |")
    return "\n".join(lines) + "\n"


def replaced(text: str, table: str) -> str:
    """Return a document with `table` between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    assert mark, "the document has both marks"
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def pages() -> dict[Path, str]:
    """Return the documents with their tables."""
    tables = {README: short_table(), INSTALL: long_table()}
    return {path: replaced(path.read_text(encoding="utf-8"), table) for path, table in tables.items()}


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
