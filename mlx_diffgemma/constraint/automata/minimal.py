"""Deterministic automata with no more states than are needed.

`merged` is Hopcroft's partition refinement on arrays. A block is a set of states that are still taken for equal; at
first there are two, of the states that accept and of those that do not. A block is split where a byte leads its states
to different blocks. Every state carries the sum of one random number of 64 bits for each of its transitions, which
depends on the transition's byte and on its target's block, so states whose sums differ are different; and only states
with a transition into a block that was split need to be looked at again.
"""

from __future__ import annotations

import numpy as np

from mlx_diffgemma.constraint.automata.adjacency import Adjacency, Flags, Hashes, Indices, Numbers, random_hashes


def trimmed(steps: Numbers, accepting: Flags) -> tuple[Numbers, Flags]:
    """Drop the states that no text reaches, and those from which no text can be completed.

    steps [S, C] with S where nothing can be read -> [S', C] likewise. State 0 stays the first; S' may be 0.
    """
    size = len(steps)
    sources, classes = np.nonzero(steps != size)
    edges = Adjacency(sources, steps[sources, classes], size)
    useful = edges.reached(np.array([0])) & edges.reversed().reached(np.flatnonzero(accepting))
    kept = np.flatnonzero(useful) if useful[0] else np.array([], np.int64)
    numbers = np.full(size + 1, len(kept), np.int32)
    numbers[kept] = np.arange(len(kept))
    return numbers[steps[kept]], accepting[kept]


def merged(steps: Numbers, accepting: Flags) -> tuple[Numbers, Flags]:
    """Merge the states that accept the same continuations; steps [S, C] with S where nothing can be read.

    States are numbered in the order of the first of those that were merged, so state 0 stays the first.
    """
    blocks = _blocks(steps, accepting)
    _, first, block_of = np.unique(blocks, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    numbers = np.empty(len(first) + 1, np.int32)
    numbers[order] = np.arange(len(first))
    numbers[len(first)] = len(first)
    chosen = first[order]
    return numbers[np.append(block_of, len(first))[steps[chosen]]], accepting[chosen]


def _blocks(steps: Numbers, accepting: Flags) -> Indices:
    """[S] the number of the block of every state."""
    size = len(steps)
    sources, classes = np.nonzero(steps != size)
    into = Adjacency(steps[sources, classes], sources, size)
    weights, values = random_hashes(steps.shape[1], seed=0)[classes], random_hashes(size + 2, seed=1)
    blocks = accepting.astype(np.int64)
    sums = np.zeros(size, np.uint64)
    np.add.at(sums, sources, weights * values[blocks[into.sources]])
    sizes = np.bincount(blocks, minlength=size + 2)
    count, touched = 2, np.arange(size)
    while touched.size:
        changed, former = _split(touched, blocks, sums, sizes, count)
        count += len(np.unique(blocks[changed]))
        edges = into.edges_from(changed)
        difference = values[blocks[into.sources[edges]]] - values[np.repeat(former, into.degrees[changed])]
        np.add.at(sums, sources[edges], weights[edges] * difference)
        touched = np.unique(sources[edges])
    return blocks


def _split(touched: Indices, blocks: Indices, sums: Hashes, sizes: Indices, count: int) -> tuple[Indices, Indices]:
    """Split the blocks of some states by their sums; return the states that moved to a new block, and their old blocks.

    New blocks are numbered from `count` on. Of a block that has other states, these keep its number; of one that has
    not, the largest part keeps it.
    """
    order = touched[np.lexsort((sums[touched], blocks[touched]))]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (blocks[order][1:] != blocks[order][:-1]) | (sums[order][1:] != sums[order][:-1])
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(order)))
    block = blocks[order[starts]]
    # The largest group of each block comes first.
    ranked = np.lexsort((-lengths, block))
    is_largest = np.ones(len(ranked), np.bool_)
    is_largest[1:] = block[ranked][1:] != block[ranked][:-1]
    in_block = np.bincount(block, weights=lengths, minlength=len(sizes)).astype(np.int64)
    stays = np.zeros(len(starts), np.bool_)
    stays[ranked] = is_largest & (in_block[block[ranked]] == sizes[block[ranked]])
    moving = np.flatnonzero(~stays)
    changed = order[np.repeat(~stays, lengths)]
    former = np.repeat(block[moving], lengths[moving])
    numbers = count + np.arange(len(moving))
    np.subtract.at(sizes, block[moving], lengths[moving])
    sizes[numbers] = lengths[moving]
    blocks[changed] = np.repeat(numbers, lengths[moving])
    return changed, former
