"""Count arithmetic, bytes and primitives in MLX's graph of a computation, without running it.

instrument  replaces the functions of MLX that a trace would take apart
nodes       arrays, primitives and graphs
graph       a function and the shapes of its arguments -> the primitives of its graph, in order
fusion      the primitives of a compiled function that become one kernel
layout      the primitives that are views, and the reshapes that copy
costs       the cost of every kind of primitive
parts       the part of the model that a primitive belongs to
models      a model of any size whose weights have shapes and no values
programs    one step, or one prefill, of this runtime and of mlx-vlm
report      the figures as a table and as JSON
"""
