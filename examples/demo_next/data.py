"""Write questions and answers as conversations, one JSON object per line.

    python examples/demo_next/data.py FOLDER --train 100000 --valid 1000

train.jsonl has questions of all kinds to learn from, valid.jsonl has held-out questions of all kinds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_next.questions import MIX, stream


def write_data(folder: Path, *, train: int, valid: int, seed: int = 0, mix: Mapping[str, int] = MIX) -> None:
    """Write train.jsonl and valid.jsonl into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, number, held_out in (("train", train, False), ("valid", valid, True)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for question in islice(stream(seed, mix, held_out=held_out), number):
                file.write(json.dumps({"messages": question.messages()}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=100_000, help="questions to learn from")
    parser.add_argument("--valid", type=int, default=1_000, help="questions to test with")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_data(arguments.folder, train=arguments.train, valid=arguments.valid, seed=arguments.seed)
