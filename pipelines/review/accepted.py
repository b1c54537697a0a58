"""Take what the judging job left as plain data: three files of fixed names and bounded sizes, no Parquet among them.

The judging job reads what anybody may have written. Should that ever take it over, what it leaves is as hostile as what
it read; the job that may write trusts it no further than a verdict on the one pull request that the event is about.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import read_json, read_text
from pipelines.core.folders import replacing_folder
from pipelines.core.github.api import Api
from pipelines.core.records import Approval
from pipelines.review import pull_request
from pipelines.review.context import FILE, Context, read_context

MIB = 1 << 20
DECISION, REPORT = "evaluation/decision.json", "evaluation/report.md"
MOST_BYTES = {FILE: 64 * MIB, DECISION: 16 * MIB, REPORT: MIB}
# What has to lie beside `context.json` in each state.
NEEDED = {"pending": (), "ready": (DECISION, REPORT), "nothing": (DECISION, REPORT), "failed": (DECISION,)}
BROKE = "The verdict did not come to an end; its log says why. Run it again."


class Accepted(NamedTuple):
    """What there is to say.

    Attributes:
        state: As in `context.json`; `failed` too where judging itself broke.
        number: The pull request's; 0 where there is none.
        head: The commit that was judged, hex.
        reason: One sentence on the state.
        broken: The same commit where judging came to no end, else empty.
    """

    state: str
    number: int
    head: str
    reason: str
    broken: str = ""


class Decided(BaseModel):
    """What a record and a status take of `decision.json`; its other keys are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    schema_version: Literal[1]
    verdict: Literal["pass", "fail", "manual_review", "error"]
    commit: str
    input_digest: str
    created: str
    reasons: list[str]
    approval: Approval | None = None


def accept(api: Api, event: Mapping[str, Any], artifact: Path, to: Path, *, is_whole: bool) -> Accepted:
    """Lay out in `to` what judging left, each file checked.

    Args:
        api: The repository.
        event: The `workflow_run` event of this run, which GitHub wrote: it says whose verdict this is.
        artifact: Folder that judging left.
        to: The folder, replaced as a whole.
        is_whole: Whether judging came to its end; if not, nothing of what it left is read.

    Raises:
        ConfigError: A file is missing, too large, a link or broken, or is about another pull request.
        ServiceError: GitHub cannot be reached.
    """
    run = pull_request.read_run(event.get("workflow_run"))
    found = pull_request.find(api, run, base=pull_request.default_branch(api))
    if found is None or found.state == "closed":
        return Accepted("closed", 0, "", "no open pull request belongs to this run")
    stale = Accepted("stale", found.number, found.head, "the pull request has moved on from the commit that was judged")
    if not is_whole:
        is_old = run.is_evaluation and run.head != found.head
        return stale if is_old else Accepted("failed", found.number, found.head, BROKE, found.head)
    with replacing_folder(to) as new:
        _copy(artifact, FILE, new)
        context = _named(lambda: read_context(new / FILE), new)
        if context.state in ("stale", "closed"):
            return Accepted(context.state, found.number, found.head, context.reason)
        if context.number != found.number:
            raise ConfigError(
                f"{FILE}: is about pull request {context.number}, and this run belongs to {found.number}; run it again"
            )
        if context.head != found.head:
            return stale
        for name in NEEDED[context.state]:
            _copy(artifact, name, new)
        _check(context, new)
    return Accepted(context.state, found.number, found.head, context.reason)


def _copy(artifact: Path, name: str, to: Path) -> None:
    """Copy one file, if it and the folder that it lies in are plain and it is not too large."""
    source, target = artifact / name, to / name
    for place in (artifact, source.parent, source):
        try:
            mode = place.lstat().st_mode
        except OSError:
            raise ConfigError(f"{name}: judging left no such file; run it again") from None
        if not (stat.S_ISREG(mode) if place == source else stat.S_ISDIR(mode)):
            raise ConfigError(f"{name}: is no plain file; only plain files are taken")
    if source.stat().st_size > MOST_BYTES[name]:
        raise ConfigError(f"{name}: has more than {MOST_BYTES[name]:,} bytes")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)


def _check(context: Context, folder: Path) -> None:
    if DECISION in NEEDED[context.state]:
        _named(lambda: _decided(folder / DECISION), folder)
    if REPORT in NEEDED[context.state]:
        _named(lambda: read_text(folder / REPORT), folder)


def _decided(path: Path) -> Decided:
    try:
        return Decided.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {one_line(key, 100)}: {first['msg'].lower()}; run the gate again") from None


def _named(read: Any, folder: Path) -> Any:
    """Read something; a complaint names the file as judging does."""
    try:
        return read()
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"{folder}/", "")) from None
