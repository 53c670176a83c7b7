"""Make a random DiffusionGemma checkpoint with packed weights, as a conversion leaves it, without a bf16 source.

Means and spreads are those of a calm checkpoint of `random_checkpoint`; packed values are uniform instead of normal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from mlx_diffgemma_convert.parameters import text_shapes
from mlx_diffgemma_convert.recipe import make_quantization, make_recipe
from mlx_diffgemma_convert.shards import Entry, group_into_shards, index_contents, lay_out
from mlx_diffgemma_convert.writer import shard_file, write_text
from random_checkpoint import BLOCK, GENERATION, Width, bf16, make_config, values

from mlx_diffgemma.checkpoint.folder import INDEX
from mlx_diffgemma.checkpoint.quantization import Quantization, QuantizationTable
from mlx_diffgemma.model.config import parse_config

PARTS = (".weight", ".scales", ".biases")


def write_packed(
    folder: Path, *, layers: int = 30, width: Width = "full", bits: int = 4, seed: int = 0, shard_bytes: int = 5 << 30
) -> None:
    """Write a checkpoint in the mixed recipe into a new folder; equal arguments give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    config = make_config(layers, width)
    shapes = text_shapes(parse_config(config))
    recipe = make_recipe("mixed", make_quantization("affine", bits, None), {})
    packed = {name: packing for name in shapes if (packing := recipe.at(name)) is not None}
    shards = lay_out(
        group_into_shards((_entries(name, shape, packed.get(name)) for name, shape in shapes.items()), shard_bytes)
    )
    random = np.random.default_rng(seed)
    for shard in shards:
        with shard_file(folder, shard) as file:
            for entry in shard.entries:
                start = 0
                for block in _blocks(entry, shapes, packed, random):
                    file.write(entry.name, start, block.data)
                    start += block.nbytes
    assert recipe.default is not None
    paths = {name.removesuffix(PARTS[0]): packing for name, packing in packed.items()}
    overrides = {path: packing for path, packing in paths.items() if packing != recipe.default}
    table = QuantizationTable(default=recipe.default, overrides=overrides)
    write_text(folder / INDEX, json.dumps(index_contents(shards), indent=1))
    write_text(folder / "config.json", json.dumps({**config, "quantization": table.to_dict()}, indent=1))
    write_text(folder / "generation_config.json", json.dumps(GENERATION, indent=1))


def _entries(name: str, shape: tuple[int, ...], packing: Quantization | None) -> list[Entry]:
    if packing is None:
        return [Entry(name=name, dtype="BF16", shape=shape)]
    path = name.removesuffix(PARTS[0])
    *leading, row = shape
    groups = (*leading, row // packing.group_size)
    words = Entry(name=name, dtype="U32", shape=(*leading, row * packing.bits // 32))
    return [words, *(Entry(name=path + part, dtype="BF16", shape=groups) for part in PARTS[1:])]


def _blocks(
    entry: Entry, shapes: dict[str, tuple[int, ...]], packed: dict[str, Quantization], random: np.random.Generator
) -> Iterator[npt.NDArray[np.uint16] | npt.NDArray[np.uint32]]:
    """Yield the values of one tensor of the file."""
    path, _, part = entry.name.rpartition(".")
    name = f"{path}{PARTS[0]}"
    if name not in packed or f".{part}" not in PARTS:
        yield from values(entry.name, entry.shape, random, calm=True)
        return
    count = math.prod(entry.shape)
    if f".{part}" == PARTS[0]:
        for start in range(0, count, BLOCK):
            yield random.integers(0, 2**32, min(BLOCK, count - start), dtype=np.uint32)
        return
    # Uniform whole numbers below 2^bits times this scale have the wanted spread; the bias moves their mean to 0.
    levels = 2 ** packed[name].bits
    scale = shapes[name][-1] ** -0.5 * math.sqrt(12) / levels
    value = scale if f".{part}" == PARTS[1] else -scale * (levels - 1) / 2
    yield np.broadcast_to(bf16(np.array([value], dtype=np.float32)), count).copy()
