"""Convert one checkpoint, as a generator that reports its progress.

1 read     headers, config.json and generation_config.json of the source
2 plan     every output tensor, its quantization and its offset; every check that needs no weights
3 write    see `output`
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from mlx_diffgemma.checkpoint.defaults import load_generation_config
from mlx_diffgemma.checkpoint.folder import read_config, read_folder
from mlx_diffgemma.checkpoint.names import sort_tensors
from mlx_diffgemma.checkpoint.weights import table_of_files
from mlx_diffgemma.model.config import parse_config
from mlx_diffgemma_convert.card import Card, read_license
from mlx_diffgemma_convert.chunks import error_note
from mlx_diffgemma_convert.output import Output, WriteEvent, fingerprint, write_output
from mlx_diffgemma_convert.partial_folder import check_destination
from mlx_diffgemma_convert.plan import make_plan
from mlx_diffgemma_convert.recipe import Recipe
from mlx_diffgemma_convert.sidecar import generation_defaults, output_config


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """One conversion: two folders, the quantization by class, and the dtype of the rest (BF16, F16 or F32).

    The model card calls the source `name`, which is a Hub repository if `repository` is true, and shows how to run
    `target`: a Hub repository, or None for the name of the destination.
    """

    source: Path
    destination: Path
    recipe: Recipe
    name: str
    repository: bool = False
    target: str | None = None
    dtype: str = "BF16"
    max_shard_bytes: int = 5_000_000_000
    overwrite: bool = False


def convert(options: ConversionOptions) -> Generator[WriteEvent]:
    """Convert a checkpoint. Raises DiffGemmaError; a later run resumes from what DST.partial then holds."""
    # A link is followed: the result belongs where the link points, and a link cannot be replaced like a folder.
    source, destination = options.source, options.destination.resolve()
    check_destination(source, destination, overwrite=options.overwrite)
    # 1 read
    raw = read_config(source)
    config = parse_config(raw)
    load_generation_config(source, raw)
    contents = sort_tensors(tensors := read_folder(source))
    table_of_files(raw, contents)  # refuses what other tools packed; make_plan refuses what MLX packed
    # 2 plan
    plan = make_plan(contents, config, options.recipe, options.dtype, options.max_shard_bytes)
    generation = generation_defaults(source, raw)
    output = Output(
        source=source,
        destination=destination,
        plan=plan,
        config=output_config(raw, config, plan, options.dtype, generation),
        generation=generation,
        fingerprint=fingerprint(plan, {info.file for info in tensors.values()}),
        card=Card(
            source=options.name,
            repository=options.repository,
            target=options.target or options.destination.name,
            note=error_note("the source"),
            license=read_license(source),
        ),
    )
    # 3 write
    yield from write_output(output)
