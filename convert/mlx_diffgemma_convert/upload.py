"""Sending a finished folder to the Hub."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mlx_diffgemma.checkpoint.hub import REPOSITORY
from mlx_diffgemma.errors import ConvertError, OptionError


def check_login(repository: str) -> None:
    """Find out before hours of work whether an upload can succeed. Raises OptionError, ConvertError."""
    from huggingface_hub import HfApi

    if not REPOSITORY.fullmatch(repository):
        raise OptionError(f"{repository!r} is no repository name: write user/name")
    with _refused(f"cannot upload to {repository}", "log in with `hf auth login`, or leave out --upload-repo"):
        HfApi().whoami()  # pyright: ignore[reportUnknownMemberType]


def upload(folder: Path, repository: str) -> str:
    """Create the repository where it is missing, send every file, return its address. Raises ConvertError."""
    from huggingface_hub import HfApi

    api = HfApi()
    what, remedy = f"{folder} is converted, but its upload failed", f"send it with `hf upload {repository} {folder}`"
    with _refused(what, remedy):
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    return str(address)


@contextmanager
def _refused(what: str, remedy: str) -> Generator[None]:
    # HTTPError is the HTTP client's own class, whichever client this huggingface_hub was built on; a refused
    # connection is not wrapped. RuntimeError is what the uploader of large files raises.
    from huggingface_hub.errors import HFValidationError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    try:
        yield
    except (OSError, RuntimeError, HTTPError, HFValidationError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConvertError(f"{what} ({reason}): {remedy}") from None
