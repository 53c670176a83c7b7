"""The strategies by which a canvas is denoised, made from the options of a generation."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.generation_config import LOWEST_TEMPERATURE, GenerationConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.sampler import EntropyBoundSampler, Sampler
from mlx_diffgemma.sampling.schedule import LinearTemperature, Schedule
from mlx_diffgemma.sampling.stopping import StableAndConfident, StopRule, Unsurprised, UntilEnd


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The strategies that denoise one canvas."""

    sampler: Sampler
    schedule: Schedule
    stop: StopRule
    max_steps: int
    conditioning_top_k: int | None = None
    until_end: bool = False
    """whether a canvas need not converge after a stop string; `stop` judges end tokens by itself"""
    trims: bool = False
    """whether a canvas is cut after the end of the answer, once two drafts agree on its position"""
    prefix_top_k: int | None = None
    """positions of the prefix that steps after the first see in full-attention layers; None: all"""
    whole_every: int | None = None
    """how often a step computes all positions; others those that are not settled. None: every step computes all"""


def default_rules(model: DiffusionGemma, config: GenerationConfig, sampler: Sampler | None = None) -> Rules:
    """Return the rules for the options of `config`. Raises OptionError.

    sampler: instead of the entropy-bound sampler.
    """
    if sampler is not None and config.rows == "unsettled":
        raise OptionError("rows='unsettled' needs the entropy-bound sampler: leave out the sampler, or rows")
    return Rules(
        sampler=sampler
        or EntropyBoundSampler(
            vocab_size=model.config.vocab_size,
            entropy_bound=config.entropy_bound,
            greedy=config.is_greedy,
        ),
        schedule=schedule_of(config),
        stop=stop_rule(config),
        max_steps=config.max_steps,
        conditioning_top_k=config.conditioning_top_k,
        until_end=config.until_end,
        trims=config.trim,
        prefix_top_k=config.prefix_top_k,
        whole_every=config.whole_every if config.rows == "unsettled" else None,
    )


def schedule_of(config: GenerationConfig) -> Schedule:
    """Return the schedule from t_max to t_min, both multiplied by the temperature; 0 is greedy, at their own values."""
    factor = config.temperature or 1.0
    # See the lowest t_max: what is divided by less may leave the range of float32.
    highest = max(config.t_max * factor, LOWEST_TEMPERATURE)
    return LinearTemperature(t_min=min(config.t_min * factor, highest), t_max=highest, steps=config.max_steps)


def stop_rule(config: GenerationConfig) -> StopRule:
    """Return the reference's rule, wrapped in those that `config` asks for."""
    # A canvas cannot be stable over more steps than it has.
    stability = min(config.stability_threshold, config.max_steps)
    rule: StopRule = StableAndConfident(stability_threshold=stability, confidence_threshold=config.confidence_threshold)
    if config.mean_entropy is not None:
        # Steps are counted in 32 bits.
        first = min(config.min_steps, config.max_steps, 2**31 - 1)
        rule = Unsurprised(rule=rule, mean_entropy=config.mean_entropy, min_steps=first)
    if config.until_end and config.stop_tokens:
        rule = UntilEnd(rule=rule, stop_tokens=config.stop_tokens)
    return rule
