"""What only a person may let through, and who has: the caps of a verdict and the approval that lifted them."""

from __future__ import annotations

import re

from pipelines.core.markdown import inline
from pipelines.evaluation.reporting.view import View

_REVIEW = re.compile(
    r"https://[a-z0-9.-]+(:[0-9]+)?/[A-Za-z0-9._-]+/[A-Za-z0-9._-]+/pull/[0-9]+#pullrequestreview-[0-9]+"
)


def heading(view: View) -> str:
    """Say in one line whether somebody still has to look; empty where nobody has to."""
    if view.approval:
        who, when, why = (view.approval.get(key, "") for key in ("user", "at", "why"))
        where = f" in the environment {place}" if (place := view.approval.get("environment")) else ""
        return f"Approved by {who}{where}{f' at {when}' if when else ''}{f': {why}' if why else ''}"
    if not view.caps:
        return ""
    return f"A CODEOWNER has to look at {'this' if len(view.caps) == 1 else f'these {len(view.caps)} things'} first"


def write(view: View, most: int) -> str:
    """Write the section as Markdown, empty where nobody has to look."""
    title = heading(view)
    if not title:
        return ""
    link = view.approval.get("review_url", "")
    # Only an address of GitHub's own shape is made a link.
    shown = f" ([review]({link}))" if view.approval and is_plain_link(link) else ""
    icon = "✅" if view.approval else "✋"
    lines = [f"- {inline(cap, 400)}" for cap in view.caps[:most]]
    more = [f"- and {len(view.caps) - most} more, in report.html"] if len(view.caps) > most else []
    return "\n".join([f"### {icon} {inline(title, 600)}{shown}", *([""] if lines else []), *lines, *more])


def is_plain_link(link: str) -> bool:
    """Tell whether an address is that of a review, on whatever host, and can stand in a link as it is."""
    return len(link) < 300 and bool(_REVIEW.fullmatch(link))
