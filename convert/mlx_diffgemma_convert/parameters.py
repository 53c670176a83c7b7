"""The text parameters that a configuration implies: what a source must hold, in the order in which it is written."""

from __future__ import annotations

from mlx.utils import tree_flatten

from mlx_diffgemma.checkpoint.names import BARE_EXPERTS
from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

Shape = tuple[int, ...]


def text_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Name -> shape of every text parameter, unpacked, as the model itself has them; nothing is allocated."""
    parameters = dict(tree_flatten(DiffusionGemma(config).parameters()))
    return {name: tuple(array.shape) for name, array in parameters.items()}


def google_name(name: str) -> str:
    """A parameter's name in Google's files, where the expert tensors have no ending."""
    bare = name.removesuffix(".weight")
    return bare if bare.endswith(BARE_EXPERTS) else name
