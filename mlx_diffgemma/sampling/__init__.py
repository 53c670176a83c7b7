"""One canvas, one step: sampler, schedule, stop rule, pins, constraint."""
