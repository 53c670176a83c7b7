"""Teach the demo model a new kind of question, and show its answers before and after.

    python examples/finetune/run.py FOLDER

The training is one command, which is printed. FOLDER keeps the data, the adapter, and the adapter's log and picture.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from finetune.data import write_data

from mlx_diffgemma import Session, load

TRAINING = "--steps 60 --batch-size 8 --learning-rate 1e-2 --warmup 5 --evaluate-every 30 --answers 16"


def finetune(folder: Path) -> tuple[int, int]:
    """Train an adapter; return the number of right answers before and after, of 40."""
    data, adapter = folder / "data", folder / "adapter"
    write_data(data)
    before = right(load("demo"), data / "valid.jsonl", "before")
    command = f"mlx_diffgemma.train --model demo --data {data} --adapter-path {adapter} {TRAINING}"
    print(f"$ {command}", flush=True)
    subprocess.run([sys.executable, "-m", *shlex.split(command)], check=True)
    return before, right(load("demo", adapter=adapter), data / "valid.jsonl", "after")


def right(session: Session, questions: Path, when: str) -> int:
    """Print the first three answers to the questions of a file; return how many answers are exact."""
    pairs = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    # The answers are one word; a model that does not know them yet would write, and revise, until its own limits.
    config = replace(session.defaults, max_tokens=16, max_steps=12, trim=True)
    answers = [session.generate(pair["prompt"], config).text for pair in pairs]
    count = sum(answer.strip() == pair["completion"] for pair, answer in zip(pairs, answers, strict=True))
    print(f"{when}: {count} of {len(pairs)} right")
    for pair, answer in list(zip(pairs, answers, strict=True))[:3]:
        print(f"  {pair['prompt']}  ->  {answer!r}")
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    finetune(parser.parse_args().folder)
