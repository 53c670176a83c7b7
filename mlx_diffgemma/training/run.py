"""One training from beginning to end: a plan -> files in a folder.

1  folder   new, or with a state to go on from
2  model    with its trainable parameters: an adapter, or all of them
3  data     in token ids
4  loop     its events, each logged
5  saves    OUT/state, OUT/adapters.safetensors, OUT/loss.png
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_diffgemma.checkpoint.adapters import (
    ROUTER,
    LoRA,
    adapter_config,
    attach_adapter,
    read_adapter_config,
    refuse_foreign_adapter,
    save_adapter,
)
from mlx_diffgemma.checkpoint.starting import start_from
from mlx_diffgemma.device.machine import caption, this_machine
from mlx_diffgemma.display.bar import Progress
from mlx_diffgemma.errors import DataError, OptionError, TrainingError, out_of_memory
from mlx_diffgemma.loading import load_trainable
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.session import Session
from mlx_diffgemma.training.batches import Batches
from mlx_diffgemma.training.data import (
    TRAIN,
    VALID,
    Conversation,
    Example,
    read_conversations,
    tokenize_conversations,
)
from mlx_diffgemma.training.evaluation import HeldOut, Question
from mlx_diffgemma.training.forward import checkpointed, plain
from mlx_diffgemma.training.gradients import Workers
from mlx_diffgemma.training.log import Log
from mlx_diffgemma.training.loop import Pace, TrainingEvent, training_events
from mlx_diffgemma.training.plot import PICTURE, can_draw_losses, draw_losses
from mlx_diffgemma.training.settings import TrainingSettings
from mlx_diffgemma.training.state import (
    State,
    examples_fingerprint,
    load_state,
    save_state,
    saved_step,
    weights_fingerprint,
)

_STATE = "state"
_PADDING = 0
"""The id of <pad>, which follows the end token."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """All that decides a training; nothing is loaded yet."""

    model: str
    data: str
    """a folder or a Hub dataset"""
    out: Path
    """the folder for the results"""
    settings: TrainingSettings
    pace: Pace
    lora: LoRA | None
    """the adapter; None trains every parameter"""
    router: bool = False
    """train the routers too"""
    start_from: Path | None = None
    """the folder of an adapter whose changes the training begins with"""
    revision: str | None = None
    dtype: str | None = None
    force: bool = False
    """load a model that memory may not hold"""
    answers: int = 8
    """held-out questions answered at each evaluation"""
    checkpoint: bool = False
    """compute layers twice instead of keeping what they compute for the backward pass"""
    workers: int = 1
    """batches computed at once, each in a thread"""
    resume: bool = False

    @property
    def adapted(self) -> LoRA | None:
        """The adapter, which has the routers too if they are trained."""
        if self.lora is None or not self.router:
            return self.lora
        return dataclasses.replace(self.lora, keys=self.lora.keys + ROUTER)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedTraining:
    """A training with model and data loaded."""

    plan: TrainingPlan
    session: Session
    train: Batches
    held_out: HeldOut | None
    start: State | None
    facts: dict[str, Any]
    """what has to be equal when the training is resumed"""

    @property
    def trainable(self) -> int:
        """The number of values that are trained."""
        flat = cast("list[tuple[str, mx.array]]", tree_flatten(self.session.model.trainable_parameters()))
        return sum(each.size for _, each in flat)


def prepare_training(plan: TrainingPlan, progress: Progress) -> PreparedTraining:
    """Check and load everything: phases 1 to 3. Raises DiffGemmaError.

    progress: shows the reading of the weights and the data.
    """
    refuse_foreign_adapter(plan.out)
    _check_start(plan)
    step = saved_step(plan.out / _STATE)
    if step is not None and not plan.resume:
        raise TrainingError(
            f"{plan.out} holds a training at step {step}: add --resume to go on, or choose another folder"
        )
    if step is None and plan.resume:
        raise TrainingError(f"{plan.out} holds no training to resume: leave --resume out, or name another folder")
    taught, held_out = read_conversations(plan.data, TRAIN), read_conversations(plan.data, VALID)
    if not taught:
        raise DataError(f"{plan.data} has no training data: put one JSON object per line into {TRAIN}.jsonl")
    dtype = plan.dtype or ("float32" if plan.lora is None else None)
    session = load_trainable(plan.model, revision=plan.revision, dtype=dtype, progress=progress, force=plan.force)
    weights = weights_fingerprint(session.model)
    make_trainable(session.model, plan)
    if plan.start_from is not None and plan.adapted is not None:
        start_from(session.model, plan.start_from, plan.adapted.parameters["scale"])

    def examples(found: Sequence[Conversation]) -> list[Example]:
        stop_tokens = session.defaults.stop_tokens
        made = tokenize_conversations(found, session.tokenizer, stop_tokens, plan.settings.max_seq_length)
        return list(progress("reading the data", made, len(found)))

    train_examples, valid_examples = examples(taught), examples(held_out)
    facts = {
        "settings": dataclasses.asdict(plan.settings),
        "lora": None if plan.lora is None else dataclasses.asdict(plan.lora),
        "router": plan.router,
        "workers": plan.workers,
        "model": weights,
        "data": examples_fingerprint(train_examples),
    }
    return PreparedTraining(
        plan=plan,
        session=session,
        train=_batches(session, train_examples, plan.settings),
        held_out=HeldOut(
            session=session,
            # One noise for all trainings, so that their losses can be compared.
            batches=_batches(session, valid_examples, dataclasses.replace(plan.settings, noise_power=1.0)),
            questions=_questions(held_out, valid_examples)[: plan.answers],
            causal_weight=plan.settings.causal_weight,
        )
        if valid_examples
        else None,
        start=None if step is None else load_state(plan.out / _STATE, facts),
        facts=facts,
    )


def _check_start(plan: TrainingPlan) -> None:
    """Check the adapter to start from, before weights are read. Raises OptionError, AdapterError."""
    if plan.start_from is None:
        return
    if plan.lora is None:
        raise OptionError("--start-from names an adapter, and --full trains none: leave one of them out")
    if plan.resume:
        raise OptionError("--resume goes on with the saved state: leave out --start-from")
    read_adapter_config(plan.start_from)


def _questions(held_out: Sequence[Conversation], examples: Sequence[Example]) -> list[Question]:
    """Return the conversations that can be asked; a text cannot."""
    return [Question(*pair) for pair in zip(held_out, examples, strict=True) if pair[0].text is None]


def make_trainable(model: DiffusionGemma, plan: TrainingPlan) -> None:
    """Unfreeze what the plan trains. Raises OptionError if that includes packed weights."""
    if plan.adapted is not None:
        attach_adapter(model, plan.adapted, plan.settings.seed)
        return
    if any(name.endswith(".scales") for name, _ in tree_flatten(model.parameters())):
        raise OptionError("a quantized model cannot be trained in full: train an adapter, or name unquantized weights")
    model.unfreeze()
    if not plan.router:
        for layer in model.layers:
            layer.router.freeze()


def run_training(ready: PreparedTraining) -> Generator[TrainingEvent]:
    """Train, log and save: phases 4 and 5. Closing the generator saves the last step.

    Raises TrainingError, OutOfMemoryError.
    """
    plan, model = ready.plan, ready.session.model
    log = Log(plan.out, 0 if ready.start is None else ready.start.step)
    workers = Workers(model, plan.workers, checkpointed if plan.checkpoint else plain, plan.settings.causal_weight)
    about = {"model": plan.model, "data": plan.data, "settings": ready.facts["settings"]}
    config = adapter_config(plan.adapted, model, about)
    drawing = can_draw_losses()

    def save(state: State) -> None:
        save_state(plan.out / _STATE, state, ready.facts)
        save_adapter(plan.out, model, config)
        if drawing and log.records:
            title = caption([plan.model], this_machine(), datetime.now().astimezone().date())
            draw_losses(log.records, title, plan.out / PICTURE)

    remedy = "lower --batch-size and raise --accumulate instead, or add --grad-checkpoint"
    evaluate = ready.held_out.evaluate if ready.held_out else None
    try:
        events = training_events(
            model, workers, ready.train, plan.settings, pace=plan.pace, start=ready.start, save=save, evaluate=evaluate
        )
        # Closed here: an error of the save at its end would be lost if the garbage collector closed it.
        with out_of_memory("training", remedy), closing(events):
            for event in events:
                log.add(event)
                yield event
    finally:
        workers.close()
        log.close()


def result_files(plan: TrainingPlan) -> str:
    """Name the files that a finished training has in its folder, for a message."""
    return f"adapter, log.jsonl and {PICTURE}" if (plan.out / PICTURE).exists() else "adapter and log.jsonl"


def _batches(session: Session, examples: Sequence[Example], settings: TrainingSettings) -> Batches:
    config = session.model.config
    return Batches(
        examples=examples,
        rows=settings.batch_size,
        canvas=config.canvas_length,
        vocabulary=config.vocab_size,
        pad=_PADDING,
        seed=settings.seed,
        mask_prompt=settings.mask_prompt,
        noise_power=settings.noise_power,
    )
