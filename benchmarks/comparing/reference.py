"""transformers as a program of the comparison, for a GPU; on the CPU only to see that it works.

transformers reads no packed weights. For a packed checkpoint it computes with random weights in the compute dtype,
which takes equal time, and its tokens cannot be compared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from parity import VISION


class Transformers:
    """The reference; its loop is `generate`, and a step ends when a streamer has its most likely tokens on the CPU."""

    def __init__(self, folder: Path, dtype: str, device: str) -> None:
        import torch
        from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

        self._torch = torch
        self._device = "cuda" if device == "cuda" else "cpu"
        raw = json.loads((folder / "config.json").read_text())
        packed = "quantization" in raw
        raw = {key: value for key, value in raw.items() if key not in ("quantization", "generation_config")}
        config = DiffusionGemmaConfig(**{**raw, "vision_config": raw.get("vision_config") or VISION})
        wanted = getattr(torch, dtype)
        if packed:
            default = torch.get_default_dtype()
            torch.set_default_dtype(wanted)
            with torch.device(self._device):
                self._model = DiffusionGemmaForBlockDiffusion(config)
            torch.set_default_dtype(default)
        else:
            made = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, config=config, dtype=wanted)
            self._model = made.to(self._device)
        self._model.eval()
        self._prefix: list[int] = []

    def version(self) -> str:
        """See Program."""
        return f"transformers {version('transformers')}, torch {self._torch.__version__}"

    def vocabulary(self) -> int:
        """See Program."""
        return self._model.config.text_config.vocab_size

    def prefill(self, tokens: Sequence[int]) -> float:
        """See Program. Times the encoder in a generation of one step; `steps` encodes the prefix again, untimed."""
        self._prefix = list(tokens)
        stamps: list[float] = []

        def stamp(*_: Any) -> None:
            self._wait()
            stamps.append(time.perf_counter())

        encoder = self._model.model.encoder
        hooks = [encoder.register_forward_pre_hook(stamp), encoder.register_forward_hook(stamp)]
        try:
            self._generate([0], 1, _Stamps())
        finally:
            for hook in hooks:
                hook.remove()
        return stamps[1] - stamps[0]

    def steps(self, canvas: Sequence[int], count: int, top_k: int | None, seed: int) -> list[float]:
        """See Program. Raises ValueError for a top_k, which transformers does not have."""
        if top_k is not None:
            raise ValueError("transformers conditions by all tokens")
        self._torch.manual_seed(seed)
        stamps = _Stamps()
        self._generate(canvas, count + 1, stamps)
        return [after - before for before, after in pairwise(stamps.taken)]

    def best(self, canvas: Sequence[int]) -> list[int]:
        """See Program."""
        with self._torch.no_grad():
            logits = self._model(input_ids=self._array(self._prefix), decoder_input_ids=self._array(canvas)).logits
        return logits.argmax(dim=-1)[0].tolist()

    def peak(self, *, begin: bool = False) -> int:
        """See Program. Counted by torch, which counts nothing on the CPU."""
        if self._device == "cpu":
            return 0
        peak = self._torch.cuda.max_memory_allocated()
        if begin:
            self._torch.cuda.reset_peak_memory_stats()
        return peak

    def _generate(self, canvas: Sequence[int], steps: int, streamer: _Stamps) -> None:
        self._model.config.canvas_length = len(canvas)
        with self._torch.no_grad():
            self._model.generate(
                self._array(self._prefix),
                decoder_input_ids=self._array(canvas),
                max_new_tokens=len(canvas),
                max_denoising_steps=steps,
                # No canvas has a mean entropy below this, so that all steps run.
                confidence_threshold=1e-30,
                streamer=streamer,
            )

    def _array(self, tokens: Sequence[int]) -> Any:
        # transformers needs a prompt of at least one token.
        return self._torch.tensor([list(tokens) or [0]], device=self._device)

    def _wait(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


class _Stamps:
    """A streamer that notes when each step's draft arrives."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def put_draft(self, value: Any) -> None:
        """One step is done."""
        del value
        self.taken.append(time.perf_counter())

    def put(self, value: Any) -> None:
        """Nothing to show."""

    def end(self) -> None:
        """Nothing to show."""
