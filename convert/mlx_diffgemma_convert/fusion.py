"""Add the changes of an adapter into the weights of a checkpoint, as a generator that reports its progress.

1 read     the headers of checkpoint and adapter, their configurations, the adapter's values
2 plan     every output tensor, what changes it, its quantization and its offset; every check that needs no weights
3 write    see `output`

Parameters that the adapter does not change keep their bytes. A change is added in float32 and the sum rounded once: to
the parameter's dtype, or by quantizing it as it was quantized. A result without quantized tensors has Google's layout,
any other result has the MLX layout.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_diffgemma.checkpoint.defaults import load_generation_config
from mlx_diffgemma.checkpoint.folder import read_config, read_folder
from mlx_diffgemma.checkpoint.names import CheckpointTensors, TensorSource, sort_tensors
from mlx_diffgemma.checkpoint.peft import PeftAdapter
from mlx_diffgemma.checkpoint.quantization import QuantizationTable
from mlx_diffgemma.checkpoint.weights import build_model, check_tensors, table_of_files
from mlx_diffgemma.errors import ConvertError, OptionError
from mlx_diffgemma.model.config import ModelConfig, parse_config
from mlx_diffgemma_convert.adapter import Adapter, changed_parameters, read_adapter
from mlx_diffgemma_convert.card import Card, read_license
from mlx_diffgemma_convert.chunks import error_note
from mlx_diffgemma_convert.output import Output, WriteEvent, fingerprint, write_output
from mlx_diffgemma_convert.parameters import google_name, text_shapes
from mlx_diffgemma_convert.partial_folder import check_destination
from mlx_diffgemma_convert.plan import ConversionPlan, Parameter, assemble, make_parameter
from mlx_diffgemma_convert.sidecar import generation_defaults, output_config
from mlx_diffgemma_convert.values import QuantizedValues, Values

NORM = "model.decoder.norm.weight"
"""A parameter that has the model's dtype: norms are never quantized."""


@dataclass(frozen=True, kw_only=True)
class FusionOptions:
    """One fusion: three folders, and the dtype of a result without quantized tensors.

    A `dtype` of None keeps the dtype of every tensor. With `dequantize`, quantized tensors become `dtype`, or bfloat16
    if it is None. The model card calls the source `name`, which is a Hub repository if `repository` is true.
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


def fuse(options: FusionOptions) -> Generator[WriteEvent]:
    """Fuse an adapter. Raises DiffGemmaError; a later run resumes from what DST.partial then holds."""
    # A link is followed: the result belongs where the link points, and a link cannot be replaced like a folder.
    source, destination = options.source, options.destination.resolve()
    _check_folders(options, destination)
    # 1 read
    raw = read_config(source)
    config = parse_config(raw)
    load_generation_config(source, raw)
    contents = sort_tensors(tensors := read_folder(source))
    table = table_of_files(raw, contents)
    check_tensors(build_model(config, table, contents.text), contents)
    adapter = read_adapter(options.adapter)
    # 2 plan
    plan, changes = plan_fusion(options, config, table, contents, adapter)
    generation = generation_defaults(source, raw)
    dtype = next(parameter.dtype for parameter in plan.parameters if parameter.name == NORM)
    # Google's config.json holds no generation defaults: they have a file of their own.
    written = output_config(raw, config, plan, dtype, None if plan.table is None else generation)
    note = f"The adapter changed {changes} of {len(plan.parameters)} parameters. {error_note('base and adapter')}"
    output = Output(
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
            license=read_license(source),
            adapter=options.adapter.resolve().name,
        ),
    )
    # 3 write
    yield from write_output(output)


def _check_folders(options: FusionOptions, destination: Path) -> None:
    if destination.is_relative_to(options.source.resolve()):
        raise ConvertError(f"{destination} lies in the source {options.source}: choose another folder for the result")
    for folder in (options.source, options.adapter):
        check_destination(folder, destination, overwrite=options.overwrite)


def plan_fusion(
    options: FusionOptions,
    config: ModelConfig,
    table: QuantizationTable | None,
    contents: CheckpointTensors,
    adapter: Adapter | PeftAdapter,
) -> tuple[ConversionPlan, int]:
    """Return the plan, and how many of its parameters the adapter changes. Raises OptionError, AdapterError."""
    text = dict(_grouped(contents.text, table))
    wrapped = {name: TensorSource(parts=(info,), shape=info.shape) for name, info in sorted(contents.vision.items())}
    base = {**{name: text[name] for name in text_shapes(config)}, **dict(_grouped(wrapped, table))}
    quantized = any(isinstance(values, QuantizedValues) for values in base.values())
    if quantized and not options.dequantize:
        if options.dtype is not None:
            raise OptionError(
                "--dtype is for a result that is not quantized, but MODEL is: add --dequantize, or leave out --dtype"
            )
        dtype, layout = None, table
    else:
        dtype, layout = options.dtype or ("BF16" if quantized else None), None
    changes = changed_parameters(adapter, text)
    parameters = [
        _parameter(name, values, changes.get(name, values), dtype, quantized=layout is not None)
        for name, values in base.items()
    ]
    return assemble(parameters, layout, options.max_shard_bytes), len(changes)


def _grouped(
    sources: Mapping[str, TensorSource], table: QuantizationTable | None
) -> Iterator[tuple[str, TensorSource | QuantizedValues]]:
    """Yield every parameter; a quantized weight is joined with its scales and biases."""
    for name, source in sources.items():
        path, _, ending = name.rpartition(".")
        groups = [sources[f"{path}.{part}"] for part in ("scales", "biases") if f"{path}.{part}" in sources]
        if not groups or table is None:
            yield name, source
        elif ending == "weight":
            yield name, QuantizedValues(stored=(source, *groups), quantization=table.at(path))


def _parameter(
    name: str, base: TensorSource | QuantizedValues, values: Values, dtype: str | None, *, quantized: bool
) -> Parameter:
    """Plan one output parameter: `values` in the form of `base`, or not quantized and under Google's name."""
    if quantized and isinstance(base, QuantizedValues):
        # The dtype of the values before quantization is float32: they would be rounded twice otherwise.
        scales = base.stored[1].dtype
        return replace(make_parameter(name, values, base.quantization, scales), dtype="F32")
    parameter = make_parameter(name, values, None, dtype or base.dtype)
    if quantized:
        return parameter
    (entry,) = parameter.entries
    return replace(parameter, entries=(replace(entry, name=google_name(name)),))
