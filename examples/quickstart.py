"""The demo model in a few lines: an answer, an answer with options, and the events behind one.

python examples/quickstart.py [MODEL]
"""

from __future__ import annotations

import sys
from dataclasses import replace

from mlx_diffgemma import BlockCommitted, Denoised, Finished, load

session = load(sys.argv[1] if len(sys.argv) > 1 else "demo")

# 1  An answer.
print(session.generate("Who are you?").text, end="\n\n")

# 2  The checkpoint's own options with some of yours.
config = replace(session.defaults, seed=1, max_steps=24)
answer = session.generate("Give JSON: Ana is 34 and lives in Rome.", config)
print(answer.text, f"({answer.stats.steps} steps, {len(answer.tokens)} tokens)", end="\n\n")

# 3  What happened, step by step: every position of the canvas, and whether it was accepted.
for event in session.stream("What can you do?"):
    match event:
        case Denoised(step=step, accepted=accepted, pieces=pieces):
            print(f"{step:3} {sum(accepted):3} accepted |{''.join(pieces)}|".replace("\n", "⏎"))
        case BlockCommitted(text=text, steps=steps):
            print(f"-> {text!r} after {steps} steps")
        case Finished(reason=reason, stats=stats):
            print(f"{reason}: {stats.tokens_per_forward:.1f} tokens per forward pass")
        case _:
            pass
