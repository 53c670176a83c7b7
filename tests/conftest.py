"""Marks by folder, and the models that several test modules use."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from demo_checkpoint import write_tokenizer
from random_checkpoint import write_checkpoint

from mlx_diffgemma.device.environment import keep_float32

# Tests compare float32 figures. MLX has been imported by now, but multiplied nothing.
keep_float32()
# A shell lets what it starts in the background ignore Ctrl-C, and so would the programs that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test with the name of its folder."""
    item.add_marker(item.path.relative_to(TESTS).parts[0])


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint in Google's layout, with tokenizer and template: everything `load` needs.

    Tests read it and leave it as it is.
    """
    folder = tmp_path_factory.mktemp("demo")
    write_checkpoint(folder, layers=3, width="tiny", vocab_size=1024)
    write_tokenizer(folder)
    return folder
