"""The event that started the workflow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json


def read_event() -> dict[str, Any]:
    """Read the webhook's payload; what a contributor chose in it (titles, branch names) is untrusted text.

    Raises:
        ConfigError: No workflow runs here, or the file is missing or broken.
    """
    path = os.environ.get("GITHUB_EVENT_PATH")
    if not path:
        raise ConfigError("GITHUB_EVENT_PATH is not set; this runs in a workflow, or set it to a payload's path")
    event = read_json(Path(path))
    if not isinstance(event, dict):
        raise ConfigError(f"{path}: an event is a JSON object, found {type(event).__name__}")
    return event
