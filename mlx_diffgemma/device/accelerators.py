"""Whether MLX can use the neural accelerators in the GPU of an M5: from facts about a machine to words.

MLX has kernels for them in its package for macOS 26, and calls them from macOS 26.2 on. With an older system or
package an M5 computes as an M4 does, or fails where the package has kernels that the system cannot run.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

_FIRST, _FIRST_PHONE = 17, 18
"""Generations of GPUs from which on there are neural accelerators: of Macs, and of the chips of phones."""
_NEEDED_SYSTEM, _NEEDED_PACKAGE = (26, 2), 26
_ARCHITECTURE = re.compile(r"applegpu_g(\d+)([a-z]?)")
_TAG = re.compile(r"^Tag: .*macosx_(\d+)_", re.MULTILINE)
_INSTALL = "pip install --upgrade --force-reinstall mlx"


@dataclass(frozen=True, kw_only=True)
class AppleFacts:
    """What decides it. architecture: as MLX names the GPU, None without an Apple GPU. package: the macOS that the
    installed mlx-metal was built for, None if it does not say.
    """

    architecture: str | None
    system: tuple[int, ...]
    package: int | None

    @property
    def has_accelerators(self) -> bool:
        """Whether the GPU has neural accelerators."""
        found = _ARCHITECTURE.match(self.architecture or "")
        return found is not None and int(found[1]) >= (_FIRST_PHONE if found[2] == "p" else _FIRST)

    @property
    def lacks(self) -> tuple[str, ...]:
        """What keeps MLX from using the accelerators that there are, each with what to do."""
        if not self.has_accelerators:
            return ()
        found: list[str] = []
        if self.system < _NEEDED_SYSTEM:
            found.append(f"macOS is {dotted(self.system)}: update it to {dotted(_NEEDED_SYSTEM)} or later")
        if self.package is not None and self.package < _NEEDED_PACKAGE:
            found.append(f"MLX is that for macOS {self.package}: `{_INSTALL}` gets that for macOS {_NEEDED_PACKAGE}")
        return tuple(found)

    def words(self) -> str:
        """Return in a few words whether MLX can use neural accelerators; "" without an Apple GPU."""
        if self.architecture is None:
            return ""
        if not self.has_accelerators:
            return "no neural accelerators"
        return "neural accelerators cannot be used" if self.lacks else "neural accelerators can be used"

    def warning(self) -> str | None:
        """Return in one line what is out of date, and what to do; None if nothing is."""
        if not self.lacks:
            return None
        return f"MLX cannot use the neural accelerators of this GPU, and is slower: {', and '.join(self.lacks)}"


def apple_facts(architecture: object) -> AppleFacts:
    """Return the facts of this machine. architecture: what `mx.device_info` has under that name."""
    return AppleFacts(
        architecture=architecture if isinstance(architecture, str) and architecture.startswith("applegpu") else None,
        system=macos_version(platform.mac_ver()[0]),
        package=_package(),
    )


def macos_version(text: str) -> tuple[int, ...]:
    """Read a version of macOS, () for "". A Python that was built for an older system is told 16 for 26."""
    numbers = tuple(int(part) for part in text.split(".") if part.isdecimal())
    return (26, *numbers[1:]) if numbers[:1] == (16,) else numbers


def dotted(version: tuple[int, ...]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def built_for(wheel: str) -> int | None:
    """Return the macOS that a package was built for, by the text of its WHEEL file; None if it has no such tag."""
    found = _TAG.search(wheel)
    return None if found is None else int(found[1])


def _package() -> int | None:
    try:
        return built_for(distribution("mlx-metal").read_text("WHEEL") or "")
    except PackageNotFoundError:
        return None
