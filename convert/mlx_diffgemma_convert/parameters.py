"""The text parameters that a configuration implies: those that a source must hold, in the order of the output."""

from __future__ import annotations

from mlx.utils import tree_flatten

from mlx_diffgemma.checkpoint.names import BARE_EXPERTS
from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma


def text_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every text parameter of the model, not quantized. Allocates no weights."""
    parameters = dict(tree_flatten(DiffusionGemma(config).parameters()))
    return {name: tuple(array.shape) for name, array in parameters.items()}


def google_name(name: str) -> str:
    """Return a parameter's name in Google's files, where the expert tensors do not end in `.weight`."""
    bare = name.removesuffix(".weight")
    return bare if bare.endswith(BARE_EXPERTS) else name
