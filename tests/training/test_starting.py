"""A training that begins with an adapter: the first step finds the model that the adapter makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from peft_adapter import factors, write_peft
from trainable import Followed, flat, follow, plan, prepared, write_data, write_model

from mlx_diffgemma import load
from mlx_diffgemma.checkpoint.adapters import ATTENTION, EXPERTS, LoRA
from mlx_diffgemma.cli.training import AdapterOptions, RunOptions, SourceOptions, training_plan
from mlx_diffgemma.errors import AdapterError, DiffGemmaError, OptionError
from mlx_diffgemma.loading import load_trainable
from mlx_diffgemma.session import Session
from mlx_diffgemma.training import run as running
from mlx_diffgemma.training.run import TrainingPlan
from mlx_diffgemma.training.settings import TrainingSettings

SMALL = LoRA(rank=4, alpha=8.0, keys=ATTENTION + EXPERTS)
MODULES = ("layers.0.self_attn.q_proj", "layers.1.self_attn.o_proj")


@pytest.fixture(autouse=True, scope="module")
def undrawn() -> Iterator[None]:
    """Half a second per save is spared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "can_draw_losses", lambda: False)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """A training of two steps, so that its changes are not zero."""
    return follow(plan(model, data, tmp_path_factory.mktemp("trained"), steps=2, learning_rate=1e-2, lora=SMALL))


def again(trained: Followed, out: Path, **changes: object) -> TrainingPlan:
    """The plan of a training that begins with what was trained."""
    return replace(trained.ready.plan, out=out, start_from=trained.ready.plan.out, **changes)


def logits(session: Session) -> mx.array:
    """What a model predicts of the next token of a prompt."""
    model = session.model
    (hidden,) = model.encode(
        [mx.array([session.tokenizer.chat([{"role": "user", "content": "Who?"}])])], [model.make_cache()]
    )
    return model.logits(hidden)


def test_a_training_begins_where_another_ended(trained: Followed, tmp_path: Path) -> None:
    ready = prepared(again(trained, tmp_path))
    assert flat(ready.session.model.trainable_parameters()).keys() == trained.parameters.keys()
    assert mx.abs(logits(ready.session) - logits(trained.ready.session)).max().item() < 1e-4
    plain = load(trained.ready.plan.model)
    assert mx.abs(logits(plain) - logits(trained.ready.session)).max().item() > 1e-2


def test_another_alpha_leaves_the_change_as_it_is(trained: Followed, tmp_path: Path) -> None:
    ready = prepared(again(trained, tmp_path, lora=replace(SMALL, alpha=2.0)))
    assert mx.abs(logits(ready.session) - logits(trained.ready.session)).max().item() < 1e-4


def test_its_first_loss_is_that_of_the_adapted_model_and_it_learns_on(trained: Followed, tmp_path: Path) -> None:
    fresh = follow(replace(trained.ready.plan, out=tmp_path / "fresh"))
    longer = follow(again(trained, tmp_path / "longer"))
    assert longer.losses[0] < fresh.losses[0]
    assert (tmp_path / "longer" / "adapters.safetensors").exists()


def shapes(model: Path) -> dict[str, tuple[int, int]]:
    weights = flat(load_trainable(str(model)).model.parameters())
    return {path: weights[f"model.decoder.{path}.weight"].shape for path in MODULES}


def test_an_adapter_of_peft_is_a_start_too(model: Path, data: Path, tmp_path: Path) -> None:
    change = factors(shapes(model))
    folder = write_peft(tmp_path / "peft", changes={"encoder": change, "decoder": change}, lora_alpha=6)
    wanted = plan(model, data, tmp_path / "out", lora=SMALL, start_from=folder)
    adapted = load(str(model), adapter=folder)
    assert mx.abs(logits(prepared(wanted).session) - logits(adapted)).max().item() < 1e-4


def refusal(wanted: TrainingPlan, kind: type[DiffGemmaError] = AdapterError) -> str:
    with pytest.raises(kind) as caught:
        prepared(wanted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_adapter_that_does_not_fit_the_training_is_refused(trained: Followed, tmp_path: Path) -> None:
    other_rank = again(trained, tmp_path, lora=replace(SMALL, rank=8))
    assert "pass --rank 4, and the model that the adapter was trained on" in refusal(other_rank)
    fewer = again(trained, tmp_path, lora=replace(SMALL, keys=ATTENTION))
    assert "which is not trained: see --num-layers, --experts, --router" in refusal(fewer)
    assert "--full trains none" in refusal(again(trained, tmp_path, lora=None), OptionError)
    absent = replace(trained.ready.plan, out=tmp_path, start_from=tmp_path / "absent")
    assert refusal(absent).startswith(f"no adapter at {tmp_path}/absent")
    resumed = replace(trained.ready.plan, start_from=trained.ready.plan.out, resume=True)
    assert "leave out --start-from" in refusal(resumed, OptionError)


def test_changes_that_differ_between_encoder_and_decoder_are_refused(model: Path, data: Path, tmp_path: Path) -> None:
    change = factors(shapes(model))
    folder = write_peft(tmp_path / "peft", changes={"decoder": change})
    wanted = plan(model, data, tmp_path / "out", lora=SMALL, start_from=folder)
    assert "here one change is trained for both: use it with --adapter" in refusal(wanted)


def test_the_file_that_mlx_lm_names_stands_for_its_folder() -> None:
    source = SourceOptions(data="data", model="model")
    options = AdapterOptions(start_from=Path("old/adapters.safetensors"))
    assert training_plan(source, options, TrainingSettings(), RunOptions()).start_from == Path("old")
