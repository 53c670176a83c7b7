"""Options: the defaults, the file's names for them, and their ranges."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from tiny import PUBLISHED

from mlx_diffgemma.checkpoint.defaults import parse_generation_config
from mlx_diffgemma.constraint.spec import Regex
from mlx_diffgemma.errors import ConfigError, OptionError
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import configured

OURS = {
    "conditioning_top_k": 64,
    "until_end": True,
    "allow_empty": False,
    "mean_entropy": None,
    "min_steps": 12,
    "first_canvas": None,
    "rows": "all",
    "whole_every": 4,
    "prefix_top_k": None,
    "trim": False,
    "verify": None,
    "mode": "canvas",
    "draft_steps": 1,
    "temperature": 1.0,
    "top_p": 0.95,
}
"""Options that the reference does not have."""
DEFAULTS = {
    "max_tokens": 256,
    "canvas_length": None,
    "max_steps": 48,
    "t_min": 0.4,
    "t_max": 0.8,
    "entropy_bound": 0.1,
    "stability_threshold": 1,
    "confidence_threshold": 0.005,
    "seed": 0,
    "greedy": False,
    **OURS,
    "stop_tokens": (1, 106, 50),
    "stop": (),
    "system": None,
    "thinking": False,
    "raw": False,
    "constraint": None,
}


def test_the_defaults_are_those_of_the_reference_and_a_few_of_ours() -> None:
    assert asdict(GenerationConfig()) == DEFAULTS


def test_exact_turns_off_all_that_the_reference_does_not_do() -> None:
    mine = GenerationConfig(
        mean_entropy=0.1, trim=True, verify=0.5, mode="causal", seed=7, max_tokens=9, first_canvas=8
    )
    exact = mine.exact()
    assert (exact.conditioning_top_k, exact.until_end, exact.allow_empty) == (None, False, True)
    assert (exact.mean_entropy, exact.trim, exact.verify, exact.mode) == (None, False, None, "canvas")
    assert exact.first_canvas is None
    assert (exact.seed, exact.max_tokens) == (7, 9)
    kept = {name: value for name, value in asdict(exact).items() if name not in OURS}
    assert kept == {name: value for name, value in asdict(mine).items() if name not in OURS}


def test_the_file_of_the_release_says_the_same() -> None:
    raw = json.loads((PUBLISHED / "generation_config.json").read_text())
    assert asdict(parse_generation_config(raw)) == DEFAULTS


def test_the_files_names_are_understood() -> None:
    raw = {
        "max_new_tokens": 10,
        "max_denoising_steps": 5,
        "t_min": 0.1,
        "t_max": 1,
        "stability_threshold": 3,
        "confidence_threshold": 0.5,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 2},
        "eos_token_id": 4,
    }
    config = parse_generation_config(raw)
    assert (config.max_tokens, config.max_steps, config.t_min, config.t_max) == (10, 5, 0.1, 1)
    assert (config.stability_threshold, config.confidence_threshold, config.entropy_bound, config.stop_tokens) == (
        3,
        0.5,
        2.0,
        (4,),
    )


def test_nulls_keep_the_defaults() -> None:
    raw = {"t_min": None, "sampler_config": None, "eos_token_id": None}
    assert asdict(parse_generation_config(raw)) == DEFAULTS
    assert parse_generation_config(raw, stop_tokens=(5,)).stop_tokens == (5,)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"max_new_tokens": "many"}, "max_new_tokens must be a number, not 'many'"),
        ({"max_denoising_steps": 1.5}, "max_denoising_steps must be a number"),
        ({"t_min": 0.9}, "t_min=0.9 must not be above t_max=0.8"),
        ({"sampler_config": {"_cls_name": "Other", "entropy_bound": 1}}, "is not an EntropyBoundSamplerConfig"),
        ({"sampler_config": 3}, "sampler_config must be an object"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_generation_config(raw)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0 must be at least 1"),
        ({"max_steps": 0}, "max_steps=0 must be at least 1"),
        ({"canvas_length": 0}, "canvas_length=0 must be at least 1, or None"),
        ({"first_canvas": 0}, "first_canvas=0 must be at least 1, or None"),
        ({"rows": "some"}, "rows='some' must be all or unsettled"),
        ({"whole_every": 0}, "whole_every=0 must be at least 1"),
        ({"prefix_top_k": 0}, "prefix_top_k=0 must be at least 1, or None"),
        ({"first_canvas": 2.5}, "first_canvas=2.5 must be a whole number, or None"),
        ({"t_min": -0.1}, "t_min=-0.1 must be at least 0"),
        ({"t_min": 0.0, "t_max": 0.0}, "t_max=0.0 must be at least 0.001"),
        ({"t_min": 0.9}, "t_min=0.9 must not be above t_max=0.8"),
        ({"entropy_bound": 0.0}, "entropy_bound=0.0 must be above 0 nats"),
        ({"stability_threshold": -1}, "stability_threshold=-1 must be at least 0 steps"),
        ({"confidence_threshold": 0.0}, "confidence_threshold=0.0 must be above 0 nats"),
        ({"seed": -1}, "seed=-1 must be from 0 to"),
        ({"stop_tokens": (-1,)}, "stop_tokens="),
        ({"max_tokens": 10.5}, "max_tokens=10.5 must be a whole number"),
        ({"max_tokens": "5"}, "max_tokens='5' must be a whole number"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number"),
        ({"t_max": float("inf")}, "t_max=inf must be a number"),
        ({"entropy_bound": float("nan")}, "entropy_bound=nan must be a number"),
        ({"system": 5}, "system=5 must be text"),
        ({"t_min": "low"}, "t_min='low' must be a number"),
        ({"canvas_length": 2.5}, "canvas_length=2.5 must be a whole number, or None"),
        ({"stop_tokens": 5}, "stop_tokens=5 must be a tuple of token ids"),
        ({"stop_tokens": [1]}, r"stop_tokens=\[1\] must be a tuple of token ids"),
        ({"stop_tokens": (2**31,)}, r"stop_tokens=\(2147483648,\) must be a tuple of token ids"),
        ({"max_tokens": 2**64}, r"max_tokens=18446744073709551616 must be a number below 2\*\*64"),
        ({"t_max": 10**5000}, r"t_max=\(more than 80 digits\) must be a number below 2\*\*64"),
        ({"max_steps": -(10**400)}, r"max_steps=-\(more than 80 digits\) must be a number below 2\*\*64"),
        ({"system": ["a" * 500]}, r"system=\['a{75}\.\.\. must be text"),
        ({"stop": "END"}, r"stop='END' must be a tuple of texts: \('END',\)"),
        ({"stop": None}, "stop=None must be a tuple of texts"),
        ({"stop": ("a", "")}, "must be a tuple of texts that are not empty"),
        ({"stop": ("a", 5)}, "must be a tuple of texts that are not empty"),
        ({"stop": ("a\ud800",)}, "has a character that no bytes of an answer form: leave it out"),
        ({"stop": ("\ufffd",)}, "has a character that no bytes of an answer form: leave it out"),
        ({"stop": ("a",), "constraint": Regex("b")}, "stop cannot be kept with regex, json_schema or choices"),
        ({"conditioning_top_k": 0}, "conditioning_top_k=0 must be at least 1, or None"),
        ({"mean_entropy": 0.0}, "mean_entropy=0.0 must be above 0 nats, or None"),
        ({"min_steps": 0}, "min_steps=0 must be at least 1"),
        ({"verify": 1.0}, "verify=1.0 must be a probability between 0 and 1, or None"),
        ({"verify": "much"}, "verify='much' must be a number, or None"),
        ({"mode": "fast"}, "mode='fast' must be canvas or causal"),
        ({"temperature": 0.0001}, "temperature=0.0001 must be 0, or at least 0.001"),
        ({"top_p": 0.0}, "top_p=0.0 must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p=1.5 must be above 0 and at most 1"),
        ({"raw": True, "thinking": True}, "raw sends the prompt as it is"),
        ({"raw": True, "system": "Be brief."}, "raw sends the prompt as it is"),
    ],
)
def test_options_out_of_range_are_named_with_their_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        GenerationConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "causal", "max_steps": 3}, "max_steps=3 has no effect with mode=causal: leave it out"),
        ({"mode": "causal", "draft_steps": 2}, "draft_steps=2 has no effect with mode=causal: leave it out"),
        ({"mode": "speculative", "trim": True}, "trim=True has no effect with mode=speculative: leave it out"),
        ({"whole_every": 2}, "whole_every=2 has no effect without rows='unsettled': leave it out, or give both"),
        ({"mode": "causal", "prefix_top_k": 5}, "prefix_top_k=5 has no effect with mode=causal: leave it out"),
        ({"mode": "causal", "verify": 0.5}, "verify=0.5 has no effect with mode=causal: leave it out"),
        ({"mode": "causal", "first_canvas": 8}, "first_canvas=8 has no effect with mode=causal: leave it out"),
        ({"top_p": 0.5}, "top_p=0.5 has no effect with mode=canvas: leave it out"),
        ({"min_steps": 2}, "min_steps=2 has no effect without mean_entropy: leave it out, or give both"),
    ],
)
def test_an_option_without_effect_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}$"):
        configured(GenerationConfig(), options)


def test_an_option_of_the_base_may_be_without_effect() -> None:
    base = GenerationConfig(max_steps=3)
    assert configured(base, {"mode": "causal"}).max_steps == 3
    assert configured(base, {"mode": "causal", "top_p": 0.5}).top_p == 0.5
    assert configured(base, {"mode": "speculative", "top_p": 0.5, "canvas_length": 8}).canvas_length == 8
    assert configured(base, {"mean_entropy": 0.1, "min_steps": 2}).min_steps == 2
