"""How a pull request loosens the way to users: canary stages and A/B test of `gates.yaml`, old against new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pipelines.core.gates import Gates
from pipelines.core.rollout import (
    AbMetric,
    AbRun,
    AbTest,
    CanaryRule,
    CanaryStage,
    RateRule,
    RatingRule,
    Rollout,
    Target,
)

# Of each number, the direction in which a candidate is held to less; either is one where both ways of erring change.
OF_ROLLOUT = {
    "alpha": "changed", "sample_ratio_alpha": "lowered", "max_requests_per_user": "raised", "max_unknown_s": "raised",
    "look_every_s": "raised",
}  # fmt: skip
OF_TEST = {"alpha": "changed", "sample_ratio_alpha": "lowered"}
OF_STAGE = {"min_requests": "lowered", "max_duration_s": "raised"}
OF_RUN = {"weight": "raised", "min_per_arm": "lowered", "window_s": "lowered", "max_duration_s": "raised"}
PROVEN = ("none", "limit", "all")


def loosened_rollout(before: Gates, after: Gates) -> tuple[str, ...]:
    """Say in what the rollouts of `after` hold a candidate to less than those of `before`.

    More stages, smaller shares, further gates and stricter limits are no loosening; what is declared for the first time
    is none either.

    Returns:
        One sentence for each; none where everything is at least as strict as before.
    """
    found = list[str]()
    for target in get_args(Target):
        old = before.canary.rollout(target) if before.canary else None
        new = after.canary.rollout(target) if after.canary else None
        if old is not None:
            place = f"canary.{target}"
            found += [f"{place}: removed"] if new is None else _of_rollout(old, new, place)
    if before.ab_test is not None:
        found += ["ab_test: removed"] if after.ab_test is None else _of_test(before.ab_test, after.ab_test)
    return tuple(f"gates.yaml: {sentence}" for sentence in found)


def _of_rollout(old: Rollout, new: Rollout, place: str) -> Iterator[str]:
    yield from _numbers(old, new, OF_ROLLOUT, place)
    yield from _insufficient(old, new, place)
    rules = new.gates.rules()
    for name, rule in old.gates.rules().items():
        key = f"{place}.gates.{name}"
        if name not in rules:
            yield f"{key}: removed"
        else:
            yield from _of_rule(rule, rules[name], key)
    yield from _of_stages(old.stages, new.stages, f"{place}.stages")


def _of_rule(old: CanaryRule, new: CanaryRule, place: str) -> Iterator[str]:
    if isinstance(old, RatingRule) and isinstance(new, RatingRule):
        if old.scale != new.scale:
            yield f"{place}: scale changed from {list(old.scale)} to {list(new.scale)}"
        elif new.floor < old.floor:
            yield f"{place}: floor lowered from {old.floor:g} to {new.floor:g}"
    elif not isinstance(old, RatingRule) and not isinstance(new, RatingRule):
        yield from _raised("ceiling", old.ceiling, new.ceiling, place)
    yield from _raised("max_ratio", old.max_ratio, new.max_ratio, place)
    if PROVEN.index(_proves(new)) < PROVEN.index(_proves(old)):
        yield f"{place}: prove lowered from {_proves(old)} to {_proves(new)}"


def _proves(rule: CanaryRule) -> str:
    has_limit = not isinstance(rule, RateRule) or rule.ceiling is not None
    return rule.prove if has_limit or rule.prove == "all" else "none"


def _raised(name: str, old: float | None, new: float | None, place: str) -> Iterator[str]:
    if old is not None and (new is None or new > old):
        yield f"{place}: {name} {old:g} removed" if new is None else f"{place}: {name} raised from {old:g} to {new:g}"


def _of_stages(old: tuple[CanaryStage, ...], new: tuple[CanaryStage, ...], place: str) -> Iterator[str]:
    """Ask of every old stage for a new one of its own that gives the candidate no more users and asks no less of it."""
    free = list(new)
    for stage in old:
        kept = [one for one in free if one.weight <= stage.weight and not list(_of_stage(stage, one))]
        if kept:
            free.remove(max(kept, key=lambda one: one.weight))
            continue
        same = next((one for one in free if one.weight == stage.weight), None)
        why = (
            " and ".join(_of_stage(stage, same)) if same else "removed, so that more users come before as much is shown"
        )
        yield f"{place}: the stage of {stage.weight:g} %: {why}"


def _of_stage(old: CanaryStage, new: CanaryStage) -> Iterator[str]:
    if old.require == "proven" and new.require != "proven":
        yield f"require lowered from {old.require} to {new.require}"
    yield from _numbers(old, new, OF_STAGE)


def _of_test(old: AbTest, new: AbTest) -> Iterator[str]:
    yield from _numbers(old, new, OF_TEST, "ab_test")
    if old.primary.metric != new.primary.metric:
        yield f"ab_test.primary: metric changed from {old.primary.metric} to {new.primary.metric}"
    else:
        yield from _margin(old.primary, new.primary, "ab_test.primary")
    known = {one.metric: one for one in (*new.secondaries, new.primary)}
    for secondary in old.secondaries:
        place = f"ab_test.secondaries: {secondary.metric}"
        if secondary.metric not in known:
            yield f"{place}: removed"
        else:
            yield from _margin(secondary, known[secondary.metric], place)
    for target in get_args(Target):
        run, place = old.run(target), f"ab_test.{target}"
        if run is not None:
            now = new.run(target)
            yield from [f"{place}: removed"] if now is None else _of_run(run, now, place)


def _of_run(old: AbRun, new: AbRun, place: str) -> Iterator[str]:
    if old.unit != new.unit:
        yield f"{place}: unit changed from {old.unit} to {new.unit}"
    yield from _numbers(old, new, OF_RUN, place)
    yield from _insufficient(old, new, place)


def _margin(old: AbMetric, new: AbMetric, place: str) -> Iterator[str]:
    yield from _raised("margin", old.margin, new.margin, place)


def _insufficient(old: Rollout | AbRun, new: Rollout | AbRun, place: str) -> Iterator[str]:
    if old.on_insufficient == "rollback" and new.on_insufficient != "rollback":
        yield f"{place}: on_insufficient: {new.on_insufficient} instead of rollback"


def _numbers(old: Any, new: Any, loosens: dict[str, str], place: str = "") -> Iterator[str]:
    """Say which numbers moved in a direction that loosens."""
    for name, how in loosens.items():
        was, now = getattr(old, name), getattr(new, name)
        word = "raised" if now > was else "lowered"
        if was != now and how in (word, "changed"):
            yield f"{f'{place}: ' if place else ''}{name} {word} from {was:g} to {now:g}"
