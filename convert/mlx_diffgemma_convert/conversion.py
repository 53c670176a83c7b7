"""The converter without its program: a generator that converts one checkpoint and says how far it is.

1 read       headers, config.json, generation_config.json of the source
2 plan       every output tensor, its packing and its place; all checks that need no weights
3 reserve    DST.partial; take up what an interrupted run has finished     -> Planned
4 shards     piece by piece, on two threads; record each shard             -> Advanced, per piece
5 sidecar    config.json, index, tokenizer, model card
6 publish    DST.partial becomes DST                                       -> Converted
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from mlx_diffgemma.config import load_generation_config, parse_config, read_json
from mlx_diffgemma.errors import ConvertError
from mlx_diffgemma.layout import resolve
from mlx_diffgemma.safetensors import TensorInfo, read_folder
from mlx_diffgemma_convert.card import model_card
from mlx_diffgemma_convert.job import Job, check_destination, check_space, publish, record, reserve
from mlx_diffgemma_convert.pieces import ERROR_STRIDE, Written, convert_piece, pieces
from mlx_diffgemma_convert.plan import Parameter, Plan, make_plan
from mlx_diffgemma_convert.recipe import Recipe
from mlx_diffgemma_convert.shards import Shard
from mlx_diffgemma_convert.sidecar import (
    TOKENIZERS,
    copied_files,
    generation_defaults,
    output_config,
    write_sidecar,
)
from mlx_diffgemma_convert.summary import Line, summarize
from mlx_diffgemma_convert.writer import ShardFile, shard_file, write_text

logger = logging.getLogger("mlx_diffgemma")

WORKERS = 2
"""One reads and writes while the other computes; on the CPU both compute. Memory grows with it."""

ERROR_NOTE = (
    "Relative error: norm of the difference to the source over the norm of the source, of the worst tensor of the "
    f"class, measured on one row in {ERROR_STRIDE} of every tensor."
)


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


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The work is known: bytes to read in all, and how many of them an earlier run has done."""

    source_bytes: int
    done_bytes: int


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """Another piece is written; its bytes in the source."""

    source_bytes: int


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The result has its name; one line per tensor class, then the total."""

    lines: tuple[Line, ...]


Event: TypeAlias = Planned | Advanced | Converted


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
    plan = make_plan(resolve(tensors), config, options.recipe, options.dtype, options.max_shard_bytes)
    written_config = output_config(raw, config, plan, options.dtype, generation_defaults(source, raw))
    copied = copied_files(source)
    if not any(file.name in TOKENIZERS for file in copied):
        logger.warning("%s has no tokenizer: the result will need one to run", source)
    # 3 reserve
    shards = {shard.name: shard for shard, _ in plan.shards}
    with reserve(destination, _fingerprint(plan, tensors), shards) as job:
        check_space(job, shards, sum(file.stat().st_size for file in copied))
        yield _planned(plan, job)
        # 4 shards
        for shard, parameters in plan.shards:
            if shard.name not in job.done:
                yield from _convert_shard(job, shard, parameters)
        # 5 sidecar
        lines = summarize(plan, dict(chain.from_iterable(errors.items() for errors in job.done.values())))
        write_sidecar(source, job.folder, written_config, plan)
        write_text(job.folder / "README.md", _card(options, lines))
        # 6 publish
        publish(job, destination)
    yield Converted(lines=tuple(lines))


def _convert_shard(job: Job, shard: Shard, parameters: tuple[Parameter, ...]) -> Iterator[Advanced]:
    sums = {parameter.name: (0.0, 0.0) for parameter in parameters}
    with shard_file(job.folder, shard) as file:
        for done in _convert_all(parameters, file):
            name = done.piece.parameter.name
            error, total = sums[name]
            sums[name] = (error + done.squared_error, total + done.squared_source)
            yield Advanced(source_bytes=done.piece.source_bytes)
    record(job, shard, {name: math.sqrt(error / total) if total else 0.0 for name, (error, total) in sums.items()})


def _convert_all(parameters: tuple[Parameter, ...], file: ShardFile) -> Iterator[Written]:
    work = chain.from_iterable(map(pieces, parameters))
    # The pool ends before the file is closed: no thread may be left to write into a closed descriptor.
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(partial(convert_piece, file=file), work)


def _planned(plan: Plan, job: Job) -> Planned:
    if job.started_over:
        logger.warning("options or sources changed since the interrupted conversion: starting over")
    elif job.done:
        logger.info("going on with %s: %d of %d shards are done", job.folder, len(job.done), len(plan.shards))
    done = [p.source_bytes for shard, parameters in plan.shards if shard.name in job.done for p in parameters]
    return Planned(source_bytes=sum(p.source_bytes for p in plan.parameters), done_bytes=sum(done))


def _fingerprint(plan: Plan, tensors: Mapping[str, TensorInfo]) -> str:
    """Equal for equal work: the same output from files of the same name, size and time of change."""
    files = sorted({info.file for info in tensors.values()})
    contents: dict[str, Any] = {
        "headers": [shard.header.decode("latin-1") for shard, _ in plan.shards],
        "table": plan.table and plan.table.to_dict(),
        "sources": [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
        "version": version("mlx-diffgemma"),
    }
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _card(options: Options, lines: list[Line]) -> str:
    return model_card(
        source=options.name,
        repository=options.repository,
        target=options.target or options.destination.name,
        version=version("mlx-diffgemma"),
        lines=lines,
        note=ERROR_NOTE,
    )
