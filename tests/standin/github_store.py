"""What the stand-in of GitHub knows, as plain JSON values that a test may read and change."""

from __future__ import annotations

import copy
import datetime
from typing import Any

BOT = "github-actions[bot]"


class Store:
    """Pull requests, comments, reviews, files, statuses, people and settings of one repository."""

    token = "good-token"

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self.owner = repository.split("/")[0]
        # token -> whose it is and what it may do ({"issues": "write"}; None: everything)
        self.tokens: dict[str, dict[str, Any]] = {self.token: {"login": BOT, "permissions": None}}
        self.pulls: dict[int, dict[str, Any]] = {}
        self.comments: list[dict[str, Any]] = []
        self.reviews: dict[int, list[dict[str, Any]]] = {}
        self.files: dict[int, list[dict[str, Any]]] = {}
        self.events: dict[int, list[dict[str, Any]]] = {}  # of an issue or pull request, oldest first
        self.statuses: dict[str, list[dict[str, Any]]] = {}  # by commit, oldest first
        self.check_runs: dict[str, list[dict[str, Any]]] = {}
        self.collaborators: dict[str, str] = {}  # login -> admin, maintain, write, triage, read
        self.teams: dict[str, list[str]] = {}  # "organisation/slug" -> members
        self.runs: list[dict[str, Any]] = []  # newest first, as Actions lists them
        self.activities: list[dict[str, Any]] = []  # of references, newest first
        self.jobs: dict[int, list[dict[str, Any]]] = {}  # of a run's last attempt
        self.artifacts: dict[int, list[dict[str, Any]]] = {}
        self.approvals: dict[int, list[dict[str, Any]]] = {}  # of a run that waited for an environment
        self.releases: list[dict[str, Any]] = []  # newest first
        self.latest = 0  # which of them, by id
        self.immutable: list[int] = []  # which of them take no file once they are published
        self.workflows: dict[str, list[str]] = {}  # that may be started by hand, with the names of their inputs
        self.dispatched: list[dict[str, Any]] = []  # what was started so
        self.settings: dict[str, Any] = {  # by path under the repository: a list is a collection
            "": {"full_name": repository, "default_branch": "main", "private": False, "visibility": "public",
                 "owner": {"login": self.owner, "type": "Organization"}},
            "rulesets": [], "labels": [], "environments": [], "actions/variables": [],
        }  # fmt: skip
        self.answers: dict[str, list[Any]] = {}  # "GET /any/path" -> [status, body], ahead of everything else
        self.last_id = 1000

    def dump(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return {name: value for name, value in vars(self).items() if name in _KEPT}

    def load(self, saved: dict[str, Any]) -> None:
        """Take over what `dump` returned, or a part of it."""
        for name, value in saved.items():
            if name in ("pulls", "reviews", "files", "events", "jobs", "artifacts", "approvals"):
                value = {int(key): one for key, one in value.items()}
            if name in _KEPT:
                setattr(self, name, value)

    def login_of(self, token: str | None) -> str | None:
        """Return whose token it is, None for a wrong one."""
        return self.tokens[token]["login"] if token in self.tokens else None

    def next_id(self) -> int:
        """Return a number that nothing has yet."""
        self.last_id += 1
        return self.last_id

    def pull(
        self,
        number: int,
        *,
        head: str,
        branch: str = "change",
        base: str = "b" * 40,
        base_branch: str = "main",
        author: str = "dev",
        fork: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Open a pull request, or replace it; `fork` is the `owner/name` it comes from, `more` is taken as it is."""
        where = fork or self.repository
        self.pulls[number] = {
            "id": self.next_id(), "number": number, "state": "open", "draft": False, "merged": False,
            "title": "A change", "body": "", "locked": False, "user": user(author),
            "html_url": f"https://github.example/{self.repository}/pull/{number}",
            "author_association": "CONTRIBUTOR",
            "head": {"ref": branch, "sha": head, "label": f"{where.split('/')[0]}:{branch}",
                     "repo": {"full_name": where, "fork": fork is not None, "owner": {"login": where.split("/")[0]}}},
            "base": {"ref": base_branch, "sha": base, "label": f"{self.owner}:{base_branch}",
                     "repo": {"full_name": self.repository, "fork": False, "owner": {"login": self.owner}}},
        } | more  # fmt: skip
        return self.pulls[number]

    def push(self, number: int, head: str) -> None:
        """Move a pull request's head."""
        self.pulls[number]["head"]["sha"] = head

    def retarget(self, number: int, base_branch: str, event: str = "base_ref_changed") -> None:
        """Move a pull request to another base, which GitHub remembers as an event."""
        self.pulls[number]["base"] |= {"ref": base_branch, "label": f"{self.owner}:{base_branch}"}
        identity = self.next_id()
        made = {"id": identity, "event": event, "actor": user("dev"), "commit_id": None, "created_at": now(),
                "url": f"/repos/{self.repository}/issues/events/{identity}"}  # fmt: skip
        self.events.setdefault(number, []).append(made)

    def comment(self, number: int, body: str, login: str) -> dict[str, Any]:
        """Put a comment on an issue or pull request."""
        identity = self.next_id()
        made = {
            "id": identity, "body": body, "user": user(login), "created_at": now(), "updated_at": now(),
            "html_url": f"https://github.example/{self.repository}/pull/{number}#issuecomment-{identity}",
            "issue_url": f"/repos/{self.repository}/issues/{number}",
        }  # fmt: skip
        self.comments.append(made)
        return made

    def comments_of(self, number: int) -> list[dict[str, Any]]:
        """Return a pull request's comments, oldest first."""
        return [one for one in self.comments if one["issue_url"].endswith(f"/issues/{number}")]

    def review(self, number: int, login: str, state: str, commit: str) -> dict[str, Any]:
        """Add a review: APPROVED, CHANGES_REQUESTED, COMMENTED or DISMISSED, of one commit."""
        identity = self.next_id()
        made = {
            "id": identity, "user": user(login), "state": state, "commit_id": commit, "body": "", "submitted_at": now(),
            "html_url": f"https://github.example/{self.repository}/pull/{number}#pullrequestreview-{identity}",
        }  # fmt: skip
        self.reviews.setdefault(number, []).append(made)
        return made

    def job(self, run: int, name: str, conclusion: str, *steps: tuple[str, str]) -> dict[str, Any]:
        """Add a finished job to a run, with the name and the conclusion of each step."""
        identity, done = self.next_id(), {"status": "completed", "started_at": now(), "completed_at": now()}
        made = {
            "id": identity, "run_id": run, "run_attempt": 1, "name": name, "conclusion": conclusion, **done,
            "html_url": f"https://github.example/{self.repository}/actions/runs/{run}/job/{identity}",
            "steps": [{"name": step, "conclusion": result, "number": number, **done}
                      for number, (step, result) in enumerate(steps, start=1)],
        }  # fmt: skip
        self.jobs.setdefault(run, []).append(made)
        return made

    def approval(self, run: int, login: str, state: str = "approved", environment: str = "manual-review") -> None:
        """Let a required reviewer decide about a run that waits: approved or rejected."""
        about = {"id": self.next_id(), "name": environment, "created_at": now(), "updated_at": now()}
        made = {"state": state, "comment": f"{login} looked", "user": user(login), "environments": [about]}
        self.approvals.setdefault(run, []).append(made)

    def status(self, sha: str, context: str = "gatehouse/verdict") -> str | None:
        """Return the state a commit's status has, None where nobody set it."""
        states = [one["state"] for one in self.statuses.get(sha, []) if one["context"] == context]
        return states[-1] if states else None


_KEPT = tuple(name for name in vars(Store("o/r")) if name != "owner")


def user(login: str) -> dict[str, Any]:
    """Return an account as answers show it."""
    return {"login": login, "type": "Bot" if login.endswith("[bot]") else "User", "id": sum(login.encode())}


def now() -> str:
    """Return the time as GitHub writes it."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def shown(value: dict[str, Any]) -> dict[str, Any]:
    """Return a copy, so that what was answered does not change later."""
    return copy.deepcopy(value)
