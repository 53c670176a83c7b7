"""Write a DiffusionGemma checkpoint with random weights, in Google's layout or packed as a conversion leaves it.

    python benchmarks/run.py checkpoint FOLDER --width full --layers 3
    python benchmarks/run.py checkpoint FOLDER --width full --layers 30 --bits 4

Three layers of the full width are 6.4 GB of bf16. All 30 layers are 15.4 GB in 4 bits and 50.5 GB in bf16.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from random_checkpoint import WIDTHS, write_checkpoint
from random_packed import write_packed


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Write the checkpoint that the command line describes."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", choices=list(WIDTHS), default="tiny")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bits", type=int, choices=[4, 5, 6, 8], help="pack the weights; bf16 by default")
    parser.add_argument("--vocab-size", type=int, help="of bf16 weights")
    parser.add_argument("--vision", action="store_true", help="with a small vision tower, beside bf16 weights")
    parser.add_argument(
        "--calm", action="store_true", help="layers that add little and an unsure head; packed ones are"
    )
    options = parser.parse_args(words)
    sizes = {"layers": options.layers, "width": options.width, "seed": options.seed}
    if options.bits is None:
        own = {"vocab_size": options.vocab_size, "vision": options.vision, "calm": options.calm}
        write_checkpoint(options.folder, **sizes, **own)
    elif options.vocab_size is not None or options.vision:
        parser.error("--vocab-size and --vision are for bf16 weights: leave out --bits")
    else:
        write_packed(options.folder, **sizes, bits=options.bits)
