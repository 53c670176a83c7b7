"""How good the model is on held-out data: its losses under fixed noise, and the answers that it generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple, cast

import mlx.core as mx

from mlx_diffgemma.session import Session
from mlx_diffgemma.text.messages import conversation
from mlx_diffgemma.training.batches import Batches
from mlx_diffgemma.training.data import Conversation, Example
from mlx_diffgemma.training.forward import plain
from mlx_diffgemma.training.loop import Evaluated
from mlx_diffgemma.training.objective import losses

_MAX_BATCHES = 16


class Question(NamedTuple):
    """A held-out conversation, as text and in token ids."""

    conversation: Conversation
    example: Example


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Held-out data, and the model that is evaluated on it; every evaluation uses the same batches and questions."""

    session: Session
    batches: Batches
    questions: Sequence[Question]
    causal_weight: float

    def evaluate(self, step: int) -> Evaluated:
        """Compute the losses after `step` steps, and count the questions that are answered exactly."""
        count = min(_MAX_BATCHES, -(-len(self.batches.examples) // self.batches.rows))
        canvas: list[float] = []
        causal: list[float] = []
        denoised: list[float] = []
        for index in range(count):
            batch = self.batches.batch(index)
            found = losses(
                self.session.model,
                batch,
                plain,
                conditioned=self.batches.conditioned(index),
                causal_weight=self.causal_weight,
            )
            mx.eval(found)
            canvas.append(cast("float", found.canvas.item()))
            causal.append(cast("float", found.causal.item()))
            denoised.append(cast("float", batch.denoised.sum().item()))
        right = sum(self._right(question) for question in self.questions)
        mx.clear_cache()
        # Texts have no canvas; without any canvas the loss is 0.
        mean = fmean(canvas, weights=denoised) if any(denoised) else 0.0
        return Evaluated(step=step, canvas=mean, causal=fmean(causal), right=right, asked=len(self.questions))

    def _right(self, question: Question) -> bool:
        # An answer that is one canvas longer than the wanted one is wrong: what follows need not be generated.
        max_tokens = question.example.response.size + self.batches.canvas
        config = replace(self.session.defaults, max_tokens=max_tokens)
        messages = question.conversation.messages
        wanted = conversation(messages)[-1].text
        return self.session.generate(messages[:-1], config).text.strip() == wanted.strip()
