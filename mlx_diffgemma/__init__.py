"""mlx-diffgemma: DiffusionGemma on Apple Silicon.

    from mlx_diffgemma import load
    session = load("path/or/repository")
    print(session.generate("Why is the sky blue?", max_tokens=64, seed=1).text)

A name is imported when it is first used, so that the programs answer --help without loading MLX.
"""

from __future__ import annotations

from importlib import import_module

# Type checkers take it for true. `typing` is not imported: Ctrl-C in that time would print a traceback.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mlx_diffgemma.completion import Completion
    from mlx_diffgemma.constraint.spec import Choices, JsonSchema, Regex
    from mlx_diffgemma.errors import DiffGemmaError
    from mlx_diffgemma.events import (
        BlockCommitted,
        CanvasStarted,
        Denoised,
        Event,
        Finished,
        GapFilled,
        Prefilled,
        Stats,
    )
    from mlx_diffgemma.generation.prefixes import Prefixes
    from mlx_diffgemma.generation_config import GenerationConfig
    from mlx_diffgemma.generation_options import GenerationOptions
    from mlx_diffgemma.infilling.result import Infilled
    from mlx_diffgemma.infilling.template import Gap
    from mlx_diffgemma.loading import load
    from mlx_diffgemma.model.prefix import Prefix
    from mlx_diffgemma.session import Session

__version__ = "0.1.0"
__all__ = [
    "BlockCommitted",
    "CanvasStarted",
    "Choices",
    "Completion",
    "Denoised",
    "DiffGemmaError",
    "Event",
    "Finished",
    "Gap",
    "GapFilled",
    "GenerationConfig",
    "GenerationOptions",
    "Infilled",
    "JsonSchema",
    "Prefilled",
    "Prefix",
    "Prefixes",
    "Regex",
    "Session",
    "Stats",
    "load",
]
_HOMES = {
    "completion": ("Completion",),
    "constraint.spec": ("Choices", "JsonSchema", "Regex"),
    "infilling.result": ("Infilled",),
    "errors": ("DiffGemmaError",),
    "events": ("BlockCommitted", "CanvasStarted", "Denoised", "Event", "Finished", "GapFilled", "Prefilled", "Stats"),
    "generation_config": ("GenerationConfig",),
    "generation_options": ("GenerationOptions",),
    "loading": ("load",),
    "generation.prefixes": ("Prefixes",),
    "model.prefix": ("Prefix",),
    "session": ("Session",),
    "infilling.template": ("Gap",),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
