"""The one comment on a pull request: from "in progress" to the verdict, whoever publishes and however often."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json, read_text
from pipelines.core.github.api import Api
from pipelines.core.github.limits import BODY_CHARACTERS, fit
from pipelines.core.github.replies import NotFound, Refused, Unreachable
from pipelines.core.markdown import inline
from pipelines.evaluation.reporting.markdown import MARKER
from pipelines.review import cml

HEADINGS = {
    "pending": "⏳ Gatehouse: in progress",
    "pass": "✅ Gatehouse: pass",
    "fail": "❌ Gatehouse: fail",
    "manual_review": "✋ Gatehouse: a person must decide",
    "error": "💥 Gatehouse: error, nothing was decided",
}
ATTEMPTS = 4
_LIMIT = BODY_CHARACTERS - 256  # room for CML's watermark
_CUT = "**This comment is cut off here: GitHub takes 65,536 characters. The run's `report.md` holds all of it.**"


def compose(state: str, text: str, *, head: str, run_url: str | None = None) -> str:
    """Write the comment's Markdown.

    Args:
        state: `pending` or a verdict; its heading is recognised at a glance.
        text: Safe Markdown, such as a whole `report.md`.
        head: The commit that this is about; GitHub links it.
        run_url: The run that says so.

    Raises:
        ConfigError: An unknown state: nothing may look like a verdict by mistake.
    """
    if state not in HEADINGS:
        raise ConfigError(f"verdict {state[:60]!r}: is none of {', '.join(HEADINGS)}")
    run = f" · [this run]({run_url})" if run_url else ""
    rest = text.removeprefix(MARKER).strip("\n")
    return f"{MARKER}\n\n## {HEADINGS[state]}\n\n<sub>Commit {head}{run}</sub>\n\n{rest}\n"


def sentence(state: str, message: str) -> str:
    """Return the text of a comment without a report; `message` is any text."""
    if message.strip():
        return inline(message, 600)
    if state == "pending":
        return "The candidate is being evaluated; this comment becomes the verdict."
    return "The evaluation did not come to an end; the run's log says why. Push again or run it again."


def written(root: Path, state: str | None, message: str, *, head: str, run_url: str | None) -> str:
    """Return the comment's Markdown: the report below `root`, or what `state` says where there is none.

    Args:
        root: Holds `evaluation/report.md` and `evaluation/decision.json`.
        state: `pending`, `failed`, or None for the report.
        message: Any text that goes with `state`.
        head: The commit that this is about.
        run_url: The run that says so.

    Raises:
        ConfigError: The report or the decision is missing or broken.
    """
    if state is not None:
        shown = "error" if state == "failed" else state
        return compose(shown, sentence(shown, message), head=head, run_url=run_url)
    decision = read_json(root / "evaluation/decision.json")
    verdict = str(decision.get("verdict")) if isinstance(decision, dict) else ""
    if verdict == "pending":
        verdict = ""  # no decision says so
    return compose(verdict, read_text(root / "evaluation/report.md"), head=head, run_url=run_url)


def publish(api: Api, number: int, body: str, *, bot: str | None = None, head: str | None = None) -> str | None:
    """Make `body` the pull request's one comment of ours; the oldest is kept, another's is never touched.

    Publishers at the same time end with one comment. CML does the writing where it is installed and would write to
    that very comment; what it does is checked.

    Args:
        api: The repository, on behalf of whoever comments.
        number: The pull request.
        body: Begins with the marker; cut where GitHub would refuse it.
        bot: Login of whoever comments (`slug[bot]` for an App); by default GitHub is asked.
        head: The commit that `body` is about: nothing is written once the pull request has moved on from it.

    Returns:
        The comment's address; None where the pull request has moved on.

    Raises:
        NotFound: No such pull request.
        Refused: The token is not permitted to comment.
        Unreachable: GitHub gave no usable answer for minutes.
    """
    body = fit(_storable(body), _LIMIT, _CUT)
    login = (bot or api.login()).lower()
    if head and (command := cml.installed_for(api)):
        comments = _comments(api, number)
        is_one = cml.would_write_to(comments, next(iter(_ours(comments, login)), None))
        if is_one and _is_head(api, number, head):
            cml.update(command, api, number, body, head)
    made: dict[str, Any] | None = None
    for attempt in range(ATTEMPTS):
        ours = _ours(_comments(api, number), login)
        if made and made["id"] not in (one["id"] for one in ours):
            ours = sorted([*ours, made], key=_identity)  # lists may lag behind
        try:
            is_said = bool(ours) and (made is not None or _plain(ours[0]["body"]) == _plain(body))
            if head and not is_said and not _is_head(api, number, head):
                return None
            if ours:
                return _keep_one(api, ours, body, made)
            made = api.post(f"/repos/{{repository}}/issues/{number}/comments", {"body": body})
            login = made["user"]["login"].lower()  # now GitHub has said who we are
        except (Unreachable, NotFound):
            # Whether it arrived shows the next look; a comment that vanishes meanwhile is made anew.
            if attempt == ATTEMPTS - 1:
                raise
            made = None
            api.sleep(2.0**attempt)
    assert made is not None
    return str(made["html_url"])


def _is_head(api: Api, number: int, head: str) -> bool:
    return bool(api.get(f"/repos/{{repository}}/pulls/{number}")["head"]["sha"] == head)


def _comments(api: Api, number: int) -> list[dict[str, Any]]:
    return list(api.pages(f"/repos/{{repository}}/issues/{number}/comments"))


def _ours(comments: list[dict[str, Any]], login: str) -> list[dict[str, Any]]:
    """Return the comments that we wrote and that begin with the marker, oldest first."""
    found = [
        one for one in comments
        if str((one.get("user") or {}).get("login")).lower() == login
        and str(one.get("body")).lstrip().startswith(MARKER)
    ]  # fmt: skip
    return sorted(found, key=_identity)


def _identity(comment: dict[str, Any]) -> int:
    return int(comment["id"])


def _keep_one(api: Api, ours: list[dict[str, Any]], body: str, made: dict[str, Any] | None) -> str:
    oldest, *others = ours
    # Whoever changed the comment that we have just made did so after us and knows better.
    is_ours_alone = made is not None and made["id"] == oldest["id"]
    if not is_ours_alone and _plain(oldest["body"]) != _plain(body):
        oldest = api.patch(f"/repos/{{repository}}/issues/comments/{oldest['id']}", {"body": body})
    for other in others:
        with contextlib.suppress(NotFound, Refused):  # another publisher may have removed it
            api.delete(f"/repos/{{repository}}/issues/comments/{other['id']}")
    return str(oldest["html_url"])


def _storable(body: str) -> str:
    """Return the body without what GitHub refuses or changes: half characters, NUL, foreign line ends."""
    text = body.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    return re.sub(r"\r\n?", "\n", text)


def _plain(body: str) -> str:
    return cml.WATERMARK.sub("", body.replace("\r\n", "\n")).strip()
