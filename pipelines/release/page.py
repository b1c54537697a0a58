"""A release's page on GitHub: a draft on its way, published when it serves, marked when it was taken back."""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

from pipelines.core.errors import ServiceError, one_line
from pipelines.core.github.api import Api
from pipelines.core.github.limits import fit
from pipelines.core.github.replies import NotFound, Refused
from pipelines.core.github.uploads import upload
from pipelines.release.standing import Outcome

BODY_CHARACTERS = 120_000  # GitHub takes 125,000
BEGIN, END = "<!-- gatehouse:release -->", "<!-- gatehouse:end -->"
TAKEN_BACK = " (rolled back)"
_OURS = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
_CUT = "_The rest is cut off here; the history beside this page holds it._"


class Page(NamedTuple):
    """What a page is to show.

    Attributes:
        tag: The tag, which is there and stays.
        outcome: How the release stands.
        body: Markdown; it replaces what was written here before, and nothing that a person wrote around it.
        files: Content by file name.
        latest: Tag of the version that serves users; empty where none does.
    """

    tag: str
    outcome: Outcome
    body: str
    files: dict[str, bytes]
    latest: str = ""


class Published(NamedTuple):
    """The page.

    Attributes:
        url: Its address; a draft's is seen by those who may write here.
        is_draft: Whether others cannot see it yet.
        notes: What GitHub did not take, one line each.
    """

    url: str
    is_draft: bool
    notes: tuple[str, ...]


def publish(api: Api, page: Page) -> Published:
    """Make the page what it is to show; done twice, the second time changes nothing.

    Files go up before the page is published: a repository may declare published releases immutable.

    Raises:
        ServiceError: GitHub refuses or does not answer.
    """
    found = _page_of(api, page.tag)
    if found is None:
        draft = {"tag_name": page.tag, "name": page.tag, "body": _body("", page.body), "draft": True}
        found = api.post("/repos/{repository}/releases", draft)
    notes = [note for name, data in page.files.items() if (note := _attach(api, found, name, data))]
    wanted = _wanted(found, page)
    if any(found.get(key) != value for key, value in wanted.items()):
        found = api.patch(f"/repos/{{repository}}/releases/{int(found['id'])}", wanted | {"make_latest": "false"})
    _point_latest(api, page)
    return Published(str(found.get("html_url") or ""), bool(found.get("draft")), tuple(notes))


def _page_of(api: Api, tag: str) -> dict[str, Any] | None:
    """Return the page of a tag; drafts are found in the list alone, and a race may have left two."""
    same = [one for one in api.pages("/repos/{repository}/releases") if one.get("tag_name") == tag]
    return min(same, key=lambda one: (bool(one.get("draft")), int(one["id"])), default=None)


def _wanted(found: dict[str, Any], page: Page) -> dict[str, Any]:
    name = str(found.get("name") or page.tag).removesuffix(TAKEN_BACK)
    was_seen = not found.get("draft", True)
    return {
        "name": f"{name}{TAKEN_BACK}" if page.outcome == "rolled_back" else name,
        "body": _body(str(found.get("body") or ""), page.body),
        "draft": page.outcome == "on_its_way" and not was_seen,
        "prerelease": page.outcome == "rolled_back" or (page.outcome == "on_its_way" and was_seen),
    }


def _body(before: str, ours: str) -> str:
    """Return a page's text with our part replaced, or added below what a person wrote."""
    before = before.replace("\r\n", "\n")
    around = _OURS.split(before, maxsplit=1)
    above = around[0].rstrip()
    below = around[1].strip() if len(around) == 2 else ""
    room = BODY_CHARACTERS - len(above) - len(below) - 100
    part = f"{BEGIN}\n{fit(ours, max(room, 1000), _CUT).strip()}\n{END}"
    return "\n\n".join(filter(None, (above, part, below)))


def _attach(api: Api, release: dict[str, Any], name: str, data: bytes) -> str:
    """Put a file on a page unless it is there as it is; return what GitHub did not take, or nothing."""
    path = "/repos/{repository}/releases"
    try:
        for asset in api.pages(f"{path}/{int(release['id'])}/assets"):
            if asset.get("name") != name:
                continue
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            if asset.get("state") == "uploaded" and asset.get("digest") == digest:
                return ""
            api.delete(f"{path}/assets/{int(asset['id'])}")  # another content, or an upload that was cut off
        upload(api, str(release.get("upload_url") or ""), name, data)
    except Refused as error:
        if error.status != 422:
            raise
        return one_line(f"{name}: {error}", 300)
    return ""


def _point_latest(api: Api, page: Page) -> None:
    """Let GitHub call that version the latest which serves users."""
    if not page.latest:
        return
    try:
        if api.get("/repos/{repository}/releases/latest").get("tag_name") == page.latest:
            return
    except NotFound:  # no published release yet
        pass
    found = _page_of(api, page.latest)
    if found is not None and not found.get("draft") and not found.get("prerelease"):
        api.patch(f"/repos/{{repository}}/releases/{int(found['id'])}", {"make_latest": "true"})
    elif page.latest == page.tag:
        raise ServiceError(f"{page.tag}: its page was not published; run again")
