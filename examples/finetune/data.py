"""Make up a new kind of question for the demo model: which word of a list is the last one?

    python examples/finetune/data.py FOLDER

FOLDER/train.jsonl and FOLDER/valid.jsonl hold one {"prompt": ..., "completion": ...} per line; no list is in both.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_model.words import WORDS


def write_data(folder: Path, *, train: int = 400, valid: int = 40, seed: int = 0) -> None:
    """Write questions with their answers, some to learn from and some to test with."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    lists: dict[str, str] = {}
    while len(lists) < train + valid:
        words = rng.sample(WORDS, rng.randint(2, 5))
        lists[f"Last word: {', '.join(words)}"] = words[-1]
    lines = [json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in lists.items()]
    (folder / "train.jsonl").write_text("".join(lines[:train]), encoding="utf-8")
    (folder / "valid.jsonl").write_text("".join(lines[train:]), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    write_data(parser.parse_args().folder)
