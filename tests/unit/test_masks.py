"""Masks against literal matrices."""

from __future__ import annotations

import mlx.core as mx

from mlx_diffgemma.model.masks import causal, encoder_mask, sliding


def rows(mask: mx.array) -> list[str]:
    return ["".join(map(str, row)) for row in mask.astype(mx.int32).tolist()]


def test_causal_tokens_see_the_prefix_and_themselves() -> None:
    assert rows(causal(3, 2)) == ["11100", "11110", "11111"]


def test_sliding_tokens_see_one_window_that_includes_themselves() -> None:
    assert rows(sliding(4, 2, 3)) == ["111000", "011100", "001110", "000111"]


def test_full_layers_need_no_stored_mask() -> None:
    assert encoder_mask(2048, 100_000, None) == "causal"


def test_sliding_layers_need_a_stored_mask_only_beyond_one_window() -> None:
    assert encoder_mask(3, 5, 8) == "causal"
    beyond = encoder_mask(4, 5, 8)
    assert isinstance(beyond, mx.array)
    assert rows(beyond) == ["111111000", "111111100", "111111110", "011111111"]
