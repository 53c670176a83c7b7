"""What the demo model is asked: a conversation that ends with a question, and the right answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from demo_next.source import Source


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, a right answer, and what makes the question different from others of its kind."""

    kind: str
    prompt: str
    answer: str
    content: str | None = None
    """what is held out by value, in whatever words it is asked; None if all words of the question are held out"""
    before: tuple[str, ...] = ()
    """earlier turns: a user's, the model's, a user's, ..."""
    system: str | None = None

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation with the answer, as training reads it."""
        turns = [*self.before, self.prompt, self.answer]
        spoken = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
        return [{"role": "system", "content": self.system}, *spoken] if self.system else spoken


Kind: TypeAlias = Callable[[Source], Question]
"""Makes a question from words and numbers of one side."""
