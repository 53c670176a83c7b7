"""A tiny configuration, a model with random weights, a model with scripted predictions, paths of the fixtures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
from mlx.utils import tree_map

from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.config import LayerConfig, ModelConfig
from mlx_diffgemma.model.diffusion_gemma import CanvasRow, DiffusionGemma
from mlx_diffgemma.model.kernels import default_kernels
from mlx_diffgemma.model.logits import ProcessedLogits

FIXTURES = Path(__file__).parents[1] / "fixtures"
PARITY = FIXTURES / "parity"
PUBLISHED = FIXTURES / "checkpoints"

SLIDING = LayerConfig(kind="sliding_attention", head_dim=8, num_key_value_heads=2)
FULL = LayerConfig(kind="full_attention", head_dim=16, num_key_value_heads=1)


def processed(logits: mx.array) -> ProcessedLogits:
    """Return logits [B, C, V] as those of a step."""
    return ProcessedLogits.of(logits, default_kernels())


def tiny_config(**changes: object) -> ModelConfig:
    """Return a configuration of four layers of both kinds, a window of 8, canvases of 16."""
    values = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "num_experts": 6,
        "top_k_experts": 2,
        "num_attention_heads": 4,
        "layers": (SLIDING, FULL, SLIDING, FULL),
        "vocab_size": 64,
        "sliding_window": 8,
        "canvas_length": 16,
        "max_position_embeddings": 512,
    }
    return ModelConfig(**{**values, **changes})


def random_model(config: ModelConfig | None = None, seed: int = 0) -> DiffusionGemma:
    """Return a model with random weights whose outputs are neither flat nor overflowing."""
    model = DiffusionGemma(config or tiny_config())
    keys = iter(mx.random.split(mx.random.key(seed), 500))
    model.update(
        tree_map(
            lambda array: (
                mx.random.normal(array.shape, key=next(keys)) * (0.2 if array.ndim == 1 else array.shape[-1] ** -0.5)
                + (1.0 if array.ndim == 1 else 0.0)
            ),
            model.parameters(),
        )
    )
    mx.eval(model.parameters())
    return model


def encoded(model: DiffusionGemma, tokens: mx.array, cache: Cache) -> mx.array:
    """The final hidden states of one row, which goes into its cache."""
    (hidden,) = model.encode([tokens], [cache])
    return hidden


def denoised(model: DiffusionGemma, canvas: mx.array, cache: Cache, signal: mx.array | None = None) -> mx.array:
    """The logits of one canvas."""
    (hidden,) = model.denoise([CanvasRow(canvas, cache, signal)])
    return model.logits(hidden)


class ScriptedModel:
    """Predicts, in its k-th denoising step, the k-th canvas of the script, with certainty `margin` (a logit).

    It records the tokens that it encodes, and has the methods and attributes that the engine uses.
    """

    def __init__(self, script: Sequence[Sequence[int]], vocab_size: int = 32, margin: float = 30.0) -> None:
        self.script = [list(canvas) for canvas in script]
        self.margin = margin
        self.step = 0
        self.encoded: list[list[int]] = []
        self.kernels = default_kernels()
        self.config = SimpleNamespace(
            vocab_size=vocab_size, canvas_length=len(self.script[0]), max_position_embeddings=1000
        )

    def make_cache(self) -> Cache:
        """Return a cache without layers."""
        return Cache((), 1)

    def encode(self, rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
        """Remembers the tokens."""
        for tokens, cache in zip(rows, caches, strict=True):
            self.encoded.append(tokens[0].tolist())
            cache.offset += tokens.shape[1]
        return list(rows)

    def denoise(self, rows: Sequence[CanvasRow]) -> list[mx.array]:
        """The next canvas of the script as logits."""
        (row,) = rows
        if row.signal is None and self.step:
            # After the last step of a canvas the graph of another step is built, and not used.
            self.step -= 1
        target = mx.array([self.script[min(self.step, len(self.script) - 1)]])
        self.step += 1
        ids = mx.arange(self.config.vocab_size)
        return [mx.where(target[..., None] == ids, self.margin, 0.0)]

    def processed_logits(self, hidden: mx.array, temperature: list[float]) -> ProcessedLogits:
        """Return the logits of the script, divided by the temperature."""
        return ProcessedLogits(hidden, temperature, None, default_kernels())

    def signal(self, processed: ProcessedLogits, top_k: int | None = None, total: mx.array | None = None) -> mx.array:
        """Return zeros: the script needs no conditioning."""
        return mx.zeros((*processed.shape[:2], 1))


class Shrinking(ScriptedModel):
    """Says as much of its script as it is asked for, and is never sure of it."""

    def __init__(self, script: Sequence[Sequence[int]]) -> None:
        super().__init__(script, margin=2)

    def denoise(self, rows: Sequence[CanvasRow]) -> list[mx.array]:
        """The next canvas of the script, as long as the canvas that is left."""
        return [hidden[:, : rows[0].canvas.shape[1]] for hidden in super().denoise(rows)]


class Doubting(ScriptedModel):
    """Its encoder finds the tokens of `doubted`, by position in the text after the prompt, unlikely."""

    def __init__(self, script: Sequence[Sequence[int]], doubted: Sequence[int]) -> None:
        super().__init__(script)
        self.doubted = doubted
        self.peeked: list[list[int]] = []

    def embed(self, tokens: mx.array) -> mx.array:
        """Return the tokens."""
        return tokens

    def peek(self, rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
        """Hidden states that say where they are and which token comes next, as `logits` reads them."""
        (embeddings,), (cache,) = rows, caches
        self.peeked.append(embeddings[0].tolist())
        first = cache.offset - 2
        places = mx.arange(first + 1, first + 1 + embeddings.shape[1])
        following = mx.concatenate([embeddings[0, 1:], mx.array([0])])
        return [mx.stack([places, following], axis=-1)[None]]

    def encode(self, rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
        """Remembers the tokens, and returns the hidden state before the first of the script."""
        super().encode(rows, caches)
        return [mx.array([[[0, self.script[0][0]]]])]

    def logits(self, hidden: mx.array) -> mx.array:
        """Return logits that are sure of the token that comes next, unless it is doubted."""
        certain = hidden[..., 1:] == mx.arange(self.config.vocab_size)
        doubted = (hidden[..., :1] == mx.array(self.doubted)).any(axis=-1, keepdims=True)
        return mx.where(certain & ~doubted, 30.0, 0.0)
