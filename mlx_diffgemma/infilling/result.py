"""The result of filling a template, put together from its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_diffgemma.completion import Completion, fold
from mlx_diffgemma.events import Event
from mlx_diffgemma.infilling.template import Part, filled


@dataclass(frozen=True, kw_only=True, repr=False)
class Infilled(Completion):
    """A template with its gaps filled: a Completion whose text is the whole text; `gaps` are the fillings, in order.

    tokens, probabilities: of what is generated and of the text between. finish_reason: "length" if a gap at the end of
    the template reached its longest length, "empty" if nothing is in any gap, else "stop", or "interrupted".
    """

    gaps: tuple[str, ...]

    def _record(self) -> dict[str, Any]:
        """Return the fields that are in the JSON form."""
        return {**super()._record(), "gaps": self.gaps}


def gather_filled(parts: Sequence[Part], events: Iterable[Event], *, seed: int) -> Infilled:
    """Drain the events of one template and return its result; seed: that of its options.

    The text consists of the template's own texts and the fillings, so nothing around a gap can change; if the events
    end early, it is what was decided until then.
    """
    completion, gaps = fold(events, seed=seed)
    text, reason = completion.text, completion.finish_reason
    if reason != "interrupted":
        # Text around the gaps is no answer.
        text, reason = filled(parts, gaps), reason if any(gaps) else "empty"
    fields: dict[str, Any] = {**vars(completion), "text": text, "finish_reason": reason, "gaps": gaps}
    return Infilled(**fields)
