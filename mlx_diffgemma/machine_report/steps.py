"""What a report measures, in order, as data: each step is a command that runs in a process of its own.

A crash of Metal, or of the machine's memory, then ends one step and not the report.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from mlx_diffgemma.errors import DiffGemmaError

_CLONE = Path(__file__).parents[2]
_NUMERIC_TESTS = ("tests/peers/test_parity.py", "tests/unit/test_diffusion_gemma.py", "tests/unit/test_experts.py",
                  "tests/unit/test_functions.py", "tests/unit/test_logits.py", "tests/unit/test_cache.py")  # fmt: skip
"""Tests that compare numbers; they run with and without TF32."""
_MLX_LIMITS = MappingProxyType({"MLX_MAX_OPS_PER_BUFFER": "50", "MLX_MAX_MB_PER_BUFFER": "50"})


class NotRunError(DiffGemmaError):
    """A step cannot run here. The message says why, and what to do if something can be done."""


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What a report is about. `options` are those with which the model is loaded, as a command line has them."""

    model: str
    options: tuple[str, ...] = ()
    source: str | None = None
    """the weights as they were released"""
    other: str | None = None
    """another conversion of them"""
    baseline: str | None = None
    """an autoregressive model"""
    device: str = "cpu"
    """gpu or cpu"""


Command = Callable[[ReportRequest, Path], list[str]]
"""(request, an empty folder for what the step writes) -> words of a command. Raises NotRunError."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measurement."""

    name: str
    title: str
    limit: int
    """seconds after which it is ended; what it has measured until then is kept"""
    command: Command
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    writes: str | None = None
    """the file that it writes its result to, JSON or text; None if that goes to stdout"""


def _bench(*words: str) -> Command:
    return lambda request, _: [*_program("bench"), request.model, "--json", *request.options, *words]


def _program(name: str) -> list[str]:
    return [sys.executable, "-m", f"mlx_diffgemma.{name}"]


def _probe(name: str) -> Command:
    return lambda request, _: [
        sys.executable, "-m", "mlx_diffgemma.machine_report.probe", name, request.model, *request.options,
    ]  # fmt: skip


def _tests(_: ReportRequest, folder: Path) -> list[str]:
    if not (_CLONE / _NUMERIC_TESTS[0]).is_file():
        raise NotRunError("the tests are not in the package: run it in a clone of the repository")
    if find_spec("pytest") is None:
        raise NotRunError("pytest is not installed: pip install 'mlx-diffgemma[dev]'")
    files = [str(_CLONE / each) for each in _NUMERIC_TESTS]
    return [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--rootdir",
        str(_CLONE),
        f"--junitxml={folder / 'tests.xml'}",
        *files,
    ]


def _tf32_tests(request: ReportRequest, folder: Path) -> list[str]:
    if request.device == "cpu":
        raise NotRunError("a CPU has no TF32")
    return _tests(request, folder)


def _conversion(request: ReportRequest, folder: Path) -> list[str]:
    if request.source is None:
        raise NotRunError("name the weights as they were released with --source to convert them")
    return [*_program("convert"), request.source, str(folder / "converted"), "--bits", "4"]


def _on_metal(command: Command) -> Command:
    def checked(request: ReportRequest, folder: Path) -> list[str]:
        if platform.system() != "Darwin" or request.device == "cpu":
            raise NotRunError("it concerns Metal alone")
        return command(request, folder)

    return checked


def _other(*words: str) -> Command:
    def command(request: ReportRequest, _: Path) -> list[str]:
        if request.other is None:
            raise NotRunError("name another conversion of the same weights with --other to compare")
        return [*_program("bench"), request.other, "--json", *words]

    return command


def _baseline(request: ReportRequest, folder: Path) -> list[str]:
    if request.baseline is None:
        raise NotRunError("name an autoregressive model with --baseline to compare")
    words = ("--baseline", request.baseline, "--lengths", "128,2048", "--prefixes", "1024", *_ONCE)
    return _bench(*words)(request, folder)


def _mlx_vlm(request: ReportRequest, folder: Path) -> list[str]:
    if find_spec("mlx_vlm") is None:
        raise NotRunError("mlx-vlm is not installed: pip install mlx-vlm")
    program = _CLONE / "benchmarks" / "run.py"
    if not program.is_file():
        raise NotRunError("the comparison is not in the package: run it in a clone of the repository")
    device = "cpu" if request.device == "cpu" else "metal" if platform.system() == "Darwin" else "cuda"
    words = ["--shape", "mid", "--turns", "3", "--device", device, "--json", str(folder / "compare.json")]
    return [sys.executable, str(program), "compare", str(folder / "scratch"), *words]


_ONCE = ("--repeats", "1", "--retries", "1")
_ANSWERS = ("--no-speed", *_ONCE)

REPORT_STEPS: Sequence[Step] = (
    Step(name="tests", title="tests that compare numbers", limit=300, command=_tests,
         environment={"MLX_ENABLE_TF32": "0"}, writes="tests.xml"),
    Step(name="tests-tf32", title="the same with TF32", limit=300, command=_tf32_tests,
         environment={"MLX_ENABLE_TF32": "1"}, writes="tests.xml"),
    Step(name="conversion", title="a conversion to 4 bits", limit=900, command=_conversion),
    Step(name="speed", title="loading, prefills, steps by canvas and by prefix", limit=600,
         command=_bench("--no-answers", "--lengths", "128,2048,8192,32768", "--prefixes", "1,1024,8192,32768")),
    Step(name="canvases", title="shorter canvases after 1,024 tokens", limit=120,
         command=_bench("--no-answers", "--lengths", "128", "--prefixes", "1024")),
    Step(name="attention", title="a step with fused attention", limit=120, command=_probe("attention")),
    Step(name="command-buffers", title="a step with MLX's own command buffers", limit=120,
         command=_on_metal(_bench("--no-answers", "--lengths", "128", "--prefixes", "1024")),
         environment=_MLX_LIMITS),
    Step(name="answers", title="answers with at most 48 steps per canvas", limit=420,
         command=_bench(*_ANSWERS, "--max-steps", "48")),
    Step(name="steps-24", title="at most 24 steps", limit=300, command=_bench(*_ANSWERS, "--max-steps", "24")),
    Step(name="steps-16", title="at most 16 steps", limit=240, command=_bench(*_ANSWERS, "--max-steps", "16")),
    Step(name="unsettled", title="only rows that are not settled", limit=300,
         command=_bench(*_ANSWERS, "--rows", "unsettled")),
    Step(name="causal", title="causal mode", limit=300, command=_bench(*_ANSWERS, "--mode", "causal")),
    Step(name="speculative", title="speculative mode", limit=300, command=_bench(*_ANSWERS, "--mode", "speculative")),
    Step(name="other", title="the other conversion", limit=420, command=_other(*_ANSWERS, "--max-steps", "48")),
    Step(name="other-speed", title="steps of the other conversion", limit=120,
         command=_other("--no-answers", "--lengths", "128", "--prefixes", "1024")),
    Step(name="batch", title="eight answers together", limit=240, command=_probe("batch")),
    Step(name="kept-prefix", title="an answer after a kept prefix", limit=120, command=_probe("kept-prefix")),
    Step(name="constraint", title="steps under a schema of 20 fields", limit=120, command=_probe("constraint")),
    Step(name="interrupt", title="Ctrl-C during a step", limit=120, command=_probe("interrupt")),
    Step(name="endurance", title="fifty answers in one process", limit=420, command=_probe("endurance")),
    Step(name="mlx-vlm", title="beside mlx-vlm", limit=600, command=_mlx_vlm, writes="compare.json"),
    Step(name="baseline", title="beside an autoregressive model", limit=420, command=_baseline),
)  # fmt: skip
"""In the order in which they run. Together they take under an hour on an M3 Pro, by the estimates."""
