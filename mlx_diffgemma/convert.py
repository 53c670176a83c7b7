"""The program mlx_diffgemma.convert lives in a package of its own; this gives it its name.

The one place where the runtime imports the converter, and nothing imports this module.
"""

from mlx_diffgemma_convert.program import main

if __name__ == "__main__":
    main()
