"""A training as a whole: it learns, it stops and goes on bit for bit, and it changes nothing that it should not."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import mlx.core as mx
import pytest
from convert_helpers import options as conversion
from convert_helpers import run as convert
from trainable import TAUGHT, Followed, flat, follow, plan, prepared, write_data, write_model

from mlx_diffgemma import load
from mlx_diffgemma.checkpoint.adapters import ATTENTION, DENSE, EXPERTS, LoRA, load_adapter
from mlx_diffgemma.errors import AdapterError, DataError, DiffGemmaError, OptionError, OutOfMemoryError, TrainingError
from mlx_diffgemma.loading import load_trainable
from mlx_diffgemma.training import run as running
from mlx_diffgemma.training.batches import Batches
from mlx_diffgemma.training.forward import checkpointed, plain
from mlx_diffgemma.training.gradients import Gradient, Work, Workers
from mlx_diffgemma.training.log import Log, read_log
from mlx_diffgemma.training.loop import Evaluated, Pace, Saved, Stepped
from mlx_diffgemma.training.objective import Batch, losses
from mlx_diffgemma.training.run import TrainingPlan, run_training
from mlx_diffgemma.training.settings import TrainingSettings

SMALL = LoRA(rank=4, alpha=8.0)
KINDS: dict[str, LoRA | None] = {"full": None, "LoRA": SMALL}


@pytest.fixture(autouse=True, scope="module")
def undrawn() -> Iterator[None]:
    """Half a second per save is spared: the picture has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "draw_losses", lambda records, title, file: file.touch())
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), valid=TAUGHT[:3])


@pytest.fixture(scope="module")
def four_bit(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "4bit"
    convert(conversion(demo, folder))
    return folder


@pytest.fixture
def planned(model: Path, data: Path, tmp_path: Path) -> Callable[..., TrainingPlan]:
    """A plan over model and data, into an empty folder."""

    def made(**changes: Any) -> TrainingPlan:
        return plan(model, data, tmp_path / "out", **changes)

    return made


def same(first: dict[str, mx.array], second: dict[str, mx.array]) -> bool:
    """Whether two sets of arrays are equal in every bit."""
    return first.keys() == second.keys() and all(mx.array_equal(first[name], second[name]) for name in first)


def distance(first: dict[str, mx.array], second: dict[str, mx.array]) -> float:
    """The norm of the difference of two gradients, as a share of the norm of the second."""
    assert first.keys() == second.keys()
    differences = mx.stack([((first[name] - second[name]) ** 2).sum() for name in second])
    squares = mx.stack([(array**2).sum() for array in second.values()])
    return mx.sqrt(differences.sum() / squares.sum()).item()


def state_of(wanted: TrainingPlan) -> dict[str, mx.array]:
    """The arrays of the saved state."""
    arrays = mx.load(str(wanted.out / "state" / "state.safetensors"))
    mx.eval(arrays)
    return arrays


def step_of(wanted: TrainingPlan) -> int:
    """The step of the saved state."""
    return json.loads((wanted.out / "state" / "state.json").read_text())["step"]


def logged_steps(wanted: TrainingPlan) -> list[int]:
    """The steps in the log, in their order."""
    return [record["step"] for record in read_log(wanted.out / "log.jsonl") if record["event"] == "step"]


# it learns


@pytest.fixture(scope="module")
def overfitted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """A training of all parameters on sixteen examples, which are its held-out ones too."""
    folder = tmp_path_factory.mktemp("overfitted")
    data = write_data(folder / "data", valid=TAUGHT)
    wanted = plan(
        model,
        data,
        folder / "out",
        router=True,
        steps=140,
        batch_size=8,
        accumulate=2,
        workers=1,
        learning_rate=1e-2,
        warmup=10,
        final_rate=0.02,
        beta1=0.8,
        beta2=0.95,
        mask_prompt=True,
        answers=16,
    )
    return follow(wanted)


def test_overfitting_sixteen_examples_drives_the_loss_under_a_twentieth(overfitted: Followed) -> None:
    """The canvas's loss, conditioned, under noise that the training has not seen: each example under 8 levels of it."""
    fresh = replace(overfitted.ready.train, rows=16, seed=999)
    found = [
        losses(overfitted.ready.session.model, fresh.batch(index), plain, conditioned=True, causal_weight=1.0).canvas
        for index in range(8)
    ]
    assert fmean(loss.item() for loss in found) < 0.05
    assert overfitted.steps[0].canvas > 5


def test_generation_repeats_all_sixteen_answers(overfitted: Followed) -> None:
    """Some answers are longer than one canvas."""
    session = overfitted.ready.session
    answers = [session.generate(str(row["prompt"])) for row in TAUGHT]
    assert [answer.text for answer in answers] == [row["completion"] for row in TAUGHT]
    assert sum(answer.stats.blocks > 1 for answer in answers) == 4
    assert {answer.finish_reason for answer in answers} == {"stop"}


def test_the_last_evaluation_counts_the_answers_that_are_right(overfitted: Followed) -> None:
    evaluated = overfitted.events[-2]
    assert isinstance(evaluated, Evaluated)
    assert (evaluated.step, evaluated.right, evaluated.asked) == (140, 16, 16)
    assert evaluated.canvas < 0.05


def test_the_folder_of_a_full_training_is_the_trained_model(overfitted: Followed) -> None:
    wanted = overfitted.ready.plan
    again = load(wanted.model, adapter=wanted.out)
    assert same(flat(again.model.parameters()), flat(overfitted.ready.session.model.parameters()))


def test_a_quantized_model_learns_through_an_adapter_and_stays_as_it_is(four_bit: Path, tmp_path: Path) -> None:
    """QLoRA. With the same noise before and after, the loss falls by a third at least in twelve steps."""
    data = write_data(tmp_path / "data", [{"prompt": "Who?", "completion": "Ana"}])
    wanted = plan(four_bit, data, tmp_path / "out", steps=12, learning_rate=2e-2, lora=LoRA(rank=8))
    ready = prepared(wanted)
    before = flat(ready.session.model.parameters())
    packed = {name: array for name, array in before.items() if array.dtype == mx.uint32}
    assert len(packed) > 20
    batch = ready.train.batch(100)

    def loss() -> float:
        return losses(ready.session.model, batch, plain, conditioned=True, causal_weight=1.0).total.item()

    first = loss()
    for _ in run_training(ready):
        pass
    after = flat(ready.session.model.parameters())
    assert loss() < first * 2 / 3
    assert same({name: after[name] for name in packed}, packed)
    changed = {name for name in before if not mx.array_equal(before[name], after[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"lora_a", "lora_b"}


# what is trained and what is not


def changed_by(wanted: TrainingPlan) -> tuple[set[str], set[str]]:
    """The names of the parameters that a training changed, and of those that it left."""
    ready = prepared(wanted)
    before = flat(ready.session.model.parameters())
    conditioned = {ready.train.conditioned(index) for index in range(wanted.settings.steps)}
    assert conditioned == {True, False}
    for _ in run_training(ready):
        pass
    after = flat(ready.session.model.parameters())
    changed = {name for name in before if not mx.array_equal(before[name], after[name])}
    return changed, before.keys() - changed


def test_a_full_training_changes_everything_but_the_routers(planned: Callable[..., TrainingPlan]) -> None:
    changed, left = changed_by(planned())
    assert left == {name for name in changed | left if ".router." in name}
    assert len(left) == 2 * 3


def test_the_routers_are_trained_when_that_is_wanted(planned: Callable[..., TrainingPlan]) -> None:
    _, left = changed_by(planned(router=True))
    assert left == set()


def test_an_adapter_changes_nothing_but_itself(planned: Callable[..., TrainingPlan]) -> None:
    changed, left = changed_by(planned(lora=replace(SMALL, keys=ATTENTION + DENSE + EXPERTS)))
    assert {name.rpartition(".")[2] for name in changed} == {"lora_a", "lora_b"}
    assert not any("lora" in name for name in left)
    assert not any(".router." in name for name in changed)
    assert any(".experts." in name for name in changed)


def test_an_adapter_of_the_routers_can_be_loaded(planned: Callable[..., TrainingPlan]) -> None:
    done = follow(planned(lora=SMALL, router=True))
    assert any(".router.proj.lora_b" in name for name in done.parameters)
    again = load_trainable(done.ready.plan.model)
    load_adapter(again.model, done.ready.plan.out)
    assert same(flat(again.model.parameters()), flat(done.ready.session.model.parameters()))


def test_a_quantized_model_is_not_trained_in_full(four_bit: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a quantized model cannot be trained in full"):
        prepared(plan(four_bit, data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# it goes on where it stopped


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_was_stopped_goes_on_bit_for_bit(planned: Callable[..., TrainingPlan], kind: str) -> None:
    """Two workers with two batches per step; the second half runs in new threads on a new model."""
    wanted = planned(steps=8, accumulate=2, workers=2, warmup=3, weight_decay=0.01, lora=KINDS[kind])
    whole = follow(replace(wanted, out=wanted.out / "whole"))
    first = follow(wanted, until=5)
    assert step_of(wanted) == 5
    second = follow(replace(wanted, resume=True))
    assert first.losses + second.losses == whole.losses
    assert [step.step for step in second.steps] == [6, 7, 8]
    assert same(second.parameters, whole.parameters)
    assert same(state_of(wanted), state_of(whole.ready.plan))
    written, expected = (mx.load(str(each.out / "adapters.safetensors")) for each in (wanted, whole.ready.plan))
    assert same(written, expected)
    assert logged_steps(wanted) == list(range(1, 9))


def test_steps_after_the_last_save_are_done_again(planned: Callable[..., TrainingPlan]) -> None:
    """As after a power cut: the log is longer than the state, and its last line is cut off."""
    wanted = planned(pace=Pace(evaluate=0, save=2))
    whole = follow(replace(wanted, out=wanted.out / "whole"))
    events = run_training(prepared(wanted))
    assert [type(next(events)) for _ in range(4)] == [Stepped, Stepped, Saved, Stepped]
    kept = shutil.copytree(wanted.out, wanted.out.with_name("kept"))
    events.close()
    shutil.rmtree(wanted.out)
    kept.rename(wanted.out)
    with (wanted.out / "log.jsonl").open("a") as file:
        file.write('{"event": "step", "st')
    again = follow(replace(wanted, resume=True))
    assert again.losses == whole.losses[2:]
    assert same(again.parameters, whole.parameters)
    assert logged_steps(wanted) == [1, 2, 3, 4]


@pytest.mark.parametrize("cut_off", ["before the new state took its place", "while the new state was written"])
def test_a_save_that_was_cut_off_leaves_a_state(planned: Callable[..., TrainingPlan], cut_off: str) -> None:
    wanted = planned()
    follow(wanted, until=2)
    state = wanted.out / "state"
    if cut_off.startswith("before"):
        state.rename(wanted.out / "state.old")
    (wanted.out / "state.partial").mkdir()
    (wanted.out / "state.partial" / "state.safetensors").write_bytes(b"half")
    again = follow(replace(wanted, resume=True))
    assert [step.step for step in again.steps] == [3, 4]
    assert {path.name for path in wanted.out.iterdir()} == {
        "state", "adapters.safetensors", "adapter_config.json", "log.jsonl", "loss.png",
    }  # fmt: skip


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_an_adapter_of_peft_is_left_as_it_is(planned: Callable[..., TrainingPlan], resume: bool) -> None:
    wanted = planned(resume=resume)
    wanted.out.mkdir()
    (wanted.out / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(
        AdapterError, match="holds an adapter of PEFT, which is not replaced: to begin with it, name it as --start-from"
    ):
        prepared(wanted)
    assert [file.name for file in wanted.out.iterdir()] == ["adapter_config.json"]


def test_a_training_that_is_done_has_nothing_to_go_on_with(planned: Callable[..., TrainingPlan]) -> None:
    done = follow(planned())
    again = follow(replace(done.ready.plan, resume=True))
    assert again.events == []
    assert same(again.parameters, done.parameters)


def test_what_does_not_change_the_result_may_change_on_the_way(planned: Callable[..., TrainingPlan]) -> None:
    wanted = planned()
    follow(wanted, until=2)
    again = follow(replace(wanted, resume=True, pace=Pace(evaluate=1, save=1), answers=0, checkpoint=True))
    assert [type(event) for event in again.events] == [Stepped, Evaluated, Saved] * 2


def test_a_training_may_go_on_for_more_steps_than_planned(planned: Callable[..., TrainingPlan]) -> None:
    """The learning rate follows the new plan, so the first steps are those of the old one."""
    wanted = planned(final_rate=0.5)
    follow(wanted)
    longer = replace(wanted, resume=True, settings=replace(wanted.settings, steps=6))
    again = follow(longer)
    assert again.ready.start is not None
    assert again.ready.start.planned == 4
    assert [step.step for step in again.steps] == [5, 6]
    assert [step.rate for step in again.steps] == [longer.settings.rate(4), longer.settings.rate(5)]
    assert logged_steps(wanted) == [1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def stopped(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    """A training of an adapter that was stopped at its first step; tests leave its folder as it is."""
    wanted = plan(model, data, tmp_path_factory.mktemp("stopped"), lora=SMALL)
    follow(wanted, until=1)
    return wanted


def refusal(wanted: TrainingPlan, kind: type[DiffGemmaError] = TrainingError) -> str:
    """What preparing a plan says against it, in one line."""
    with pytest.raises(kind) as caught:
        prepared(wanted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 2e-3}, "settings.learning_rate was 0.001 and is 0.002"),
        ({"steps": 3}, "settings.steps was 4 and is 3"),
        ({"seed": 7}, "settings.seed was 0 and is 7"),
        ({"lora": replace(SMALL, rank=8)}, "lora.rank was 4 and is 8"),
        ({"lora": None}, "lora.rank was 4 and is None"),
        ({"router": True}, "router was False and is True"),
        ({"workers": 2}, "workers was 1 and is 2"),
    ],
)
def test_settings_that_changed_are_refused_by_name(stopped: TrainingPlan, change: dict[str, Any], named: str) -> None:
    inner = {name: value for name, value in change.items() if hasattr(stopped.settings, name)}
    outer = {name: value for name, value in change.items() if name not in inner}
    complaint = refusal(replace(stopped, resume=True, settings=replace(stopped.settings, **inner), **outer))
    assert complaint.startswith(f"{stopped.out}/state holds another training: ")
    assert named in complaint


def test_other_data_is_refused(stopped: TrainingPlan, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", [*TAUGHT[:-1], {**TAUGHT[-1], "completion": "changed"}])
    assert "holds another training: data was " in refusal(replace(stopped, resume=True, data=str(data)))


def test_another_model_is_refused(stopped: TrainingPlan, model: Path, tmp_path: Path) -> None:
    """One of the same shapes, of which nothing but one value differs."""
    other = shutil.copytree(model, tmp_path / "model")
    weights = mx.load(str(other / "model.safetensors"))
    weights["model.decoder.norm.weight"] = weights["model.decoder.norm.weight"] + 0.5
    mx.save_safetensors(str(other / "model.safetensors"), weights)
    assert "holds another training: model was " in refusal(replace(stopped, resume=True, model=str(other)))


def test_a_training_is_neither_started_over_nor_resumed_from_nothing(stopped: TrainingPlan, tmp_path: Path) -> None:
    assert refusal(stopped) == (
        f"{stopped.out} holds a training at step 1: add --resume to go on, or choose another folder"
    )
    empty = replace(stopped, out=tmp_path / "new", resume=True)
    assert refusal(empty) == f"{empty.out} holds no training to resume: leave --resume out, or name another folder"
    assert not empty.out.exists()


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def renamed(path: Path) -> None:
    mx.save_safetensors(str(path), {"something.else": mx.zeros((2,))})


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "arrays cut off": ("state.safetensors", cut_off),
    "arrays empty": ("state.safetensors", lambda path: path.write_bytes(b"")),
    "arrays of another kind": ("state.safetensors", renamed),
    "arrays missing": ("state.safetensors", Path.unlink),
    "record cut off": ("state.json", lambda path: path.write_text(path.read_text()[:40])),
    "record of another kind": ("state.json", lambda path: path.write_text("[]")),
    "record not text": ("state.json", lambda path: path.write_bytes(b"\xff\xfe")),
    "record without facts": ("state.json", lambda path: path.write_text('{"step": 1}')),
    "record missing": ("state.json", Path.unlink),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_refused(stopped: TrainingPlan, tmp_path: Path, damage: str) -> None:
    out = shutil.copytree(stopped.out, tmp_path / "out")
    name, harm = DAMAGES[damage]
    harm(out / "state" / name)
    complaint = refusal(replace(stopped, resume=True, out=out))
    assert complaint.startswith(f"the saved state in {out}/state is damaged (")
    assert complaint.endswith("): delete it to start over")


# it fails


def test_a_loss_that_is_no_number_ends_the_training_at_the_state_before(
    planned: Callable[..., TrainingPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = planned(steps=8, lora=SMALL)
    expected = follow(replace(wanted, out=wanted.out / "three", settings=replace(wanted.settings)), until=3)
    real = Batches.batch

    def poisoned(self: Batches, index: int) -> Batch:
        batch = real(self, index)
        return batch._replace(weights=batch.weights * float("nan")) if index == 3 else batch

    monkeypatch.setattr(Batches, "batch", poisoned)
    ready = prepared(wanted)
    events = run_training(ready)
    steps = [next(events).step for _ in range(3)]
    with pytest.raises(TrainingError, match=r"^step 4: the loss is nan .* the state before that step is kept; try a "):
        next(events)
    assert steps == [1, 2, 3]
    assert step_of(wanted) == 3
    kept = state_of(wanted)
    assert all(mx.isfinite(array).all().item() for array in kept.values())
    assert same(kept, state_of(expected.ready.plan))
    assert same(mx.load(str(wanted.out / "adapters.safetensors")), expected.parameters)


def test_a_save_that_fails_when_the_training_is_stopped_is_said(
    planned: Callable[..., TrainingPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise Ctrl-C would report as saved what is lost."""

    def full_disk(*_: object) -> None:
        raise TrainingError("the state cannot be saved: the disk is full")

    events = run_training(prepared(planned()))
    next(events)
    monkeypatch.setattr(running, "save_state", full_disk)
    with pytest.raises(TrainingError, match="the disk is full"):
        events.close()


def test_memory_that_runs_out_is_said_with_a_remedy(
    planned: Callable[..., TrainingPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mean(self: Workers, parameters: object, work: object) -> Gradient:
        raise RuntimeError("[malloc] Unable to allocate 123 bytes.")

    monkeypatch.setattr(Workers, "mean", mean)
    with pytest.raises(OutOfMemoryError, match=r"out of memory while training: lower --batch-size .*--grad-checkpoint"):
        follow(planned())


@pytest.mark.parametrize("content", [None, "", "\n \n"])
def test_a_folder_without_training_data_is_named(model: Path, tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    if content is not None:
        (folder / "train.jsonl").write_text(content)
    complaint = refusal(plan(model, folder, tmp_path / "out"), DataError)
    assert complaint == f"{folder} has no training data: put one JSON object per line into train.jsonl"


def test_an_example_that_is_too_long_is_named_by_its_line(model: Path, tmp_path: Path) -> None:
    long = {"prompt": "Ada " * 80, "completion": "Rome"}
    data = write_data(tmp_path / "data", TAUGHT[:2], valid=[TAUGHT[0], long])
    complaint = refusal(plan(model, data, tmp_path / "out"), DataError)
    assert complaint.startswith(f"{data}/valid.jsonl, line 2: ")
    assert "tokens are more than 64: shorten it, or raise --max-seq-length" in complaint
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be_is_named(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(TrainingError, match=r"/out.* cannot be read or written: "):
        follow(plan(model, data, tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


# a step


def test_events_come_in_the_order_of_a_step(planned: Callable[..., TrainingPlan]) -> None:
    """The log has a line for each but the saves, and the losses are the events'."""
    done = follow(planned(pace=Pace(evaluate=2, save=2), answers=1))
    kinds = [(type(event), event.step) for event in done.events]
    half = [(Stepped, 1), (Stepped, 2), (Evaluated, 2), (Saved, 2)]
    assert kinds == half + [(kind, step + 2) for kind, step in half]
    records = read_log(done.ready.plan.out / "log.jsonl")
    assert [(record["event"], record["step"]) for record in records] == [
        ("step", 1), ("step", 2), ("evaluation", 2), ("step", 3), ("step", 4), ("evaluation", 4),
    ]  # fmt: skip
    assert [record["loss"] for record in records if record["event"] == "step"] == done.losses
    evaluated = done.events[2]
    assert isinstance(evaluated, Evaluated)
    assert (evaluated.right, evaluated.asked) == (0, 1)


def test_a_step_counts_its_real_tokens_and_takes_the_rate_of_its_place(planned: Callable[..., TrainingPlan]) -> None:
    done = follow(planned(warmup=2, accumulate=2, pace=Pace(evaluate=0, save=0)), until=3)
    settings, found = done.ready.plan.settings, done.ready.train
    for place, step in enumerate(done.steps):
        batches = [found.batch(index) for index in (2 * place, 2 * place + 1)]
        # Padding of the sequences does not count; a canvas is computed whole.
        assert step.tokens == sum(int(batch.weights.sum().item()) + batch.canvas.size for batch in batches)
        assert step.rate == settings.rate(place)
        assert step.loss == pytest.approx(step.canvas + settings.causal_weight * step.causal, rel=1e-5)
        assert step.seconds > 0


def test_the_weight_of_the_causal_loss_counts(planned: Callable[..., TrainingPlan]) -> None:
    """The first step's losses do not depend on it, their sum does."""
    step = follow(planned(causal_weight=0.25), until=1).steps[0]
    plain_sum = follow(replace(planned(), out=planned().out / "other"), until=1).steps[0]
    assert (step.canvas, step.causal) == (plain_sum.canvas, plain_sum.causal)
    assert step.loss == pytest.approx(step.canvas + 0.25 * step.causal, rel=1e-6)


@pytest.mark.parametrize(("clip", "clipped"), [(0.01, True), (1e6, False)])
def test_a_gradient_is_clipped_to_its_norm(planned: Callable[..., TrainingPlan], clip: float, clipped: bool) -> None:
    """After one step Adam's mean is (1 - beta1) of the gradient that it was given; the norm in the log is the whole."""
    wanted = planned(clip=clip)
    [step] = follow(wanted, until=1).steps
    means = [array for name, array in state_of(wanted).items() if name.startswith("optimizer.") and name[-2:] == ".m"]
    norm = math.sqrt(sum((array**2).sum().item() for array in means)) / (1 - wanted.settings.beta1)
    assert step.norm > 1
    assert norm == pytest.approx(clip if clipped else step.norm, rel=1e-4)


def gradient(
    wanted: TrainingPlan, work: list[Work], run_layer: Any = plain, count: int = 1
) -> tuple[float, dict[str, Any]]:
    """Mean loss and gradient at the start of a training."""
    ready = prepared(wanted)
    workers = Workers(ready.session.model, count, run_layer, wanted.settings.causal_weight)
    found = workers.mean(ready.session.model.trainable_parameters(), work)
    workers.close()
    return found.losses.total.item(), flat(found.tree)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointed_and_plain_give_the_same_gradient(planned: Callable[..., TrainingPlan], kind: str) -> None:
    """The same operations in other kernels: a few roundings of float32 per sum."""
    wanted = planned(lora=replace(SMALL, keys=ATTENTION + EXPERTS) if kind == "LoRA" else None)
    work = [Work(prepared(wanted).train.batch(0), True)]
    kept, again = (gradient(wanted, work, run_layer) for run_layer in (plain, checkpointed))
    assert again[0] == pytest.approx(kept[0], rel=1e-6)
    assert distance(again[1], kept[1]) < 1e-5


@pytest.mark.parametrize("count", [1, 2])
def test_accumulated_batches_are_one_larger_batch(model: Path, tmp_path: Path, count: int) -> None:
    """Two of four are one of eight: the same sums in another order, 1e-5 of the gradient's norm.

    That holds for the causal loss where sequences are equally long: it is a mean per batch.
    """
    alike = [row for row in TAUGHT if len(row["completion"].split()) == 2]
    wanted = plan(model, write_data(tmp_path / "data", alike), tmp_path / "out", batch_size=4)
    found = prepared(wanted).train
    halves = [found.batch(0), found.batch(1)]
    second = halves[1]._replace(predicted=halves[1].predicted + halves[0].tokens.size)
    whole = Batch(*(mx.concatenate(pair) for pair in zip(halves[0], second, strict=True)))
    parts = gradient(wanted, [Work(half, True) for half in halves], count=count)
    one = gradient(wanted, [Work(whole, True)])
    assert parts[0] == pytest.approx(one[0], rel=1e-5)
    assert distance(parts[1], one[1]) < 1e-5


# settings


def test_the_learning_rate_rises_in_a_line_and_falls_along_half_a_cosine() -> None:
    """8 steps after 4 of warm-up; cos(pi / 4) = 0.7071; at the middle half of what is above the last rate is left."""
    settings = TrainingSettings(steps=12, warmup=4, learning_rate=2.0, final_rate=0.1)
    rates = [settings.rate(step) for step in range(13)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[6] == pytest.approx(0.2 + 1.8 * 0.853553, rel=1e-6)
    assert rates[8] == pytest.approx(1.1)
    assert rates[12] == pytest.approx(0.2)
    assert rates[4:] == sorted(rates[4:], reverse=True)


@pytest.mark.parametrize(
    ("settings", "first", "last"),
    [
        (TrainingSettings(steps=1, learning_rate=1.0), 1.0, 0.1),
        (TrainingSettings(steps=3, learning_rate=1.0, final_rate=1.0), 1.0, 1.0),
        (TrainingSettings(steps=3, learning_rate=1.0, final_rate=0.0), 1.0, 0.0),
        (TrainingSettings(steps=2, learning_rate=1.0, warmup=4), 0.25, 0.75),
        (TrainingSettings(steps=4, learning_rate=1.0, warmup=4), 0.25, 1.0),
    ],
)
def test_the_learning_rate_begins_and_ends_as_set(settings: TrainingSettings, first: float, last: float) -> None:
    """`last` is the rate that the step after the last would have."""
    assert (settings.rate(0), settings.rate(settings.steps)) == pytest.approx((first, last))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("steps", "batch_size", "accumulate", "max_seq_length") for value in (0, -1)),
        *(("learning_rate", value) for value in (0.0, -1e-4, math.inf, math.nan)),
        *(("clip", value) for value in (0.0, -1.0, math.nan)),
        *((name, -1) for name in ("warmup", "seed")),
        *((name, value) for name in ("causal_weight", "weight_decay") for value in (-0.1, math.inf, math.nan)),
        *((name, value) for name in ("beta1", "beta2") for value in (-0.1, 1.0, math.nan)),
        *(("final_rate", value) for value in (-0.1, 1.1, math.nan)),
        *(("noise_power", value) for value in (0.0, -1.0, math.inf, math.nan)),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=rf"^{name}={value} must be "):
        TrainingSettings(**{name: value})


def test_the_settings_at_their_limits_are_taken() -> None:
    TrainingSettings(
        steps=1, batch_size=1, clip=math.inf, warmup=0, causal_weight=0.0, beta1=0.0, beta2=0.0, final_rate=0.0
    )
    TrainingSettings(final_rate=1.0, beta1=0.999, weight_decay=0.1)


# the log


def test_without_matplotlib_a_training_goes_on_and_says_so_once(
    planned: Callable[..., TrainingPlan], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    done = follow(planned(lora=SMALL, pace=Pace(evaluate=0, save=1)))
    assert [record.getMessage() for record in caplog.records if record.name == "mlx_diffgemma"] == [
        "the training goes on without loss.png: drawing it needs more packages: pip install 'mlx-diffgemma[plot]'"
    ]
    out = done.ready.plan.out
    assert logged_steps(done.ready.plan) == [1, 2, 3, 4]
    assert {path.name for path in out.iterdir()} == {
        "state", "adapters.safetensors", "adapter_config.json", "log.jsonl",
    }  # fmt: skip
    assert running.result_files(done.ready.plan) == "adapter and log.jsonl"
    (out / "loss.png").touch()
    assert running.result_files(done.ready.plan) == "adapter, log.jsonl and loss.png"


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(TrainingError, match=r"/log\.jsonl cannot be read or written: Is a directory"):
        Log(tmp_path, 0)


def test_a_log_goes_on_behind_the_step_that_is_resumed(tmp_path: Path) -> None:
    lines = [{"event": "step", "step": 1}, {"event": "step", "step": 2}, {"event": "evaluation", "step": 2}]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"event": "step", "step": 3}])
    (tmp_path / "log.jsonl").write_text(text + '{"event": "st')
    log = Log(tmp_path, 2)
    log.add(Evaluated(step=3, canvas=1.0, causal=2.0, right=1, asked=2))
    log.add(Saved(step=3))
    log.close()
    assert read_log(tmp_path / "log.jsonl") == [
        *lines,
        {"event": "evaluation", "step": 3, "canvas": 1.0, "causal": 2.0, "right": 1, "asked": 2},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_training_that_begins_anew_begins_its_log_anew(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"event": "step", "step": 1}\n')
    Log(tmp_path, 0).close()
    assert (tmp_path / "log.jsonl").read_text() == ""
