"""The program mlx_diffgemma.fuse lives in the converter's package; this gives it its name.

With `convert` the one place where the runtime imports the converter; nothing imports this module.
"""

import mlx_diffgemma.cli.quietly  # isort: skip # noqa: F401 # pyright: ignore[reportUnusedImport]

from mlx_diffgemma_convert.fuse_program import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
