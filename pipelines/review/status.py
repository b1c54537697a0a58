"""The required status of a commit: green for a pass alone."""

from __future__ import annotations

import re

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.github.api import Api
from pipelines.core.github.limits import DESCRIPTION_CHARACTERS

CONTEXT = "gatehouse/verdict"
STATES = {"pending": "pending", "pass": "success", "fail": "failure", "manual_review": "pending", "error": "error"}
DEFAULTS = {
    "pending": "is being evaluated",
    "pass": "every gate passes",
    "fail": "a gate says no",
    "manual_review": "waits for a CODEOWNER's approving review",
    "error": "nothing was decided; see the run",
}


def set_status(
    api: Api, head_sha: str, verdict: str, description: str | None = None, target_url: str | None = None
) -> str:
    """Set the status of one commit.

    Args:
        api: The repository; the ruleset counts only what the release bot's App sets.
        head_sha: The commit that was judged, 40 hexadecimal digits.
        verdict: `pending`, `pass`, `fail`, `manual_review` (stays pending) or `error`.
        description: Any text, cut to 140 characters; by default what the verdict means.
        target_url: Where the status leads.

    Returns:
        GitHub's state: `pending`, `success`, `failure` or `error`.

    Raises:
        ConfigError: An unknown verdict or no full commit.
        Refused: The token may not set statuses.
        Unreachable: GitHub gave no usable answer for minutes.
    """
    if verdict not in STATES:
        raise ConfigError(f"verdict {verdict[:60]!r}: is none of {', '.join(STATES)}")
    if not re.fullmatch(r"[0-9a-f]{40}", head_sha):
        raise ConfigError(f"commit {head_sha[:60]!r}: is not 40 hexadecimal digits; a status belongs to one commit")
    text = one_line(description or DEFAULTS[verdict], 10 * DESCRIPTION_CHARACTERS)
    if len(text) > DESCRIPTION_CHARACTERS:
        text = f"{text[: DESCRIPTION_CHARACTERS - 1]}…"
    body = {"state": STATES[verdict], "context": CONTEXT, "description": text, "target_url": target_url}
    api.post(f"/repos/{{repository}}/statuses/{head_sha}", body, repeatable=True)
    return STATES[verdict]
