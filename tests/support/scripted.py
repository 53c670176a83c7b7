"""A session without a model: it denoises a text that it was made with.

Run as a program it is `mlx_diffgemma.generate` on such a session, for tests that need a real process and to look at
the display: `SCRIPT='{"text": "Hello", "delay": 0.1}' python tests/support/scripted.py hi -m scripted`.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from mlx_diffgemma.errors import OutOfMemoryError
from mlx_diffgemma.events import (
    BlockCommitted,
    CanvasStarted,
    Denoised,
    Event,
    Finished,
    FinishReason,
    Prefilled,
    Stats,
)
from mlx_diffgemma.generation_config import GenerationConfig

END = 1


def split(text: str) -> list[str]:
    """Split a text into pieces as a tokenizer does: words with their space, all else one character at a time."""
    return re.findall(r" ?[a-zA-Z]{1,8}| ?.|\n", text)


def figures(tokens: int = 40, steps: tuple[int, ...] = (8, 6)) -> Stats:
    """Return the statistics of a generation that took two seconds."""
    return Stats(
        prompt_tokens=5,
        tokens=tokens,
        blocks=len(steps),
        steps_per_block=steps,
        prefill_seconds=0.25,
        seconds_to_first_block=1.25,
        seconds=2.0,
        seconds_per_step=0.125,
        peak_memory=16_500_000_000,
    )


def signal_waiter() -> Callable[[], object]:
    """Return a function that waits for a signal; one that arrives before the function is called counts too."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    return lambda: os.read(reader, 1)


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """Writes `text`, `{prompt}` and `{config}` filled in, in canvases of `length` positions and `steps` steps.

    delay: seconds per event. stop_at: never goes on after the step of this number, as a very slow model does, and
    creates the file `stopped` then. wait_at: goes on after this block's step of this number once a signal has
    arrived. fail_at: runs out of memory after the step of this number of the second block.
    """

    text: str = "Hello."
    thought: str = ""
    length: int = 32
    steps: int = 6
    delay: float = 0.0
    stop_at: int = 0
    stopped: str = ""
    wait_at: Sequence[int] = ()
    fail_at: int = 0
    reason: FinishReason | None = None
    defaults = GenerationConfig(max_tokens=77)

    def stream(self, prompt: str, config: GenerationConfig, *, prefix: None = None) -> Iterator[Event]:
        """Yield the events of writing the text."""
        text = self.text.replace("{prompt}", prompt).replace("{config}", repr(config))
        wait = signal_waiter() if self.wait_at else None
        for event in self._events(split(self.thought), split(text)):
            yield event
            if wait and isinstance(event, Denoised) and (event.block, event.step) == tuple(self.wait_at):
                wait()
            time.sleep(self.delay)
            if isinstance(event, Denoised) and event.block == 1 and event.step == self.fail_at:
                raise OutOfMemoryError("out of memory while generating: shorten the prompt")
            if isinstance(event, Denoised) and event.step == self.stop_at:
                if self.stopped:
                    Path(self.stopped).touch()
                time.sleep(600)

    def stream_many(
        self, prompts: Sequence[str], configs: Sequence[GenerationConfig], *, batch_size: int, prefix: None = None
    ) -> Iterator[tuple[int, Event]]:
        """Yield the events of one prompt after the other."""
        for number, (prompt, config) in enumerate(zip(prompts, configs, strict=True)):
            for event in self.stream(prompt, config):
                yield number, event

    def _events(self, thought: list[str], answer: list[str]) -> Iterator[Event]:
        yield Prefilled(done=3, total=5)
        yield Prefilled(done=5, total=5)
        pieces = [*thought, *answer]
        blocks = range(0, len(pieces) + 1, self.length)
        for block, start in enumerate(blocks):
            part = pieces[start : start + self.length]
            thinking = max(0, min(len(part), len(thought) - start))
            yield CanvasStarted(block=block, canvas=tuple(random.Random(block).choices(range(1000), k=self.length)))
            yield from self._denoise(block, part, thinking)
            yield BlockCommitted(
                block=block,
                steps=self.steps,
                tokens=tuple(range(100, 100 + len(part))) + (END,) * (len(part) < self.length),
                last=start + self.length > len(pieces),
                text="".join(part[thinking:]),
                thought="".join(part[:thinking]),
            )
        yield Finished(
            reason=self.reason or ("stop" if answer else "empty"),
            stats=figures(len(pieces) + 1, (self.steps,) * len(blocks)),
        )

    def _denoise(self, block: int, part: list[str], thinking: int) -> Iterator[Event]:
        chance = random.Random(block)
        target = part + [""] * (self.length - len(part))
        # Positions are accepted roughly from the left, as a model's do.
        order = sorted(range(self.length), key=lambda n: n / self.length + chance.random())
        before: list[str] = []
        for step in range(1, self.steps + 1):
            accepted = set(order[: self.length * step // self.steps])
            best = [
                piece if n in accepted or chance.random() < 0.5 else chance.choice(target)
                for n, piece in enumerate(target)
            ]
            yield Denoised(
                block=block,
                step=step,
                max_steps=48,
                best=tuple(100 + n for n in range(self.length)),
                accepted=tuple(n in accepted for n in range(self.length)),
                changed=tuple(not before or before[n] != piece for n, piece in enumerate(best)),
                mean_entropy=2.0 / step**2,
                end=len(part) if len(part) < self.length else None,
                pieces=tuple(best),
                thought=thinking,
            )
            before = best


def loading(script: Scripted) -> ModuleType:
    """A module in the place of `mlx_diffgemma.loading` that loads the scripted session whatever is named."""
    module = ModuleType("mlx_diffgemma.loading")

    def load(
        model: str,
        *,
        revision: str | None = None,
        dtype: str | None = None,
        adapter: object = None,
        progress: object = None,
        force: bool = False,
    ) -> Scripted:
        time.sleep(script.delay)
        return script

    vars(module)["load"] = load
    return module


def main() -> None:
    """Run the program on the session that SCRIPT describes."""
    sys.modules["mlx_diffgemma.loading"] = loading(Scripted(**json.loads(os.environ.get("SCRIPT", "{}"))))

    from mlx_diffgemma.generate import main as program

    program()


if __name__ == "__main__":
    main()
