"""Files read and written so that a user is told what is wrong, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from mlx_diffgemma.errors import ConfigError, ModelNotFoundError


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object. Raises ModelNotFoundError where the file is absent, ConfigError where it is broken."""
    try:
        parsed = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path.parent} has no {path.name}: is it the folder of a model?") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(parsed, dict):
        raise ConfigError(f"{path} must hold a JSON object, not a {type(parsed).__name__}")
    return cast("dict[str, Any]", parsed)
