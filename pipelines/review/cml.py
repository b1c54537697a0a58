"""CML as the writer of our comment, held to that one comment.

Read in CML 0.20.6: `cml comment update` looks at the first 30 comments only, takes the last of them that holds its
watermark, whoever wrote it, and has no limit of size. Started as it is, it also uploads local files that the Markdown
names, sends telemetry, sets `safe.directory = *` in the user's Git configuration, and derives the API from the
repository's URL, whatever GITHUB_API_URL says.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.core.errors import one_line
from pipelines.core.github.api import Api

TITLE = "gatehouse"  # another workflow of the team may keep its own comment through CML
WATERMARK = re.compile(rf'!\[\]\(https://cml\.dev/watermark\.png#[0-9a-fA-F]+ "CML watermark {TITLE}"\)')
LOOKS_AT = 30
TIMEOUT_S = 120
_KEPT = ("PATH", "LANG", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy",
         "NODE_EXTRA_CA_CERTS", "GITHUB_API_URL")  # fmt: skip
_log = logging.getLogger(__name__)


def installed_for(api: Api) -> str | None:
    """Return CML's path if it is installed and would send the token to the same API as we do, else None."""
    command = shutil.which("cml")
    server, base = urlsplit(_server()), urlsplit(api.base_url)
    expected = "api.github.com" if server.hostname == "github.com" else f"{server.netloc}/api/v3"
    return command if f"{base.netloc}{base.path}" == expected else None


def would_write_to(comments: list[dict[str, Any]], ours: dict[str, Any] | None) -> bool:
    """Return whether CML would write to our comment, or make one where we have none.

    Args:
        comments: All comments, oldest first.
        ours: The one to keep.
    """
    marked = [one for one in comments[:LOOKS_AT] if WATERMARK.search(str(one.get("body")))]
    if not marked:
        return ours is None
    return ours is not None and marked[-1]["id"] == ours["id"]


def update(command: str, api: Api, number: int, body: str, head: str) -> None:
    """Have CML write the comment; a failure is only told, since the caller looks at what came of it."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-cml-") as home:
        (Path(home) / "report.md").write_text(body, encoding="utf-8")
        arguments = [
            command, "comment", "update", "--driver=github", f"--target=pr/{number}", "--publish=false",
            f"--watermark-title={TITLE}", f"--repo={_server()}/{api.repository}", "report.md",
        ]  # fmt: skip
        # By environment, since every user of a runner may list the arguments of a process.
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
            "HOME": home, "REPO_TOKEN": api.token, "GITHUB_SHA": head, "ITERATIVE_DO_NOT_TRACK": "1",
        }  # fmt: skip
        try:
            done = subprocess.run(
                arguments, cwd=home, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            _log.warning("cml did not finish (%s); going on without it", type(error).__name__)
            return
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().replace(api.token, "***")
        _log.warning("cml failed (%s); going on without it", one_line(said[:300]))


def _server() -> str:
    return os.environ.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
