"""The name of a model -> its folder on this disk: a path, a Hub repository (through the Hub's cache) or "demo"."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_diffgemma.errors import ModelNotFoundError
from mlx_diffgemma.files import home_expanded

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md"]
"""The files of a repository that are downloaded: weights, configuration, tokenizer, template, and the card."""
DEMO = "demo"
"""The name of the model in the package; a folder with that name is ./demo."""


def model_folder(model: str | Path, revision: str | None = None) -> Path:
    """Return the folder of `model`; a Hub repository that is not in the cache is downloaded first.

    Raises ModelNotFoundError for a path that does not exist, for an unknown or gated repository or an unknown revision,
    and for a repository that is not in the cache while the machine is offline.
    """
    if model == DEMO and revision is None:
        return Path(__file__).parent.with_name(DEMO)
    path = home_expanded(model, ModelNotFoundError)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise ModelNotFoundError(f"no such folder: {str(model)[:80]!r} ({error.strerror})") from None
    if is_folder and revision is not None:
        raise ModelNotFoundError(f"{path} is a folder: a revision goes with a Hub repository only")
    if is_folder:
        return path
    if exists:
        raise ModelNotFoundError(f"{path} is a file: name the folder of a model")
    name = str(model)
    if not REPOSITORY.fullmatch(name) or name.startswith((".", "/")):
        from difflib import get_close_matches

        near = get_close_matches(name.lower(), [DEMO])
        advice = f"did you mean {DEMO}?" if near else f"name a folder, a Hub repository (owner/name) or {DEMO}"
        raise ModelNotFoundError(f"no such folder: {path}: {advice}")
    return _download(name, revision)


def _download(repository: str, revision: str | None) -> Path:
    # Imported here because it takes a tenth of a second, and a local folder does not need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - the class of the HTTP client in use
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_FILES))
    except GatedRepoError:
        raise ModelNotFoundError(
            f"{repository} is gated: accept its terms on huggingface.co and log in with `hf auth login`"
        ) from None
    except HFValidationError:
        raise ModelNotFoundError(
            f"no folder {repository}, and no name that a Hub repository can have: check the name"
        ) from None
    except RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"no folder and no Hub repository {repository}: check the name; a private one needs `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise ModelNotFoundError(
            f"{repository} has no revision {revision!r}: name a branch, a tag or a commit of it"
        ) from None
    except LocalEntryNotFoundError:
        raise ModelNotFoundError(
            f"no folder {repository}, and the Hub repository of that name is neither cached nor reachable: go online"
        ) from None
    except HfHubHTTPError as error:
        raise ModelNotFoundError(f"the Hub refused {repository}: {error}".splitlines()[0]) from None
    except RuntimeError:
        # So says Python where neither HOME nor the list of users has a home folder.
        raise ModelNotFoundError(
            f"{repository} is no folder, and there is no home folder for the cache of the Hub: set HF_HOME"
        ) from None
    except (OSError, HTTPError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelNotFoundError(
            f"{repository} could not be downloaded ({reason}): run the command again to continue"
        ) from None


def cached_folders() -> list[tuple[str, Path]]:
    """Return the repositories in the Hub's cache with the folder of their newest snapshot; none without a cache."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (CacheNotFound, OSError, RuntimeError, ValueError):
        return []
    found: list[tuple[str, Path]] = []
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        revisions = sorted(repository.revisions, key=lambda each: each.last_modified)
        if repository.repo_type == "model" and revisions:
            found.append((repository.repo_id, revisions[-1].snapshot_path))
    return found
