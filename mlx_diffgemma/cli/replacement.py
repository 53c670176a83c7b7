"""A file takes the place of another: what the old one had besides its content, and which files cannot be replaced.

Content, owner, group, permissions and extended attributes are the file's own. Hard links are not: the other names
would keep the old content, so a file with several names is refused. Bits that give a program its owner's rights are
dropped, because the new content is not the one that they were given to.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

from mlx_diffgemma.errors import DocumentError

_RIGHTS_OF_THE_OWNER = stat.S_ISUID | stat.S_ISGID
_CAPABILITY = "security.capability"
"""The attribute with which Linux gives a program rights."""
_ACL_AND_ATTRIBUTES = 0b101
"""COPYFILE_ACL | COPYFILE_XATTR of copyfile(3) on macOS."""


def require_replaceable(name: str) -> None:
    """Raise DocumentError if a file cannot be replaced without losing something, or not at all."""
    from tempfile import TemporaryFile

    try:
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise DocumentError(f"{name} is no regular file: print the result, or name a file to write it into")
        if status.st_nlink > 1:
            raise DocumentError(
                f"{name} has {status.st_nlink} hard links, and only this one would be rewritten: print the result "
                "and write it there yourself"
            )
        path = Path(os.path.realpath(name))
        with path.open("r+b"), TemporaryFile(dir=path.parent) as beside:
            _keep_owner(beside.fileno(), status, name)
    except FileNotFoundError:
        raise DocumentError(f"{name}: no such file") from None
    except OSError as error:
        raise DocumentError(f"{name} cannot be written: {error.strerror}") from None


def keep_attributes(path: Path, beside: Path) -> None:
    """Give `beside`, which will replace `path`, its owner, group, permissions and extended attributes.

    Raises DocumentError if it cannot have the owner or the group, OSError.
    """
    status = path.stat()
    _keep_owner(beside, status, str(path))
    beside.chmod(stat.S_IMODE(status.st_mode) & ~_RIGHTS_OF_THE_OWNER)
    if sys.platform == "darwin":
        import ctypes

        copyfile = ctypes.CDLL(None, use_errno=True).copyfile
        if copyfile(os.fsencode(path), os.fsencode(beside), None, _ACL_AND_ATTRIBUTES) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(beside))
    else:
        _copy_attributes(path, beside)


def _copy_attributes(path: Path, beside: Path) -> None:
    for name in os.listxattr(path):
        # Labels of the system are given to a new file by the system; a user may not be allowed to.
        with contextlib.suppress(PermissionError) if name.startswith("security.") else contextlib.nullcontext():
            if name != _CAPABILITY:
                os.setxattr(beside, name, os.getxattr(path, name))


def _keep_owner(beside: Path | int, status: os.stat_result, name: str) -> None:
    """Give a new file, a path or a descriptor, the owner and the group of `status`."""
    new = os.fstat(beside) if isinstance(beside, int) else beside.stat()
    if (new.st_uid, new.st_gid) == (status.st_uid, status.st_gid):
        return
    try:
        os.chown(beside, status.st_uid, status.st_gid)
    except PermissionError:
        raise DocumentError(
            f"{name} belongs to user {status.st_uid} and group {status.st_gid}, and would no longer: print the result "
            "and write it there yourself"
        ) from None
