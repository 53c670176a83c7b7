"""Measure several programs on one checkpoint, each in its own process, in turns.

worker      the process: reads requests, lets its program do them, answers with seconds and memory
programs    this runtime and mlx-vlm behind one protocol
reference   transformers behind the same protocol
link        the parent's end of the pipe
shapes      the checkpoints
turns       the order of the requests -> seconds and bytes
report      medians, ratios and their spread, as a table and as JSON
"""
