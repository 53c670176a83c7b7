"""Fusing without its program: a checkpoint with the changes of an adapter added into its weights.

1 read       the headers of checkpoint and adapter, their configurations, the adapter's values
2 plan       every output tensor, what changes it, its packing and its place; all checks that need no weights
3 to 6       the plan is carried out, see `work`

What is not changed keeps its bytes. What is changed is so in float32, then rounded once: to the dtype it had, or by
packing it as it was packed. A result with nothing packed is in Google's layout, any other in MLX's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_diffgemma.checkpoint.names import CheckpointTensors, TensorSource, sort_tensors
from mlx_diffgemma.checkpoint.quantization import QuantizationTable, parse_table
from mlx_diffgemma.checkpoint.safetensors import read_folder
from mlx_diffgemma.checkpoint.weights import build, check, load_generation_config
from mlx_diffgemma.errors import ConvertError, OptionError
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import ModelConfig, parse_config
from mlx_diffgemma_convert.adapter import Adapter, changed, read_adapter
from mlx_diffgemma_convert.card import Card
from mlx_diffgemma_convert.chunks import error_note
from mlx_diffgemma_convert.output import Event, Work, carry_out, fingerprint
from mlx_diffgemma_convert.parameters import google_name, text_shapes
from mlx_diffgemma_convert.partial_folder import check_destination
from mlx_diffgemma_convert.plan import ConversionPlan, Parameter, assemble, make_parameter
from mlx_diffgemma_convert.sidecar import generation_defaults, output_config
from mlx_diffgemma_convert.values import Packed, Values

COMPUTE = "model.decoder.norm.weight"
"""The parameter whose dtype is the model's: norms are never packed."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """One fusion: folders, and the dtype of a result with nothing packed, None where every tensor keeps its own.

    `dequantize` unpacks what is packed, to bfloat16 where no dtype is given. `name` is what the source is called in the
    model card, a Hub repository where `repository`.
    """

    source: Path
    destination: Path
    adapter: Path
    name: str
    repository: bool = False
    dequantize: bool = False
    dtype: str | None = None
    max_shard_bytes: int = 5_000_000_000
    overwrite: bool = False


def fuse(options: Options) -> Generator[Event]:
    """Fuse an adapter. Raises DiffGemmaError subclasses; DST.partial then holds what can be taken up again."""
    # A link is followed: the result belongs where it points, and a link cannot be replaced as a folder can.
    source, destination = options.source, options.destination.resolve()
    _check_destination(options, destination)
    # 1 read
    raw = read_json(source / "config.json")
    config, table = parse_config(raw), parse_table(raw)
    load_generation_config(source, raw)
    contents = sort_tensors(tensors := read_folder(source))
    check(build(config, table, contents.text), contents)
    adapter = read_adapter(options.adapter)
    # 2 plan
    plan, changes = plan_fusion(options, config, table, contents, adapter)
    generation = generation_defaults(source, raw)
    dtype = next(parameter.dtype for parameter in plan.parameters if parameter.name == COMPUTE)
    # Google's config.json holds no generation defaults: they have a file of their own.
    written = output_config(raw, config, plan, dtype, None if plan.table is None else generation)
    note = f"The adapter changed {changes} of {len(plan.parameters)} parameters. {error_note('base and adapter')}"
    work = Work(
        source=source,
        destination=destination,
        plan=plan,
        config=written,
        generation=generation,
        fingerprint=fingerprint(plan, {*(info.file for info in tensors.values()), *adapter.files}),
        card=Card(
            source=options.name,
            repository=options.repository,
            target=options.destination.name,
            note=note,
            adapter=options.adapter.resolve().name,
        ),
    )
    # 3 to 6
    yield from carry_out(work)


def _check_destination(options: Options, destination: Path) -> None:
    if destination.is_relative_to(options.source.resolve()):
        raise ConvertError(f"{destination} lies in the source {options.source}: choose another folder for the result")
    for folder in (options.source, options.adapter):
        check_destination(folder, destination, overwrite=options.overwrite)


def plan_fusion(
    options: Options,
    config: ModelConfig,
    table: QuantizationTable | None,
    contents: CheckpointTensors,
    adapter: Adapter,
) -> tuple[ConversionPlan, int]:
    """The plan, and how many of its parameters the adapter changes."""
    text = dict(_grouped(contents.text, table))
    wrapped = {name: TensorSource(parts=(info,), shape=info.shape) for name, info in sorted(contents.vision.items())}
    base = {**{name: text[name] for name in text_shapes(config)}, **dict(_grouped(wrapped, table))}
    packed = any(isinstance(values, Packed) for values in base.values())
    if packed and not options.dequantize:
        if options.dtype is not None:
            raise OptionError("a dtype is that of a result with nothing packed: add --dequantize, or leave out --dtype")
        dtype, layout = None, table
    else:
        dtype, layout = options.dtype or ("BF16" if packed else None), None
    changes = changed(adapter, text)
    parameters = [
        _parameter(name, values, changes.get(name, values), dtype, packed=layout is not None)
        for name, values in base.items()
    ]
    return assemble(parameters, layout, options.max_shard_bytes), len(changes)


def _grouped(
    sources: Mapping[str, TensorSource], table: QuantizationTable | None
) -> Iterator[tuple[str, TensorSource | Packed]]:
    """Every parameter, those that are packed with their scales and biases."""
    for name, source in sources.items():
        path, _, ending = name.rpartition(".")
        groups = [sources[f"{path}.{part}"] for part in ("scales", "biases") if f"{path}.{part}" in sources]
        if not groups or table is None:
            yield name, source
        elif ending == "weight":
            yield name, Packed(stored=(source, *groups), quantization=table.at(path))


def _parameter(name: str, base: TensorSource | Packed, values: Values, dtype: str | None, *, packed: bool) -> Parameter:
    """What becomes of one parameter: `values` in the form of `base`, or unpacked and under Google's name."""
    if packed and isinstance(base, Packed):
        # Packed from float32: rounded before that, the values would be rounded twice.
        scales = base.stored[1].dtype
        return replace(make_parameter(name, values, base.quantization, scales), dtype="F32")
    parameter = make_parameter(name, values, None, dtype or base.dtype)
    if packed:
        return parameter
    (entry,) = parameter.entries
    return replace(parameter, entries=(replace(entry, name=google_name(name)),))
