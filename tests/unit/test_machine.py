"""What depends on the machine, with facts of machines that are not at hand."""

from __future__ import annotations

import os
import platform

import mlx.core as mx
import pytest

from mlx_diffgemma import load, loading
from mlx_diffgemma.checkpoint.hub import DEMO, model_folder
from mlx_diffgemma.checkpoint.weights import open_checkpoint
from mlx_diffgemma.device import accelerators, environment, machine
from mlx_diffgemma.device.accelerators import AppleFacts, built_for, macos_version
from mlx_diffgemma.device.environment import buffer_limits, lengthen_command_buffers
from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.model.kernels import CPU_KERNELS, CUDA_KERNELS, PLAIN_KERNELS, default_kernels

M1_MAX, M3_PRO, M5_MAX = "applegpu_g13s", "applegpu_g15s", "applegpu_g17s"
REINSTALL = "`pip install --upgrade --force-reinstall mlx` gets that for macOS 26"
CANNOT = "MLX cannot use the neural accelerators of this GPU, and is slower: "


def apple(architecture: str | None, system: str, package: int | None) -> AppleFacts:
    return AppleFacts(architecture=architecture, system=macos_version(system), package=package)


@pytest.mark.parametrize(
    ("facts", "words", "warning"),
    [
        (apple(M1_MAX, "26.2", 26), "no neural accelerators", None),
        (apple(M1_MAX, "15.7.1", 15), "no neural accelerators", None),
        (apple(M3_PRO, "26.1", 15), "no neural accelerators", None),
        (apple(M5_MAX, "26.2", 26), "neural accelerators can be used", None),
        (apple(M5_MAX, "27.0", 26), "neural accelerators can be used", None),
        # MLX that was built from source.
        (apple(M5_MAX, "26.4", None), "neural accelerators can be used", None),
        (
            apple(M5_MAX, "26.1", 26),
            "neural accelerators cannot be used",
            f"{CANNOT}macOS is 26.1: update it to 26.2 or later",
        ),
        (
            apple(M5_MAX, "26.2", 15),
            "neural accelerators cannot be used",
            f"{CANNOT}MLX is that for macOS 15: {REINSTALL}",
        ),
        (
            apple(M5_MAX, "26.1", 15),
            "neural accelerators cannot be used",
            f"{CANNOT}macOS is 26.1: update it to 26.2 or later, and MLX is that for macOS 15: {REINSTALL}",
        ),
        (apple("applegpu_g17p", "26.2", 26), "no neural accelerators", None),
        (apple("applegpu_g18p", "26.2", 26), "neural accelerators can be used", None),
        (apple("applegpu", "26.2", 26), "no neural accelerators", None),
        (apple(None, "", None), "", None),
    ],
)
def test_neural_accelerators_need_chip_system_and_package(facts: AppleFacts, words: str, warning: str | None) -> None:
    assert (facts.words(), facts.warning()) == (words, warning)


def test_versions_and_packages_are_read() -> None:
    assert macos_version("26.2") == (26, 2)
    assert macos_version("15.7.1") == (15, 7, 1)
    assert macos_version("") == ()
    # A Python that was built before macOS 26 is told this.
    assert macos_version("16.2") == (26, 2)
    wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-macosx_{}_arm64\n"
    assert (built_for(wheel.format("26_0")), built_for(wheel.format("15_0"))) == (26, 15)
    assert built_for("Tag: cp311-cp311-manylinux_2_35_x86_64\n") is None


def test_the_line_of_a_machine_names_system_and_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"device_name": "Apple M5 Max", "architecture": M5_MAX, "memory_size": 128 * 2**30}
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx, "device_info", lambda device: info)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.2", ("", "", ""), "arm64"))
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    line = machine.this_machine().line()
    assert line.startswith("Apple M5 Max (gpu, 128 GiB, neural accelerators can be used), macOS 26.2 arm64, mlx-diffg")
    assert f"MLX {mx.__version__}," in line
    monkeypatch.setattr(platform, "mac_ver", lambda: ("", ("", "", ""), ""))
    info.clear()
    assert machine.this_machine().line().startswith(f"arm64 (gpu), {platform.system()} arm64, ")


def test_old_software_is_named_once_when_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mx, "device_info", lambda: {"architecture": M5_MAX})
    monkeypatch.setattr(platform, "mac_ver", lambda: ("26.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(accelerators, "_package", lambda: 26)
    loading._warn_of_old_software.cache_clear()
    for _ in range(2):
        load("demo")
    assert caplog.messages == [f"{CANNOT}macOS is 26.1: update it to 26.2 or later"]


@pytest.mark.parametrize(
    ("system", "chip", "helped"),
    [
        ("Darwin", "Apple M1 Max", True),
        ("Darwin", "Apple M2", True),
        ("Darwin", "Apple M3 Pro", True),
        ("Darwin", "Apple M4", True),
        ("Darwin", "Apple M5 Max", False),
        ("Darwin", "Apple M10", False),
        ("Darwin", "Apple A18 Pro", False),
        ("Darwin", "Intel(R) Core(TM) i9-9980HK CPU @ 2.40GHz", False),
        ("Darwin", "", False),
        ("Linux", "Apple M1 Max", False),
    ],
)
def test_command_buffers_are_longer_on_m1_to_m4_alone(
    system: str, chip: str, helped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {"MLX_MAX_OPS_PER_BUFFER": "1000", "MLX_MAX_MB_PER_BUFFER": "400"} if helped else {}
    assert buffer_limits(system, chip) == expected
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(environment, "processor", lambda: chip)
    monkeypatch.setattr(os, "environ", {"MLX_MAX_MB_PER_BUFFER": "50"})
    lengthen_command_buffers()
    assert os.environ == {**expected, "MLX_MAX_MB_PER_BUFFER": "50"}, "what the user has set stays"


def test_the_chip_is_asked_for_on_macos_alone() -> None:
    environment.processor.cache_clear()
    assert (environment.processor() == "") == (platform.system() != "Darwin")


@pytest.mark.parametrize(
    ("device", "metal", "table"),
    [(mx.cpu, True, CPU_KERNELS), (mx.gpu, True, PLAIN_KERNELS), (mx.gpu, False, CUDA_KERNELS)],
)
def test_each_device_has_its_table(
    device: mx.DeviceType, metal: bool, table: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(device))
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    assert default_kernels() is table


@pytest.mark.parametrize(
    ("tokens", "height"), [(1, 1), (31, 1), (32, 16), (256, 16), (1023, 16), (1024, 32), (2048, 32)]
)
def test_on_cuda_a_tile_is_as_tall_as_an_expert_has_rows_for(tokens: int, height: int) -> None:
    """The release sends a token to 8 of 128 experts."""
    assert CUDA_KERNELS.tile_height(8 * tokens, 128) == height


def test_float16_is_refused_with_the_reason() -> None:
    with pytest.raises(OptionError, match=r"^dtype='float16' ends at 65,504, and this model's activations do not: use"):
        load("demo", dtype="float16")


@pytest.mark.parametrize(("dtype", "expected"), [("float32", "0"), (None, None)])
def test_float32_that_is_asked_for_is_float32(
    dtype: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLX_ENABLE_TF32")
    open_checkpoint(model_folder(DEMO), dtype)
    assert os.environ.get("MLX_ENABLE_TF32") == expected
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")
    open_checkpoint(model_folder(DEMO), "float32")
    assert os.environ["MLX_ENABLE_TF32"] == "1", "what the user has set stays"
