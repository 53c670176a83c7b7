"""transformers as a program of the comparison: on a GPU, or on the CPU to see that it works.

It reads no packed weights: where the checkpoint's are packed it computes with random ones of its own in the compute
dtype, which take the same time, and its tokens are not compared.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from wide_parity import VISION


class Transformers:
    """The reference. Its loop is `generate`; every step ends with the most likely tokens on the CPU, for a streamer."""

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
        """transformers' and torch's."""
        return f"transformers {version('transformers')}, torch {self._torch.__version__}"

    def vocabulary(self) -> int:
        """The model's."""
        return self._model.config.text_config.vocab_size

    def prefill(self, tokens: Sequence[int]) -> float:
        """The encoder's part of a generation of one step; `steps` encodes the prefix again, untimed."""
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
        """Steps of a generation. Raises ValueError for a top_k, which it does not have."""
        if top_k is not None:
            raise ValueError("transformers conditions by all tokens")
        self._torch.manual_seed(seed)
        stamps = _Stamps()
        self._generate(canvas, count + 1, stamps)
        return [after - before for before, after in pairwise(stamps.taken)]

    def best(self, canvas: Sequence[int]) -> list[int]:
        """Of the logits."""
        with self._torch.no_grad():
            logits = self._model(input_ids=self._array(self._prefix), decoder_input_ids=self._array(canvas)).logits
        return logits.argmax(dim=-1)[0].tolist()

    def peak(self, *, begin: bool = False) -> int:
        """torch's count on a GPU; it keeps none on the CPU."""
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
                # No canvas is ever as certain as this.
                confidence_threshold=1e-30,
                streamer=streamer,
            )

    def _array(self, tokens: Sequence[int]) -> Any:
        # A prompt has one token at least.
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
