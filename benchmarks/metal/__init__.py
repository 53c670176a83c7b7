"""Drafts of Metal kernels. None has run on a Mac yet, so the package has none of them; see docs/mac.md.

Each draft has a twin in numpy that does the same in the same order. The twins are tested everywhere against the
functions that the package uses; a kernel is tested against its twin where there is Metal.
"""
