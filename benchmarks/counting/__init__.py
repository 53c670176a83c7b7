"""Counting arithmetic, bytes and primitives in MLX's graph of a computation that is never run.

instrument  stands in for the functions of MLX that a trace would take apart
nodes       what a graph consists of
graph       a function and the shapes of its arguments -> the primitives of its graph, in order
fusion      which primitives of a compiled function become one kernel
layout      what is a view, and which reshapes have to copy
costs       what each primitive costs: the one table of kinds
parts       which part of the model a primitive belongs to
models      a model of any size whose weights are shapes only
programs    one step, or one prefill, of this runtime and of mlx-vlm
report      the figures as a table and as JSON
"""
