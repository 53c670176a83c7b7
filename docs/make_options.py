"""Write docs/options.md from the fields of the option dataclasses: `python docs/make_options.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path

from mlx_diffgemma_convert.command_line import ResultOptions
from mlx_diffgemma_convert.convert_program import ConvertSettings
from mlx_diffgemma_convert.fuse_program import FuseSettings

from mlx_diffgemma.benchmark.settings import BenchmarkSettings
from mlx_diffgemma.cli.benchmark import OutputOptions
from mlx_diffgemma.cli.machine_report import MachineReportOptions
from mlx_diffgemma.cli.options import CommonOptions, ModelOptions
from mlx_diffgemma.cli.revision import RevisionOptions
from mlx_diffgemma.cli.training import AdapterOptions, RunOptions, SourceOptions
from mlx_diffgemma.edit import PartOptions
from mlx_diffgemma.generate import GenerateOptions
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.infill import GapOptions
from mlx_diffgemma.models import ListingOptions
from mlx_diffgemma.option import OptionField, option_fields
from mlx_diffgemma.presets import PresetOptions
from mlx_diffgemma.training.settings import TrainingSettings

PAGE = Path(__file__).with_name("options.md")

INTRODUCTION = """\
# Options

This page is made from the code by `python docs/make_options.py`; `--help` of each program says the same.

## Generation

Three ways to set them, the first in Python, the second on a command line, the third in a line of a `--batch` file:

```python
from mlx_diffgemma import load

session = load("demo")
print(session.generate("Count from 1 to 5", max_tokens=64, seed=1).text)
```
```sh
mlx_diffgemma generate --max-tokens 64 --seed 1 'Count from 1 to 5'
```
```json
{"prompt": "Count from 1 to 5", "max_tokens": 64, "seed": 1}
```

An option that is not set is the checkpoint's own (its `generation_config.json`), and otherwise the default below.
In Python, `config=` takes a whole `GenerationConfig` in place of the checkpoint's; options are put over it.
"""

PROGRAMS: dict[str, tuple[type, ...]] = {
    "Model: generate, infill, edit": (ModelOptions,),
    "Presets: generate, bench": (PresetOptions,),
    "generate": (GenerateOptions,),
    "infill": (GapOptions, RevisionOptions),
    "edit": (PartOptions, RevisionOptions),
    "train": (SourceOptions, AdapterOptions, TrainingSettings, RunOptions),
    "bench": (BenchmarkSettings, OutputOptions, MachineReportOptions),
    "convert": (ConvertSettings, ResultOptions),
    "fuse": (FuseSettings, ResultOptions),
    "models": (ListingOptions,),
    "Every program": (CommonOptions,),
}
"""The options of the programs besides those of a generation, by heading."""


def page() -> str:
    """Return the page."""
    return "\n".join([INTRODUCTION, *_generation(), *_programs()])


def _generation() -> Iterator[str]:
    """Yield the lines of a table per panel of generation options."""
    panel = None
    for each in option_fields(GenerationConfig).values():
        if each.option.panel != panel:
            panel = each.option.panel
            yield from (f"\n### {panel}\n", "| option | flag | default | what it does | in generation_config.json |")
            yield "|---|---|---|---|---|"
        reference = f"`{each.option.reference}`" if each.option.reference else ""
        yield f"| `{each.name}` | {_flags(each)} | {_default(each)} | {_meaning(each)} | {reference} |"


def _programs() -> Iterator[str]:
    """Yield the lines of a table per program."""
    for heading, groups in PROGRAMS.items():
        yield from (f"\n## {heading}\n", "| flag | default | what it does |", "|---|---|---|")
        for group in groups:
            for each in option_fields(group).values():
                yield f"| {_flags(each)} | {_default(each)} | {_meaning(each)} |"
    yield ""


def _flags(each: OptionField) -> str:
    return ", ".join(f"`{flag}`" for flag in each.flags)


def _default(each: OptionField) -> str:
    if each.default is MISSING:
        return "required"
    if each.option.default_text is not None:
        return each.option.default_text
    if each.default is None:
        return ""
    if isinstance(each.default, bool):
        return "on" if each.default else "off"
    listed = " ".join(map(str, each.default)) if isinstance(each.default, tuple) else str(each.default)
    return f"`{listed}`"


def _meaning(each: OptionField) -> str:
    """Return the help with values and range."""
    values = " or ".join(f"`{value}`" for value in each.values)
    details = [part for part in (values, each.option.allowed and each.option.allowed.text) if part]
    text = each.option.help.replace("|", "\\|").replace("<", "\\<")
    return f"{text} ({'; '.join(details)})" if details else text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
