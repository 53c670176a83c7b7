"""One training from beginning to end: what is asked for -> files in a folder.

1  the folder: new, or with a state to go on from
2  the model, its trainable parameters              adapters, or all
3  the data in token ids
4  the loop                                         events, each logged
5  at every save                                    OUT/state, OUT/adapters.safetensors, OUT/loss.png
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_diffgemma.checkpoint.adapters import ROUTER, LoRA, adapter_config, attach_adapter, save_adapter
from mlx_diffgemma.errors import DataError, OptionError, TrainingError, out_of_memory
from mlx_diffgemma.loading import load
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.session import Session
from mlx_diffgemma.training.batches import Batches
from mlx_diffgemma.training.data import TRAIN, VALID, Conversation, Example, conversations, tokenized
from mlx_diffgemma.training.evaluation import HeldOut, Question
from mlx_diffgemma.training.forward import checkpointed, plain
from mlx_diffgemma.training.gradients import Workers
from mlx_diffgemma.training.log import PICTURE, Log, draw
from mlx_diffgemma.training.loop import Pace, TrainingEvent, train
from mlx_diffgemma.training.settings import TrainingSettings
from mlx_diffgemma.training.state import State, fingerprint, fingerprint_of_weights, load_state, save_state, saved_step

STATE = "state"
PADDING = 0
"""What stands behind the end token; the family's <pad>."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A training, before anything is loaded."""

    model: str
    data: str
    out: Path
    settings: TrainingSettings
    pace: Pace
    lora: LoRA | None
    """None trains every parameter"""
    router: bool = False
    """train the routers too"""
    revision: str | None = None
    dtype: str | None = None
    answers: int = 8
    """held-out questions answered at each evaluation"""
    checkpoint: bool = False
    workers: int = 1
    resume: bool = False

    @property
    def adapted(self) -> LoRA | None:
        """`lora`, with the routers where they are trained too."""
        if self.lora is None or not self.router:
            return self.lora
        return dataclasses.replace(self.lora, keys=self.lora.keys + ROUTER)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A training that is ready to start."""

    plan: TrainingPlan
    session: Session
    train: Batches
    held_out: HeldOut | None
    start: State | None
    facts: dict[str, Any]

    @property
    def trainable(self) -> int:
        """Parameters that are trained."""
        flat = cast("list[tuple[str, mx.array]]", tree_flatten(self.session.model.trainable_parameters()))
        return sum(each.size for _, each in flat)


def prepare(plan: TrainingPlan, progress: Callable[[Iterable[Example], int], Iterable[Example]]) -> Prepared:
    """Check everything and load it: phases 1 to 3. Raises DiffGemmaError."""
    step = saved_step(plan.out / STATE)
    if step is not None and not plan.resume:
        raise TrainingError(
            f"{plan.out} holds a training at step {step}: add --resume to go on, or choose another folder"
        )
    if step is None and plan.resume:
        raise TrainingError(f"{plan.out} holds no training to resume")
    asked, held_out = conversations(plan.data, TRAIN), conversations(plan.data, VALID)
    if not asked:
        raise DataError(f"{plan.data} has no training data: put one JSON object per line into {TRAIN}.jsonl")
    session = load(plan.model, revision=plan.revision, dtype=plan.dtype or ("float32" if plan.lora is None else None))
    weights = fingerprint_of_weights(session.model)
    make_trainable(session.model, plan)

    def examples(found: Sequence[Conversation]) -> list[Example]:
        stops = session.defaults.stop_tokens
        made = tokenized(found, session.tokenizer, stops, plan.settings.max_seq_length)
        return list(progress(made, len(found)))

    train_examples, valid_examples = examples(asked), examples(held_out)
    facts = {
        "settings": dataclasses.asdict(plan.settings),
        "lora": None if plan.lora is None else dataclasses.asdict(plan.lora),
        "router": plan.router,
        "workers": plan.workers,
        "model": weights,
        "data": fingerprint(train_examples),
    }
    return Prepared(
        plan=plan,
        session=session,
        train=_batches(session, train_examples, plan.settings),
        held_out=HeldOut(
            session=session,
            # Losses of trainings with other noise are to be compared.
            batches=_batches(session, valid_examples, dataclasses.replace(plan.settings, noise_power=1.0)),
            questions=[Question(*pair) for pair in zip(held_out, valid_examples, strict=True)][: plan.answers],
            causal_weight=plan.settings.causal_weight,
        )
        if valid_examples
        else None,
        start=None if step is None else load_state(plan.out / STATE, facts),
        facts=facts,
    )


def make_trainable(model: DiffusionGemma, plan: TrainingPlan) -> None:
    """Unfreeze what the plan trains. Raises OptionError where packed weights would have to be."""
    if plan.adapted is not None:
        attach_adapter(model, plan.adapted, plan.settings.seed)
        return
    if any(name.endswith(".scales") for name, _ in tree_flatten(model.parameters())):
        raise OptionError("a quantized model cannot be trained in full: train an adapter, or name unquantized weights")
    model.unfreeze()
    if not plan.router:
        for layer in model.layers:
            layer.router.freeze()


def run(ready: Prepared) -> Generator[TrainingEvent]:
    """Phases 4 and 5. Closing the generator saves what was reached. Raises TrainingError, OutOfMemoryError."""
    plan, model = ready.plan, ready.session.model
    log = Log(plan.out, 0 if ready.start is None else ready.start.step)
    workers = Workers(model, plan.workers, checkpointed if plan.checkpoint else plain, plan.settings.causal_weight)
    about = {"model": plan.model, "data": plan.data, "settings": ready.facts["settings"]}
    config = adapter_config(plan.adapted, model, about)

    def save(state: State) -> None:
        save_state(plan.out / STATE, state, ready.facts)
        save_adapter(plan.out, model, config)
        if log.records:
            draw(log.records, plan.out / PICTURE)

    remedy = "lower batch_size, raise accumulate instead, or add --grad-checkpoint"
    evaluate = ready.held_out.evaluate if ready.held_out else None
    try:
        steps = train(
            model, workers, ready.train, plan.settings, pace=plan.pace, start=ready.start, save=save, evaluate=evaluate
        )
        # Closed by name: what goes wrong when it saves would be lost where the garbage collector closes it.
        with out_of_memory("training", remedy), closing(steps):
            for event in steps:
                log.add(event)
                yield event
    finally:
        workers.close()
        log.close()


def _batches(session: Session, examples: Sequence[Example], settings: TrainingSettings) -> Batches:
    config = session.model.config
    return Batches(
        examples=examples,
        rows=settings.batch_size,
        canvas=config.canvas_length,
        vocabulary=config.vocab_size,
        pad=PADDING,
        seed=settings.seed,
        mask_prompt=settings.mask_prompt,
        noise_power=settings.noise_power,
    )
