"""The converter without its program: a generator that converts one checkpoint and says how far it is.

1 read       headers, config.json, generation_config.json of the source
2 plan       every output tensor, its packing and its place; all checks that need no weights
3 to 6       the plan is carried out, see `work`
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from mlx_diffgemma.checkpoint.names import sort_tensors
from mlx_diffgemma.checkpoint.safetensors import read_folder
from mlx_diffgemma.checkpoint.weights import load_generation_config
from mlx_diffgemma.errors import ConvertError
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import parse_config
from mlx_diffgemma_convert.card import Card
from mlx_diffgemma_convert.chunks import error_note
from mlx_diffgemma_convert.output import Event, Work, carry_out, fingerprint
from mlx_diffgemma_convert.partial_folder import check_destination
from mlx_diffgemma_convert.plan import make_plan
from mlx_diffgemma_convert.recipe import Recipe
from mlx_diffgemma_convert.sidecar import generation_defaults, output_config


@dataclass(frozen=True, kw_only=True)
class Options:
    """One conversion: folders, packing by class, and the dtype of what is not packed (BF16, F16 or F32).

    `name` is what the source is called in the model card, a Hub repository where `repository`; `target` is what the
    card tells its reader to run, a Hub repository or the destination's name.
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


def convert(options: Options) -> Generator[Event]:
    """Convert a checkpoint. Raises DiffGemmaError subclasses; DST.partial then holds what can be taken up again."""
    # A link is followed: the result belongs where it points, and a link cannot be replaced as a folder can.
    source, destination = options.source, options.destination.resolve()
    check_destination(source, destination, overwrite=options.overwrite)
    # 1 read
    raw = read_json(source / "config.json")
    if raw.get("quantization") or raw.get("quantization_config"):
        raise ConvertError(f"{source} is already quantized: convert the bf16 checkpoint it was made from")
    config = parse_config(raw)
    load_generation_config(source, raw)
    tensors = read_folder(source)
    # 2 plan
    plan = make_plan(sort_tensors(tensors), config, options.recipe, options.dtype, options.max_shard_bytes)
    generation = generation_defaults(source, raw)
    work = Work(
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
        ),
    )
    # 3 to 6
    yield from carry_out(work)
