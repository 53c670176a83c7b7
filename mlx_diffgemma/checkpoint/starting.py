"""The start of a training: trainable low-rank changes get the values of an adapter of mlx-lm or PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_diffgemma.checkpoint.adapters import WEIGHTS, low_rank_scale, read_adapter_config
from mlx_diffgemma.checkpoint.names import DECODER
from mlx_diffgemma.checkpoint.peft import PEFT_WEIGHTS, PeftAdapter, is_peft, read_peft
from mlx_diffgemma.errors import AdapterError
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma


class _Factor(NamedTuple):
    """One factor of a change, under the name that it has in the model; `rank` is the change's."""

    name: str
    value: mx.array
    rank: int


def start_from(model: DiffusionGemma, folder: Path, scale: float) -> None:
    """Let the trainable changes of `model`, which `scale` multiplies, begin as those of the adapter in `folder`.

    Raises AdapterError for an adapter that changes what is not trained, or with another rank.
    """
    settings = read_adapter_config(folder)
    if is_peft(settings):
        factors = _peft_factors(read_peft(folder, settings), scale)
    else:
        factors = _mlx_factors(folder, settings, scale)
    trained: dict[str, mx.array] = dict(tree_flatten(model.trainable_parameters()))
    found: list[tuple[str, mx.array]] = []
    for factor in factors:
        own = trained.get(factor.name)
        if own is None:
            module = factor.name.rpartition(".")[0]
            raise AdapterError(
                f"the adapter in {folder} changes {module}, which is not trained: see --num-layers, --experts, --router"
            )
        if own.shape != factor.value.shape:
            raise AdapterError(
                f"the adapter in {folder} has {factor.name} of shape {list(factor.value.shape)}, and the training "
                f"{list(own.shape)}: pass --rank {factor.rank}, and the model that the adapter was trained on"
            )
        found.append((factor.name, factor.value.astype(own.dtype)))
    model.load_weights(found, strict=False)
    mx.eval(model.parameters())


def _mlx_factors(folder: Path, settings: dict[str, Any], scale: float) -> Iterator[_Factor]:
    if settings.get("fine_tune_type", "lora") != "lora":
        raise AdapterError(f"the adapter in {folder} holds no low-rank changes: fuse it, and train on the result")
    own = low_rank_scale(folder, settings)
    arrays = cast("dict[str, mx.array]", mx.load(str(folder / WEIGHTS)))
    for name, value in arrays.items():
        # A linear map has lora_b [rank, out], a stack of experts [experts, out, rank].
        is_second = name.endswith(".lora_b")
        rank = value.shape[-1] if (value.ndim == 3) == is_second else value.shape[-2]
        yield _Factor(name, value * (own / scale) if is_second else value, rank)


def _peft_factors(adapter: PeftAdapter, scale: float) -> Iterator[_Factor]:
    if not adapter.is_shared():
        raise AdapterError(
            f"the adapter in {adapter.folder} changes the layers of the encoder and of the decoder differently, and "
            "here one change is trained for both: use it with --adapter"
        )
    arrays = cast("dict[str, mx.array]", mx.load(str(adapter.folder / PEFT_WEIGHTS)))
    for path, change in adapter.decoder.items():
        rank = change.a.shape[0]
        yield _Factor(f"{DECODER}{path}.lora_a", arrays[change.a.name].T, rank)
        yield _Factor(f"{DECODER}{path}.lora_b", arrays[change.b.name].T * (change.scale / scale), rank)
