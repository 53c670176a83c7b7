"""Upload a finished folder to the Hub."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mlx_diffgemma.checkpoint.hub import REPOSITORY
from mlx_diffgemma.errors import ConvertError, OptionError


def check_login(repository: str) -> None:
    """Check the name and the login before hours of work. Raises OptionError, ConvertError."""
    from huggingface_hub import HfApi

    if not REPOSITORY.fullmatch(repository):
        raise OptionError(f"{repository!r} is not a repository name: write it as user/name")
    with _refused(f"cannot upload to {repository}", "log in with `hf auth login`, or leave out --upload-repo"):
        HfApi().whoami()  # pyright: ignore[reportUnknownMemberType]


def upload(folder: Path, repository: str) -> str:
    """Create the repository if it does not exist, upload every file, return its address. Raises ConvertError."""
    from huggingface_hub import HfApi

    api = HfApi()
    what, remedy = f"{folder} is converted, but its upload failed", f"send it with `hf upload {repository} {folder}`"
    with _refused(what, remedy):
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    return str(address)


@contextmanager
def _refused(what: str, remedy: str) -> Generator[None]:
    """Turn every failure of huggingface_hub into a ConvertError: `what` happened, the reason, the `remedy`."""
    # HTTPError is a class of the HTTP client that huggingface_hub uses: it passes on a refused connection as it is.
    # RuntimeError comes from the upload of large files.
    from huggingface_hub.errors import HFValidationError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    try:
        yield
    except (OSError, RuntimeError, HTTPError, HFValidationError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConvertError(f"{what} ({reason}): {remedy}") from None
