"""A model's name -> a folder on this disk: a path as it is, a Hub repository id through the Hub's cache, "demo"."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_diffgemma.errors import ModelNotFoundError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
"""What a model folder needs: weights, configuration, tokenizer, template."""
DEMO = "demo"
"""The name of the model in the package; a folder of that name is ./demo."""


def model_folder(model: str | Path, revision: str | None = None) -> Path:
    """The folder of `model`, downloading a Hub repository first where it is not cached; DEMO is in the package.

    Raises ModelNotFoundError for a path that is not there, an unknown or gated repository, an unknown revision, and
    for a repository that is not cached while offline.
    """
    if model == DEMO and revision is None:
        return Path(__file__).parent.with_name(DEMO)
    try:
        path = Path(model).expanduser()
        found = path.is_dir()
        other = path.exists()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelNotFoundError(f"no such folder: {str(model)[:80]!r} ({reason})") from None
    if found:
        if revision is not None:
            raise ModelNotFoundError(f"{path} is a folder: a revision goes with a Hub repository only")
        return path
    name = str(model)
    if other:
        raise ModelNotFoundError(f"{path} is a file: name the folder of a model")
    if not REPOSITORY.fullmatch(name) or name.startswith((".", "/")):
        raise ModelNotFoundError(f"no such folder: {path}")
    return _download(name, revision)


def _download(repository: str, revision: str | None) -> Path:
    # Imported here: a local folder needs none of it, and it costs a tenth of a second.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of the HTTP client, whichever it is
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=FILES))
    except GatedRepoError:
        raise ModelNotFoundError(
            f"{repository} is gated: accept its terms on huggingface.co and log in with `hf auth login`"
        ) from None
    except HFValidationError:
        raise ModelNotFoundError(f"no folder {repository}, and no name that a Hub repository can have") from None
    except RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"no folder and no Hub repository {repository}: check the name; a private one needs `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise ModelNotFoundError(f"{repository} has no revision {revision!r}") from None
    except LocalEntryNotFoundError:
        raise ModelNotFoundError(
            f"no folder {repository}, and the Hub repository of that name is neither cached nor reachable: go online"
        ) from None
    except HfHubHTTPError as error:
        raise ModelNotFoundError(f"the Hub refused {repository}: {error}".splitlines()[0]) from None
    except (OSError, HTTPError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelNotFoundError(f"{repository} could not be downloaded: {reason}: run it again to go on") from None
