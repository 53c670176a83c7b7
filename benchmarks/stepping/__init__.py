"""Denoising steps of this runtime and of mlx-vlm by their own loops: what is compared and what is counted.

One step, on both sides, in its steady state (the first of a canvas has no soft embedding, its last may lead to none):

    1  soft embedding of the step before: exact, from all tokens; on our side from the k most likely ones where asked
    2  logits of the canvas behind the prefix, conditioned by it
    3  the logits divided by the step's temperature
    4  the most likely token, a draw and the entropy at every position; by the entropy bound: accepted or not
    5  the next canvas: what was drawn where it is accepted, uniform noise elsewhere
    6  whether the canvas is finished, looked at by the program in every step

Ours is `engine.refine` with the reference's rules. mlx-vlm's is `generate.diffusion.stream_diffusion_generate` with
diffusion_sampler="entropy-bound" and temperature=1, the settings under which it does what the reference does. Its own
defaults, "confidence-threshold" and 0, freeze tokens by the probability of the most likely one: less work in step 4,
another rule. Its soft embedding is always exact; on packed weights it is a part of the next step's forward. The last
step that it allows itself is shorter (it ends with the most likely tokens), and its first is only waited for with the
second: neither is ever timed.
"""
