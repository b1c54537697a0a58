"""Where an untrusted run broke: the job and the step, by names that whoever wrote the pull request has chosen."""

from __future__ import annotations

import itertools

from pipelines.core.errors import ServiceError, one_line
from pipelines.core.github.api import Api
from pipelines.review.pull_request import Run

BROKEN = ("failure", "timed_out", "cancelled")
MOST_JOBS = 300
NAME_CHARACTERS = 60


def broken(api: Api, run: Run) -> str:
    """Return one sentence on a run that did not succeed: how it ended, where, and its page."""
    said = run.conclusion if run.conclusion.isidentifier() else "unknown"
    return f"the evaluation ended with {said!r}{place(api, run.id)}; its log says why: {run.url}"


def place(api: Api, run_id: int) -> str:
    """Return ` in job '...', step '...'` for what broke first in a run's last attempt.

    Args:
        api: The repository; its token needs Actions: read.
        run_id: The run.

    Returns:
        One line of untrusted text; empty where GitHub does not say, for the run's log still does.
    """
    try:
        jobs = list(itertools.islice(api.pages(f"/repos/{{repository}}/actions/runs/{run_id}/jobs"), MOST_JOBS))
    except ServiceError:
        return ""
    broken = [job for job in jobs if job.get("conclusion") in BROKEN]
    # Jobs that are cancelled or fail for want of another end after it.
    broken.sort(key=lambda job: (BROKEN.index(job["conclusion"]), str(job.get("completed_at") or "~")))
    if not broken:
        return ""
    steps = [step for step in broken[0].get("steps") or [] if step.get("conclusion") in BROKEN]
    names = [f"job {_shown(broken[0])}", *(f"step {_shown(step)}" for step in steps[:1])]
    return f" in {', '.join(names)}"


def _shown(value: dict[str, object]) -> str:
    return repr(one_line(str(value.get("name") or "without a name"), NAME_CHARACTERS))
