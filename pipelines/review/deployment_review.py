"""Who has let `approve.yml` run in the environment that requires reviewers: GitHub's word, for exactly one commit.

A run of that file on a pull request's branch is the pull request's own code, and so may do anything. Which commit it is
of, which environment it waited for, and who let it go on stands in GitHub's answers, which no run can write.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines.core.github.api import Api
from pipelines.core.github.replies import NotFound, Refused
from pipelines.core.records import Approval
from pipelines.review.pull_request import APPROVE, PullRequest, Run, read_run

ENVIRONMENT = "manual-review"  # .github/environments.yml declares its reviewers
WHY_CHARACTERS = 1000


class Reviewed(NamedTuple):
    """What the environment's reviewers have said.

    Attributes:
        approval: Who, when and why, or None.
        against: Who said no, or empty.
    """

    approval: Approval | None = None
    against: str = ""


def ask(api: Api, pull_request: PullRequest, run: Run) -> Reviewed:
    """Ask GitHub whether a required reviewer approves the head commit.

    Only the newest run on that commit that anybody decided about counts; in it one rejection outweighs every approval.

    Args:
        api: The repository; its token needs Actions: read.
        pull_request: Its author's approval counts for nothing.
        run: A run of its branch, which says what the branch is called and where it lies.

    Raises:
        Unreachable: GitHub gave no usable answer.
    """
    for one in sorted(_runs(api, pull_request, run), key=lambda each: -each.id):
        said = [each for each in _history(api, one) if _is_meant(each, pull_request)]
        if against := [each for each in said if each["state"] == "rejected"]:
            return Reviewed(against=str(against[0]["user"]["login"]))
        yes = [each for each in said if each["state"] == "approved" and api.may_write(str(each["user"]["login"]))]
        if yes:
            users = dict.fromkeys(str(each["user"]["login"]) for each in yes)
            why = " ".join(" ".join(str(each.get("comment") or "").split()) for each in yes).strip()
            return Reviewed(
                Approval(
                    user=", ".join(users),
                    at=_time(api, one),
                    why=why[:WHY_CHARACTERS],
                    review_url=one.url,
                    environment=ENVIRONMENT,
                )
            )
    return Reviewed()


def _runs(api: Api, pull_request: PullRequest, run: Run) -> list[Run]:
    path = f"/repos/{{repository}}/actions/workflows/{APPROVE.rpartition('/')[2]}/runs"
    try:
        found = [read_run(one) for one in api.pages(path, event="workflow_dispatch", head_sha=pull_request.head)]
    except NotFound:  # main has no such workflow
        return []
    mine = (pull_request.head, run.branch, run.repository)
    return [one for one in found if one.is_approval and one[5:8] == mine]


def _history(api: Api, run: Run) -> list[Any]:
    try:
        found = api.get(f"/repos/{{repository}}/actions/runs/{run.id}/approvals")
    except NotFound:
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _is_meant(said: dict[str, Any], pull_request: PullRequest) -> bool:
    names = {str(one.get("name")).casefold() for one in said.get("environments") or [] if isinstance(one, dict)}
    user = said.get("user") or {}
    is_person = bool(user.get("login")) and user.get("type") != "Bot"
    is_other = str(user.get("login")).casefold() != pull_request.author.casefold()
    return ENVIRONMENT in names and is_person and is_other and said.get("state") in ("approved", "rejected")


def _time(api: Api, run: Run) -> str:
    """Return when the job that had waited began: GitHub does not say when it was let go on, which was just before."""
    try:
        jobs = api.pages(f"/repos/{{repository}}/actions/runs/{run.id}/jobs")
        return max((str(job.get("started_at") or "") for job in jobs), default="")
    except (NotFound, Refused):
        return ""
