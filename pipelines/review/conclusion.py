"""Write a decision down: first its record in Git, and only then the status that lets it merge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from pipelines.core import records
from pipelines.core.commit import head as head_of
from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json
from pipelines.core.github.api import Api
from pipelines.core.records import Output, Record
from pipelines.review import pull_request
from pipelines.review.context import FILE, Context, read_context
from pipelines.review.status import set_status

DECISION = "evaluation/decision.json"


class Conclusion(NamedTuple):
    """What was concluded.

    Attributes:
        verdict: `pending`, `pass`, `fail`, `manual_review`, `error`, or empty where nothing was to be said.
        said: One line for people.
        recorded: Whether a record was written.
    """

    verdict: str
    said: str
    recorded: bool = False


def conclude(
    api: Api | None,
    root: Path,
    repository: Path = Path(),
    *,
    remote: str | None = "origin",
    run_url: str = "",
    objects: Mapping[str, Any] | None = None,
) -> Conclusion:
    """Record the decision under `root` and set the required status of the commit that it is about.

    Args:
        api: GitHub; None on a laptop, where no status is set.
        root: What `receive` laid out, or the repository itself on main.
        repository: The clone whose remote holds the records.
        remote: Its name.
        run_url: The run that judges.
        objects: On main, what was made, as `handover.objects` says it; by default what a hand-over left here.

    Raises:
        ConfigError: There is no decision, or it is not about what was received.
        ServiceError: Git or GitHub cannot be reached. The status is set last, so that it is never ahead of the record.
    """
    # A file of that name in the repository itself is anybody's.
    if root.resolve() != repository.resolve():
        return _of_pull_request(api, read_context(root / FILE), root, repository, remote, run_url)
    return _of_main(api, root, repository, remote, run_url, objects)


def broke(api: Api, commit: str, *, run_url: str = "") -> Conclusion:
    """Say of a commit that its verdict came to no end, so that no earlier one stands; nothing is recorded.

    Args:
        api: GitHub.
        commit: Whose verdict broke.
        run_url: The run that was to judge.

    Raises:
        ServiceError: GitHub cannot be reached.
    """
    return _say(api, commit, "error", "the verdict did not come to an end; its log says why", run_url)


def _of_pull_request(
    api: Api | None, context: Context, root: Path, repository: Path, remote: str | None, run_url: str
) -> Conclusion:
    if context.state in ("stale", "closed"):
        return Conclusion("", f"nothing to conclude: {context.reason}")
    if api is None:
        raise ConfigError("GITHUB_REPOSITORY and GH_TOKEN are not set; a pull request's verdict is a status on GitHub")
    now = pull_request.at(api, context.number)
    if now.head != context.head:
        return Conclusion("", f"nothing to conclude: pull request {context.number} has moved on from {context.head}")
    if context.state == "pending":
        return _say(api, context.head, "pending", context.reason, run_url)
    decision = _decision(root)
    verdict = str(decision["verdict"])
    if decision.get("commit") != context.head or decision.get("input_digest") != context.input_digest:
        raise ConfigError(f"{root / DECISION}: is not about the commit that was received; run the gate again")
    expected = {"failed": ("error",), "nothing": ("pass",)}.get(context.state)
    if expected and verdict not in expected:
        raise ConfigError(f"{root / DECISION}: verdict {verdict} does not fit state {context.state}; receive again")
    is_recorded = False
    if context.state == "ready" and context.is_evaluated:
        # A fork writes to no remote: nobody could take over what its lock and its manifest name.
        objects = {} if context.is_fork else context.manifest
        _, is_recorded = _record(
            {
                "decision": decision,
                "commit": context.head,
                "head": context.head,
                "pull_request": context.number,
                "approval": decision.get("approval"),
                "lock": "" if context.is_fork else context.lock,
                "manifest": {name: one.model_dump() for name, one in objects.items()},
                "run_url": context.run_url,
            },
            repository,
            remote,
        )
    return _say(api, context.head, verdict, _description(decision), run_url)._replace(recorded=is_recorded)


def _of_main(
    api: Api | None,
    root: Path,
    repository: Path,
    remote: str | None,
    run_url: str,
    objects: Mapping[str, Any] | None,
) -> Conclusion:
    decision = _decision(root)
    commit = head_of(repository)[0]
    lock = root / "dvc.lock"
    record, is_recorded = _record(
        {
            "decision": decision,
            "commit": commit,
            "approval": decision.get("approval"),
            "lock": lock.read_text(encoding="utf-8") if lock.is_file() else "",
            "manifest": _manifest(root) if objects is None else dict(objects),
            "run_url": run_url,
        },
        repository,
        remote,
    )
    verdict, said = record.verdict, _description(record.decision)
    if record.commit != commit:
        said = f"{said}; nothing was handed over here, so the record of {record.commit[:12]} stays"
    if api is None or commit == "unknown":
        return Conclusion(verdict, f"{verdict}: {said}", is_recorded)
    return _say(api, commit, verdict, said, run_url)._replace(recorded=is_recorded)


def _decision(root: Path) -> dict[str, Any]:
    found = read_json(root / DECISION)
    if not isinstance(found, dict) or found.get("verdict") not in ("pass", "fail", "manual_review", "error"):
        raise ConfigError(f"{root / DECISION}: holds no verdict; run the gate again")
    return found


def _manifest(root: Path) -> dict[str, Any]:
    """Return the objects of main's own hand-over, where there is one."""
    path = root / "manifest.json"
    found = read_json(path).get("objects", {}) if path.is_file() else {}
    return {name: Output.model_validate(one).model_dump() for name, one in found.items()}


def _record(values: Mapping[str, Any], repository: Path, remote: str | None) -> tuple[Record, bool]:
    """Return the decision as it counts, and whether it had to be written."""
    decision = values["decision"]
    about = {key: decision[key] for key in ("input_digest", "verdict", "created")}
    try:
        record = Record.model_validate({"schema_version": 1, **about, **values})
    except ValidationError as error:
        raise ConfigError(f"the decision cannot be recorded: {error.errors(include_url=False)[0]['msg']}") from None
    old = records.read(record.input_digest, repository, remote)
    if record.pull_request is None:
        if old is not None and old.manifest and not record.manifest:
            return old, False  # a laptop that has handed nothing over: what main can take over stays named
        record = inherited(record, old)
    if record == old or not may_replace(old, record):
        return record, False
    whose = f"pull request {record.pull_request}" if record.pull_request else f"commit {record.commit[:12]}"
    records.write(record.as_file(), f"Decide {whose}: {record.verdict}", repository, remote=remote)
    return record, True


def may_replace(old: Record | None, new: Record) -> bool:
    """Tell whether a decision may take the place of an earlier one about the same inputs.

    What can be trusted gives way only to main, which knows what its own run computed: a pull request that changes
    nothing but a workflow has main's own digest, and rows that it may have forged. Its own pass a pull request can take
    back, as when the approval is dismissed that lifted it.
    """
    if old is None or not old.is_trusted or new.pull_request is None:
        return True
    return old.pull_request == new.pull_request and new.verdict != "pass"


def inherited(new: Record, old: Record | None) -> Record:
    """Return main's decision with what stays true of the earlier one: its pull request, and who approved.

    An approval lifts `manual_review` here too. `fail` and `error` are recorded as they are.
    """
    if old is None or not old.is_trusted:
        return new
    new = new.model_copy(
        update={"approval": new.approval or old.approval, "replaces": old.pull_request or old.replaces}
    )
    if new.approval is None or new.verdict != "manual_review":
        return new
    said = f"approved by {new.approval.user} at {new.approval.at}"
    lifted = {"verdict": "pass", "approval": new.approval.model_dump()}
    reasons = [said, *new.decision.get("reasons", [])]
    return new.model_copy(update={"verdict": "pass", "decision": {**new.decision, **lifted, "reasons": reasons}})


def _description(decision: Mapping[str, Any]) -> str:
    approval = decision.get("approval")
    if isinstance(approval, dict):
        return f"approved by {approval.get('user')}"
    reasons = decision.get("reasons")
    return str(reasons[0]) if isinstance(reasons, list | tuple) and reasons else ""


def _say(api: Api, commit: str, verdict: str, description: str, run_url: str) -> Conclusion:
    set_status(api, commit, verdict, description or None, run_url or None)
    return Conclusion(verdict, f"{verdict}: {description}")
