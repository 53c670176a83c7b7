"""A planned checkpoint being written: what converting and fusing have in common, a generator that says how far it is.

3 reserve    DST.partial; take up what an interrupted run has finished     -> Planned
4 shards     piece by piece, on two threads; record each shard             -> Advanced, per piece
5 sidecar    config.json, index, tokenizer, model card
6 publish    DST.partial becomes DST                                       -> Finished
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

from mlx_diffgemma_convert.card import Card, model_card
from mlx_diffgemma_convert.chunks import Written, convert_piece, pieces
from mlx_diffgemma_convert.partial_folder import Job, check_space, publish, record, reserve
from mlx_diffgemma_convert.plan import ConversionPlan, Parameter
from mlx_diffgemma_convert.shards import Shard
from mlx_diffgemma_convert.sidecar import TOKENIZERS, copied_files, write_sidecar
from mlx_diffgemma_convert.summary import Line, summarize
from mlx_diffgemma_convert.writer import ShardFile, shard_file, write_text

logger = logging.getLogger("mlx_diffgemma")

WORKERS = 2
"""One reads and writes while the other computes; on the CPU both compute. Memory grows with it."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that is known before a byte is written.

    `source` is the folder whose tokenizer and other files are copied, `config` and `generation` what the configurations
    will say, `fingerprint` what an interrupted run must have in common with this one.
    """

    source: Path
    destination: Path
    plan: ConversionPlan
    config: Mapping[str, Any]
    generation: Mapping[str, Any] | None
    fingerprint: str
    card: Card


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
class Finished:
    """The result has its name; one line per tensor class, then the total, and what the errors in them are."""

    lines: tuple[Line, ...]
    note: str


Event: TypeAlias = Planned | Advanced | Finished


def carry_out(work: Work) -> Generator[Event]:
    """Write a checkpoint. Raises DiffGemmaError subclasses; DST.partial then holds what can be taken up again."""
    plan, copied = work.plan, copied_files(work.source)
    if not any(file.name in TOKENIZERS for file in copied):
        logger.warning("%s has no tokenizer: the result will need one to run", work.source)
    # 3 reserve
    shards = {shard.name: shard for shard, _ in plan.shards}
    with reserve(work.destination, work.fingerprint, shards) as job:
        check_space(job, shards, sum(file.stat().st_size for file in copied))
        yield _planned(plan, job)
        # 4 shards
        for shard, parameters in plan.shards:
            if shard.name not in job.done:
                yield from _write_shard(job, shard, parameters)
        # 5 sidecar
        lines = summarize(plan, dict(chain.from_iterable(errors.items() for errors in job.done.values())))
        write_sidecar(work.source, job.folder, work.config, work.generation, plan)
        write_text(job.folder / "README.md", model_card(work.card, lines, version("mlx-diffgemma")))
        # 6 publish
        publish(job, work.destination)
    yield Finished(lines=tuple(lines), note=work.card.note)


def fingerprint(plan: ConversionPlan, files: Iterable[Path]) -> str:
    """Equal for equal work: the same output from files of the same name, size and time of change."""
    contents: dict[str, Any] = {
        "headers": [shard.header.decode("latin-1") for shard, _ in plan.shards],
        "table": plan.table and plan.table.to_dict(),
        "sources": [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)],
        "version": version("mlx-diffgemma"),
    }
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _write_shard(job: Job, shard: Shard, parameters: tuple[Parameter, ...]) -> Iterator[Advanced]:
    sums = {parameter.name: (0.0, 0.0) for parameter in parameters}
    with shard_file(job.folder, shard) as file:
        for done in _write_all(parameters, file):
            name = done.piece.parameter.name
            error, total = sums[name]
            sums[name] = (error + done.squared_error, total + done.squared_source)
            yield Advanced(source_bytes=done.piece.source_bytes)
    record(job, shard, {name: math.sqrt(error / total) if total else 0.0 for name, (error, total) in sums.items()})


def _write_all(parameters: tuple[Parameter, ...], file: ShardFile) -> Iterator[Written]:
    work = chain.from_iterable(map(pieces, parameters))
    # The pool ends before the file is closed: no thread may be left to write into a closed descriptor.
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(partial(convert_piece, file=file), work)


def _planned(plan: ConversionPlan, job: Job) -> Planned:
    if job.started_over:
        logger.warning("options or sources changed since the interrupted conversion: starting over")
    elif job.done:
        logger.info("going on with %s: %d of %d shards are done", job.folder, len(job.done), len(plan.shards))
    done = [p.source_bytes for shard, parameters in plan.shards if shard.name in job.done for p in parameters]
    return Planned(source_bytes=sum(p.source_bytes for p in plan.parameters), done_bytes=sum(done))
