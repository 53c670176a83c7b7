"""The program mlx_diffgemma.fuse lives in the converter's package; this gives it its name.

Like `convert` one of the two places where the runtime imports the converter, and nothing imports this module.
"""

from mlx_diffgemma_convert.fuse_program import main

if __name__ == "__main__":
    main()
