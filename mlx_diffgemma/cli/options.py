"""Dataclasses of options as command line options, and the options that programs share.

A command declares a parameter per dataclass; `spread_options` replaces it with the dataclass's options:

    @spread_options
    def answer(prompt: str, *, model: ModelOptions, chosen: ChosenOptions, common: CommonOptions) -> None: ...

Annotated with a dataclass, the parameter is an instance. Annotated with `Chosen`, it is a dict of the options that were
given, and an option that was not given stays out of it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args, get_origin, get_type_hints

import typer

from mlx_diffgemma.cli.console import reported
from mlx_diffgemma.device.environment import lengthen_command_buffers, prepare_float32
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.option import OptionField, option, option_fields

MODEL, OUTPUT = "Model", "Output"


def print_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        # Imported here: no other option needs it, and it costs time that --help does not have.
        from importlib.metadata import version

        typer.echo(version("mlx-diffgemma"))
        raise typer.Exit


def revision_option() -> Any:
    """Return the field `revision` of a program that loads a model."""
    return option(None, "Branch, tag or commit of the Hub repository.", MODEL, metavar="NAME")


def dtype_option() -> Any:
    """Return the field `dtype` of a program that computes with a model."""
    return option(
        None,
        "Number format to compute in.",
        MODEL,
        values=("bfloat16", "float32"),
        default_text="bfloat16 on a GPU, float32 on a CPU",
        eager=prepare_float32,
    )


def adapter_option() -> Any:
    """Return the field `adapter` of a program that loads a model with an adapter."""
    flags = ("--adapter", "--adapter-path")
    return option(None, "Folder of an adapter to apply to the model.", MODEL, flags=flags, metavar="DIR")


def force_option() -> Any:
    """Return the field `force` of a program that loads a model."""
    return option(False, "Load the model even if it needs more memory than MLX should use on this machine.", MODEL)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model to load, and how."""

    model: str | None = option(
        None,
        "Folder or Hub repository of the model.",
        MODEL,
        flags=("-m",),
        metavar="NAME",
        envvar="MLX_DIFFGEMMA_MODEL",
        default_text="$MLX_DIFFGEMMA_MODEL, or the demo in the package",
    )
    adapter: Path | None = adapter_option()
    revision: str | None = revision_option()
    dtype: str | None = dtype_option()
    force: bool = force_option()


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What every program has."""

    quiet: bool = option(False, "Print results and errors only.", OUTPUT, flags=("-q",))
    debug: bool = option(False, "Show the traceback of an error, and what is ignored in a JSON schema.", OUTPUT)
    version: bool = option(False, "Print the version and exit.", OUTPUT, eager=print_version)


@dataclass(frozen=True)
class Chosen:
    """Marks a parameter as the options of a dataclass that were given: Annotated[dict[str, Any], Chosen(...)]."""

    options: type
    without: tuple[str, ...] = ()


GenerationChoices: TypeAlias = Annotated[dict[str, Any], Chosen(GenerationConfig)]
"""The generation options that were given on the command line; see `generation_options.configured`."""


def spread_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer whose parameters of dataclasses of options are these options, one parameter each.

    Errors are reported in one line as the options `quiet` and `debug` say, see `console.reported`.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    groups: dict[str, _Group] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        group = _group(hints[name])
        if group is None:
            parameters.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))
        else:
            groups[name] = group
            parameters += group.parameters()

    flags = {each.name: each.flags[0] for group in groups.values() for each in group.fields}

    @functools.wraps(command)
    def run(**values: Any) -> None:
        with reported(debug=values.get("debug", False), quiet=values.get("quiet", False), flags=flags):
            # MLX is imported by the command.
            lengthen_command_buffers()
            given = {name: value for name, value in values.items() if name in hints and name not in groups}
            command(**given, **{name: group.value(values) for name, group in groups.items()})

    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@dataclass(frozen=True)
class _Group:
    """The options of a dataclass on a command line; `partial`: only those that were given count."""

    options: type
    fields: tuple[OptionField, ...]
    partial: bool

    def parameters(self) -> list[Parameter]:
        """Return a parameter for each option, and a hidden one for each earlier name."""
        found = [_parameter(each, each.name, partial=self.partial) for each in self.fields]
        former = [each for each in self.fields if each.option.former is not None]
        return found + [_parameter(each, str(each.option.former), partial=True) for each in former]

    def value(self, values: Mapping[str, Any]) -> Any:
        """Return the instance, or the dict of the options that were given."""
        found: dict[str, Any] = {}
        for each in self.fields:
            value = values[each.name]
            if value is None and each.option.former is not None:
                value = values[each.option.former]
            if not self.partial or not (value is None or value == []):
                found[each.name] = _converted(each, value)
        return found if self.partial else self.options(**found)


def _group(hint: Any) -> _Group | None:
    """Return the options that an annotation stands for, None for an ordinary parameter."""
    for mark in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if isinstance(mark, Chosen):
            fields = option_fields(mark.options)
            kept = tuple(each for name, each in fields.items() if name not in mark.without)
            return _Group(mark.options, kept, partial=True)
    if isinstance(hint, type) and is_dataclass(hint):
        return _Group(hint, tuple(option_fields(hint).values()), partial=False)
    return None


def _parameter(each: OptionField, name: str, *, partial: bool) -> Parameter:
    """Return the parameter of an option, under its own name or a hidden earlier one."""
    kind, default = _kind(each, partial=partial), None if partial else each.default
    if partial or each.optional:
        kind |= None
    return Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        default=Parameter.empty if default is MISSING else default,
        annotation=Annotated[kind, _typer_option(each, name, partial=partial)],
    )


def _typer_option(each: OptionField, name: str, *, partial: bool) -> Any:
    """Return what typer is told about an option besides its type and default."""
    about, hidden = each.option, name != each.name
    flags = (f"--{name}",) if hidden else each.flags
    if each.type is bool and (partial or each.default is True):
        flags = (f"{flags[0]}/--no-{flags[0].removeprefix('--')}", *flags[1:])
    note = _note(each, partial=partial)
    return typer.Option(
        *flags,
        help=f"{about.help} [{note}]" if note else about.help,
        rich_help_panel=about.panel,
        metavar=_metavar(each),
        min=about.minimum if about.none is None else about.none,
        hidden=hidden,
        envvar=about.envvar,
        is_eager=about.eager is not None,
        callback=about.eager,
        autocompletion=_completion(each.values) if each.values else None,
    )


def _completion(values: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Return a function that gives a shell the values that begin with what has been typed."""

    def matching(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return matching


def _metavar(each: OptionField) -> str | None:
    """Return how a value is written in a help page, None for a flag."""
    if each.option.metavar is not None or each.type is bool:
        return each.option.metavar
    kind = get_args(each.type)[0] if get_origin(each.type) is tuple else each.type
    return f"<{'|'.join(each.values)}>" if each.values else _METAVARS.get(kind, "TEXT")


_METAVARS = {int: "N", float: "NUMBER", Path: "PATH"}


def _note(each: OptionField, *, partial: bool) -> str | None:
    """Return what a help page says of the default; that of an option of the reference is the checkpoint's own."""
    about = each.option
    if each.required and not partial:
        return "required"
    if about.default_text is not None:
        return f"default: {about.default_text}"
    no_default = any(each.default is nothing for nothing in (MISSING, None, False))
    if no_default or (partial and about.reference is not None):
        return None
    return f"default: {'on' if each.default is True else each.default}"


def _kind(each: OptionField, *, partial: bool) -> Any:
    """Return the type that typer reads: texts are one text with commas unless repeated, and so is a schema."""
    if partial and get_origin(each.type) is Literal:
        # What is put over a checkpoint's defaults is checked with them, and refused with the exit code of an error.
        return str
    if get_origin(each.type) is tuple:
        kind = get_args(each.type)[0]
        return list[kind] if each.option.repeated or kind is not str else str
    return str if get_origin(each.type) is Mapping else each.type


def _converted(each: OptionField, value: Any) -> Any:
    """Return what was read from a command line as the value of the field."""
    if value == each.option.none:
        return None
    if get_origin(each.type) is tuple:
        listed = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        return tuple(cast("list[Any]", listed))
    return value
