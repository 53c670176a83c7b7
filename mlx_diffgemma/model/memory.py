"""How much memory a model will hold, from its configuration and the sizes of its files alone; nothing is loaded.

What a step computes over the vocabulary is the largest part after the weights. Where memory is short, PART_LOGITS are
read at a time, and counted so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlx_diffgemma.model.cache import BUFFER_STEP
from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma.model.kernels import MAX_CHUNK, PART_LOGITS

READ_ARRAYS = 2
"""Float32 arrays over the vocabulary that reading logits takes, for the positions that are read together."""
USUAL_PROMPT = 1024
"""Tokens of the prompt and answer with which a model must fit to be loaded."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes that a model holds while it answers, by what they are for."""

    weights: int
    """without the vision tower, which is not loaded"""
    logits: int
    """of a denoising step, over the vocabulary"""
    activations: int
    """of a layer, for a canvas or a chunk of the prompt"""
    prefix: int
    """keys and values"""

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.logits + self.activations + self.prefix


def memory_need(
    config: ModelConfig,
    weights: int,
    *,
    itemsize: int,
    tokens: int = USUAL_PROMPT,
    canvas: int | None = None,
    usable: int | None = None,
) -> MemoryNeed:
    """Return what a model with `weights` bytes of weights needs for `tokens` tokens of prompt and answer.

    itemsize: bytes per value of the compute dtype. canvas: its length, None for the model's. usable: bytes that MLX may
    use; if all positions at once need more, logits are counted in parts.
    """
    positions = canvas or config.canvas_length
    need = MemoryNeed(
        weights=weights,
        logits=logits_bytes(config, positions, itemsize=itemsize),
        activations=activation_bytes(config, max(positions, min(tokens, MAX_CHUNK)), itemsize=itemsize),
        prefix=cache_bytes(config, tokens, positions, itemsize=itemsize),
    )
    if usable is None or need.total <= usable:
        return need
    return replace(need, logits=logits_bytes(config, positions, itemsize=itemsize, most=PART_LOGITS))


def logits_bytes(config: ModelConfig, positions: int, *, itemsize: int, most: int | None = None) -> int:
    """Return the bytes of logits and of what reading them takes; most: how many are read together."""
    logits = positions * config.vocab_size
    return itemsize * logits + 4 * READ_ARRAYS * min(logits, most or logits)


def activation_bytes(config: ModelConfig, positions: int, *, itemsize: int) -> int:
    """Return the bytes that a layer holds for positions computed together, without stored scores of attention.

    Counted per position: four hidden states, and beside them either queries, keys, values and result of the attention,
    or the input, gate, up, their product and the output of the dense MLP and of every chosen expert.
    A prefill on a CPU, in float32, was measured to hold 2.2 times that.
    """
    attention = max(
        2 * (config.num_attention_heads + layer.num_key_value_heads) * layer.head_dim for layer in config.layers
    )
    expert = 2 * config.hidden_size + 3 * config.moe_intermediate_size
    maps = 3 * config.intermediate_size + config.top_k_experts * expert
    return positions * itemsize * (4 * config.hidden_size + max(attention, maps))


def cache_bytes(config: ModelConfig, tokens: int, canvas_length: int | None = None, *, itemsize: int) -> int:
    """Return the bytes of the keys and values of `tokens` tokens of prompt and answer; itemsize: bytes per value."""
    canvas = canvas_length or config.canvas_length
    longest = tokens + canvas + BUFFER_STEP
    positions = sum(
        (min(longest, config.sliding_window + canvas + BUFFER_STEP) if layer.sliding else longest)
        * layer.num_key_value_heads
        * layer.head_dim
        for layer in config.layers
    )
    return 2 * itemsize * positions
