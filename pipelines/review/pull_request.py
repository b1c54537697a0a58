"""Which pull request a finished workflow run belongs to: asked of GitHub, never of what the run left behind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Literal, NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.core.github.api import Api

WORKFLOW = ".github/workflows/pull-request.yml"
APPROVE = ".github/workflows/approve.yml"
NEWEST = 100  # runs of a branch, as GitHub lists them: the newest first
SHA = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


class Run(NamedTuple):
    """One workflow run, as GitHub describes it.

    Attributes:
        id: Its number.
        path: The workflow's file.
        event: What started it.
        status: `requested`, `in_progress`, `completed`, ...
        conclusion: `success`, `failure`, `cancelled`, ... or empty while it runs.
        head: Commit at the head of the pull request, hex.
        branch: Name of its branch: any text.
        repository: `owner/name` that the branch lies in.
        url: Its page.
    """

    id: int
    path: str
    event: str
    status: str
    conclusion: str
    head: str
    branch: str
    repository: str
    url: str

    @property
    def is_evaluation(self) -> bool:
        """Tell whether this is the workflow that evaluates: a name can be given to any file, the path cannot."""
        return self.path.split("@")[0] == WORKFLOW and self.event == "pull_request"

    @property
    def is_approval(self) -> bool:
        """Tell whether this is the empty workflow that waits for a required reviewer of an environment."""
        return self.path.split("@")[0] == APPROVE and self.event == "workflow_dispatch"

    @property
    def is_word(self) -> bool:
        """Tell whether it only says that a person has said something, which is then asked of GitHub."""
        return self.event == "pull_request_review" or self.is_approval


class PullRequest(NamedTuple):
    """An open or closed pull request; title and branch are any text.

    Attributes:
        number: Of the pull request.
        head: Its newest commit, hex.
        base: Branch it would merge into.
        author: Login.
        is_fork: Whether it comes from another repository.
        is_draft: Whether its author calls it unfinished.
        title: Of the pull request.
        state: `open` or `closed`.
    """

    number: int
    head: str
    base: str
    author: str
    is_fork: bool
    is_draft: bool
    title: str
    state: Literal["open", "closed"]


def read_run(value: Any) -> Run:
    """Read a run from an event or from an answer of the API.

    Raises:
        ConfigError: It lacks what every run has.
    """
    try:
        run = Run(
            id=int(value["id"]),
            path=str(value.get("path") or ""),
            event=str(value["event"]),
            status=str(value.get("status") or ""),
            conclusion=str(value.get("conclusion") or ""),
            head=str(value["head_sha"]),
            branch=str(value.get("head_branch") or ""),
            repository=str((value.get("head_repository") or {}).get("full_name") or ""),
            url=str(value.get("html_url") or ""),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"workflow_run: is not one ({type(error).__name__}: {error}); start this on it") from None
    if not SHA.fullmatch(run.head):
        raise ConfigError("workflow_run.head_sha: is no commit")
    return run


def read_pull_request(value: Any) -> PullRequest:
    """Read a pull request from an answer of the API.

    Raises:
        ConfigError: It lacks what every pull request has.
    """
    try:
        head, base = value["head"], value["base"]
        repository = (head.get("repo") or {}).get("full_name")  # a fork can be deleted
        found = PullRequest(
            number=int(value["number"]),
            head=str(head["sha"]),
            base=str(base["ref"]),
            author=str((value.get("user") or {}).get("login") or "ghost"),
            is_fork=repository != base["repo"]["full_name"],
            is_draft=bool(value.get("draft")),
            title=str(value.get("title") or ""),
            state="open" if value["state"] == "open" else "closed",
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"pull request: GitHub's answer is not one ({type(error).__name__}: {error})") from None
    if not SHA.fullmatch(found.head):
        raise ConfigError("pull request: its head is no commit")
    return found


def find(api: Api, run: Run, *, base: str) -> PullRequest | None:
    """Return the pull request that a run was started for.

    Args:
        api: The repository.
        run: Its branch and repository say which pull request it is; there can be one per base.
        base: The branch that is judged for.

    Returns:
        The open one, else the newest closed one, else None. Its head may have moved on from the run's.
    """
    found = [one for one in of_branch(api, run, base=base) if one.base == base]
    found.sort(key=lambda one: (one.state != "open", -one.number))
    return found[0] if found else None


def of_branch(api: Api, run: Run, **query: str) -> Iterator[PullRequest]:
    """Yield the pull requests, open and closed, of a run's branch.

    Args:
        api: The repository.
        run: Its branch and repository are asked for.
        query: What else GitHub is to filter by.
    """
    owner = run.repository.split("/")[0]
    if owner and run.branch:
        values = api.pages("/repos/{repository}/pulls", state="all", head=f"{owner}:{run.branch}", **query)
        yield from (read_pull_request(value) for value in values if _comes_from(value, run))


def _comes_from(value: Mapping[str, Any], run: Run) -> bool:
    head = value.get("head") or {}
    # One owner can have two forks with a branch of one name.
    return (head.get("repo") or {}).get("full_name") == run.repository and head.get("ref") == run.branch


def at(api: Api, number: int) -> PullRequest:
    """Return a pull request as it is now."""
    return read_pull_request(api.get(f"/repos/{{repository}}/pulls/{number}"))


def last_evaluation(api: Api, pull_request: PullRequest, run: Run) -> Run | None:
    """Return the newest finished evaluation of a pull request's head, or None where there is none.

    Args:
        api: The repository.
        pull_request: Whose head it is.
        run: A run of the same branch that woke us.
    """
    name = WORKFLOW.rpartition("/")[2]
    path = f"/repos/{{repository}}/actions/workflows/{name}/runs"
    query: dict[str, str | int] = {"event": "pull_request", "head_sha": pull_request.head, "status": "completed"}
    found = [read_run(value) for value in api.pages(path, **query)]
    mine = [
        one
        for one in found
        if one.is_evaluation
        and one[5:8] == (pull_request.head, run.branch, run.repository)
        and one.status == "completed"
    ]
    return max(mine, key=lambda one: one.id, default=None)


def as_it_is(api: Api, run: Run) -> Run:
    """Return a run as it is now, which an event that comes late does not say.

    Raises:
        NotFound: It was deleted.
        ConfigError: GitHub describes another run than the event did.
    """
    now = read_run(api.get(f"/repos/{{repository}}/actions/runs/{run.id}"))
    if not now.is_evaluation or (now.id, *now[5:8]) != (run.id, *run[5:8]):
        raise ConfigError(f"workflow_run: {run.id} is another run for GitHub than for the event; start this again")
    return now


def newer_evaluations(api: Api, run: Run) -> list[Run]:
    """Return the evaluations of a run's branch, of whichever commit, that were started after it."""
    path = f"/repos/{{repository}}/actions/workflows/{WORKFLOW.rpartition('/')[2]}/runs"
    newest = islice(api.pages(path, event="pull_request", branch=run.branch), NEWEST)
    found = [read_run(value) for value in newest]
    return [one for one in found if one.is_evaluation and one.id > run.id and one[6:8] == run[6:8]]


def default_branch(api: Api) -> str:
    """Return the name of the branch that is judged for."""
    return str(api.get("/repos/{repository}").get("default_branch") or "main")
