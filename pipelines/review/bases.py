"""Other bases of a pull request's branch: a run never says which base's code it executed."""

from __future__ import annotations

from itertools import islice

from pipelines.core.github.api import Api
from pipelines.review.pull_request import PullRequest, Run, of_branch

SHOWN = 3
MOST_PULL_REQUESTS = 50  # of one branch
MOST_EVENTS = 3000  # of one pull request
MOVES = ("base_ref_changed", "automatic_base_change_succeeded")  # as GitHub names them


def other_bases(api: Api, found: PullRequest, run: Run, *, main: str) -> list[str]:
    """Say whether a run of the branch can have executed the code of another base than main.

    A run executes the head merged into the base of its pull request, and is known by head, branch and file alone. All
    of these are the same for a pull request of the same branch to another base, and changing a base starts no run.

    Args:
        api: The repository.
        found: The pull request that is judged.
        run: A run of its branch.
        main: The branch that is judged for.

    Returns:
        One sentence each, or none.
    """
    known = list(islice(of_branch(api, run), MOST_PULL_REQUESTS + 1))
    if len(known) > MOST_PULL_REQUESTS:
        return [f"its branch has more than {MOST_PULL_REQUESTS} pull requests, too many to ask each for its base"]
    others = [one.number for one in known if one.base != main]
    # One that was moved to main may have been closed since, and its run looks like this one's.
    moved = [number for number in sorted({found.number, *(one.number for one in known)}) if _was_moved(api, number)]
    sentences = []
    if others:
        sentences.append(
            f"its branch is also that of {_shown(others)} to another base, whose code can have computed the rows"
        )
    if moved:
        sentences.append(f"the base of {_shown(moved)} was changed, so another base's code can have computed the rows")
    return sentences


def _was_moved(api: Api, number: int) -> bool:
    """Tell whether a pull request ever had another base; one with more events than are read counts as if it had."""
    events = islice(api.pages(f"/repos/{{repository}}/issues/{number}/events"), MOST_EVENTS + 1)
    return any(at == MOST_EVENTS or event.get("event") in MOVES for at, event in enumerate(events))


def _shown(numbers: list[int]) -> str:
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"pull request {', '.join(str(number) for number in numbers[:SHOWN])}{more}"
