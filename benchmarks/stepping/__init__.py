"""Denoising steps of this runtime and of mlx-vlm by their own loops, for the comparison and for the counter.

One step of either program in its steady state (the first step of a canvas has no soft embedding, the last may make
none):

    1  the soft embedding of the step before, from all tokens; in this runtime optionally from the k most likely ones
    2  the logits of the canvas after the prefix, conditioned by the soft embedding
    3  the logits divided by the temperature of the step
    4  the most likely token, a drawn token and the entropy at every position; the entropy bound accepts positions
    5  the next canvas: the drawn tokens at accepted positions, uniform noise elsewhere
    6  whether the canvas converged, which the program looks at in every step

This runtime's loop is `sampling.denoising.refine` with the reference's rules. mlx-vlm's loop is
`generate.diffusion.stream_diffusion_generate` with diffusion_sampler="entropy-bound" and temperature=1, which follow
the reference. Its own defaults, "confidence-threshold" and 0, are another rule with less work in 4: they accept a token
by the probability of the most likely one. mlx-vlm's soft embedding is always exact; on packed weights it is a part of
the next step's forward pass. Its last step is shorter, and its first is waited for only together with the second:
neither is timed.
"""
