"""Write the untrained next demo model in Google's layout: configuration, tokenizer, random weights.

    python examples/demo_next/architecture.py FOLDER [--seed 0]

It is the demo model with a layer more, a window and canvases twice as long, and a tokenizer of letters.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_model import architecture
from demo_model.architecture import FULL, SLIDING, write_model
from demo_next.vocabulary import vocabulary, write_tokenizer

TEXT = {
    **architecture.TEXT,
    "num_hidden_layers": 6,
    "layer_types": [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL],
    "sliding_window": 128,
    "max_position_embeddings": 8192,
    "vocab_size": len(vocabulary()),
}
CONFIG = {**architecture.CONFIG, "canvas_length": 64, "text_config": TEXT}
GENERATION = {**architecture.GENERATION, "max_new_tokens": 512}


def write_untrained(folder: Path, *, seed: int = 0) -> None:
    """Write the whole folder for mlx_diffgemma.train."""
    write_tokenizer(folder)
    write_model(folder, CONFIG, GENERATION, seed=seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_untrained(arguments.folder, seed=arguments.seed)
