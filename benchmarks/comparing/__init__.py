"""Several programs on the same checkpoint, each in a process of its own, in turns.

worker      the process: reads requests, has its program do them, says how long it took and how much memory
programs    what each program is to the worker: this runtime, mlx-vlm, transformers
link        the other end of the pipe
shapes      the checkpoints
turns       who is asked what, in which order -> seconds and bytes
report      medians, ratios and their spread, as a table and as JSON
"""
