"""Write a planned checkpoint, as a generator that reports its progress; conversion and fusion both end here.

1 reserve    DST.partial; keep the shards that an interrupted run finished     -> WriteStarted
2 shards     chunk by chunk, in two threads; record each finished shard        -> ChunkWritten, per chunk
3 sidecar    config.json, index, tokenizer, model card
4 publish    DST.partial becomes DST                                           -> WriteFinished
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from mlx_diffgemma_convert.card import CARD_FILE, Card, model_card
from mlx_diffgemma_convert.chunks import ChunkResult, convert_chunk, split_into_chunks
from mlx_diffgemma_convert.partial_folder import PartialFolder, check_space, publish, record_shard, reserve
from mlx_diffgemma_convert.plan import ConversionPlan, Parameter
from mlx_diffgemma_convert.shards import Shard
from mlx_diffgemma_convert.sidecar import TOKENIZERS, copied_files, write_sidecar
from mlx_diffgemma_convert.summary import ClassSummary, summarize
from mlx_diffgemma_convert.writer import ShardFile, shard_file, write_text

_logger = logging.getLogger("mlx_diffgemma")

WORKERS = 2
"""Threads. While one reads or writes, the other computes; on a CPU both compute. Memory grows with their number."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """A checkpoint that is going to be written; everything about it is known before its first byte.

    `source` is the folder whose tokenizer and other files are copied. `config` and `generation` are the contents of
    config.json and generation_config.json. An interrupted run is resumed if its `fingerprint` is equal.
    """

    source: Path
    destination: Path
    plan: ConversionPlan
    config: Mapping[str, Any]
    generation: Mapping[str, Any] | None
    fingerprint: str
    card: Card


@dataclass(frozen=True, kw_only=True)
class WriteStarted:
    """Writing starts: the bytes to read in all, and how many of them belong to shards of an earlier run."""

    source_bytes: int
    done_bytes: int


@dataclass(frozen=True, kw_only=True)
class ChunkWritten:
    """One more chunk is written; `source_bytes` were read for it."""

    source_bytes: int


@dataclass(frozen=True, kw_only=True)
class WriteFinished:
    """DST is complete: one summary per tensor class and one of all, and a note that says how errors were measured."""

    summaries: tuple[ClassSummary, ...]
    note: str


WriteEvent: TypeAlias = WriteStarted | ChunkWritten | WriteFinished


def write_output(output: Output) -> Generator[WriteEvent]:
    """Write a checkpoint. Raises DiffGemmaError; a later run resumes from what DST.partial then holds."""
    plan, copied = output.plan, copied_files(output.source)
    if not any(file.name in TOKENIZERS for file in copied):
        _logger.warning("%s has no tokenizer: the result will need one to run", output.source)
    # 1 reserve
    shards = {shard.name: shard for shard, _ in plan.shards}
    with reserve(output.destination, output.fingerprint, shards) as folder:
        check_space(folder, shards, sum(file.stat().st_size for file in copied))
        yield _started(plan, folder)
        # 2 shards
        for shard, parameters in plan.shards:
            if shard.name not in folder.finished:
                yield from _write_shard(folder, shard, parameters)
        # 3 sidecar
        summaries = summarize(plan, dict(chain.from_iterable(errors.items() for errors in folder.finished.values())))
        write_sidecar(output.source, folder.path, output.config, output.generation, plan)
        write_text(folder.path / CARD_FILE, model_card(output.card, summaries, version("mlx-diffgemma")))
        # 4 publish
        publish(folder, output.destination)
    yield WriteFinished(summaries=tuple(summaries), note=output.card.note)


def fingerprint(plan: ConversionPlan, files: Iterable[Path]) -> str:
    """Return a digest of the planned output and of the name, size and modification time of the source files."""
    contents: dict[str, Any] = {
        "headers": [shard.header.decode("latin-1") for shard, _ in plan.shards],
        "table": plan.table and plan.table.to_dict(),
        "sources": [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)],
        "version": version("mlx-diffgemma"),
    }
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _write_shard(folder: PartialFolder, shard: Shard, parameters: tuple[Parameter, ...]) -> Iterator[ChunkWritten]:
    sums = {parameter.name: (0.0, 0.0) for parameter in parameters}
    with shard_file(folder.path, shard) as file:
        for result in _convert_all(parameters, file):
            name = result.chunk.parameter.name
            error, total = sums[name]
            sums[name] = (error + result.squared_error, total + result.squared_source)
            yield ChunkWritten(source_bytes=result.chunk.source_bytes)
    errors = {name: math.sqrt(error / total) if total else 0.0 for name, (error, total) in sums.items()}
    record_shard(folder, shard, errors)


def _convert_all(parameters: tuple[Parameter, ...], file: ShardFile) -> Iterator[ChunkResult]:
    chunks = chain.from_iterable(map(split_into_chunks, parameters))
    # The pool ends before the file is closed: no thread may write into a closed descriptor.
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(partial(convert_chunk, file=file), chunks)


def _started(plan: ConversionPlan, folder: PartialFolder) -> WriteStarted:
    """Report how an earlier run is used, and how much is left to do."""
    if folder.started_over:
        _logger.warning("options or sources changed since the interrupted conversion: starting over")
    elif folder.finished:
        _logger.info("resuming %s: %d of %d shards are finished", folder.path, len(folder.finished), len(plan.shards))
    done = [p.source_bytes for shard, parameters in plan.shards if shard.name in folder.finished for p in parameters]
    return WriteStarted(source_bytes=sum(p.source_bytes for p in plan.parameters), done_bytes=sum(done))
