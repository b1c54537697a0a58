"""What a release's page says: how it ended, each step, the gates, what it is made of; and no text of it is alive."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.release import machine
from pipelines.release import story as stories
from pipelines.release.afterwards import summary, what_next
from pipelines.release.compare import Comparison, Facts, Pair
from pipelines.release.history import History
from pipelines.release.replay import replay
from pipelines.release.replay_text import table
from pipelines.release.world import look
from tests.comment_page import COMMAND, alive, render
from tests.hostile import CORPUS
from tests.release.watched import Watched, site_with_gates, watch

MERMAID = re.compile(
    r'%%\{init: [\w{}": ,#]+\}%%\nxychart-beta\n    title "[\w ,:()-]+"\n'
    r'    x-axis ("[a-z ]+" 0 --> [\d.]+|\["[\w -]+"(, "[\w -]+")*\])\n'
    r'    y-axis "[a-z ]+" 0 --> \d+\n(    (bar|line) \[[\d., ]+\]\n)+'
)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A first release, which nothing could be compared with."""
    return watch(site_with_gates(tmp_path_factory.mktemp("first") / "site"), "v1.0.0")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Watched]:
    """A good release, one with three in ten errors, and the first one taken back by a person."""
    site = site_with_gates(tmp_path_factory.mktemp("story") / "site")
    watch(site, "v1.0.0")
    site.next("v1.1.0")
    good = watch(site, "v1.1.0")
    machine.roll_back(good.world, "customers complain")
    history = look(good.world).history
    assert history is not None
    site.next("v1.2.0")
    return {"good": good, "taken": good._replace(history=history), "bad": watch(site, "v1.2.0", errors=0.3)}


def story(history: History, **more: Any) -> str:
    """The story as it is read: a space that keeps a cell together is a space."""
    return stories.story(history, **more).replace("\N{NO-BREAK SPACE}", " ")


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_good_release_tells_first_that_it_serves_and_why(releases: dict[str, Watched]) -> None:
    text = story(releases["good"].history)
    first, second = text.splitlines()[:2]
    assert first == "> [!TIP]"
    assert re.fullmatch(
        r"> \*\*v1\.1\.0 is released\.\*\* It serves all traffic instead of v1\.0\.0 since `2026-09-21 ..:..:..` UTC: "
        r"\d+ requests at 100 %, and every limit is proven\.",
        second,
    )


def test_every_step_stands_with_share_requests_time_and_verdict(releases: dict[str, Watched]) -> None:
    rows = [row.split(" | ") for row in lines(story(releases["good"].history), "| **")]
    assert [row[0] for row in rows] == [
        f"| **{name}**" for name in ("staging", "smoke", "A/B test", "5 %", "10 %", "25 %", "50 %", "100 %")
    ]
    assert [row[1] for row in rows][2:] == ["50 %", "5 %", "10 %", "25 %", "50 %", "100 %"]
    assert all(int(row[2]) > 0 for row in rows[2:])
    assert {row[4] for row in rows[2:]} == {"✅ advance"}


def test_the_gates_and_the_ab_test_stand_with_intervals_and_what_decides(releases: dict[str, Watched]) -> None:
    text = story(releases["good"].history)
    (errors,) = lines(text, "| `error_rate` |")[:1]
    assert re.match(r"\| `error_rate` \| \d of \d+ \| [\d.]+ % \([\d.]+ to [\d.]+ %\) \| ≤ 5 % \|", errors)
    assert errors.endswith("| ✅ proven |")
    assert "| ≤ 5 % over 30 s |" in text
    assert "A mean e-value of 20 for harm rolls back" in text
    (compared,) = lines(text, "| `latency_ms` |")
    assert compared.endswith("| ✅ within |")


def test_a_bad_release_tells_what_failed_and_what_serves_now(releases: dict[str, Watched]) -> None:
    text = story(releases["bad"].history)
    first, second = text.splitlines()[:2]
    assert first == "> [!CAUTION]"
    assert second.startswith("> **v1.2.0 was rolled back.** error&#95;rate: ")
    assert second.endswith(". v1.0.0 serves all traffic.")
    assert lines(text, "| `error_rate` |")[0].endswith("| ❌ failed |")
    assert "requests" in lines(text, "| **A/B test**")[0]


def test_a_person_who_takes_a_release_back_is_told_as_such(releases: dict[str, Watched]) -> None:
    text = story(releases["taken"].history)
    assert text.splitlines()[:2] == [
        "> [!CAUTION]",
        "> **v1.1.0 was taken back by a person.** customers complain. v1.0.0 serves all traffic.",
    ]


def changed(history: History, act: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> History:
    value = json.loads(history.as_file())
    return History.model_validate({**value, "events": act(value["events"])})


def test_a_release_that_is_on_its_way_or_held_says_so(releases: dict[str, Watched]) -> None:
    def until(action: str) -> History:
        def act(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
            found = next(at for at, event in enumerate(events) if event["action"] == "advance")
            return [*events[: found + 1], {**events[found], "action": action, "said": "Hold v1.1.0 at 5 %: lunch"}]

        return changed(releases["good"].history, act)

    assert story(until("resume")).startswith("> [!NOTE]\n> **v1.1.0 is on its way.** ")
    assert story(until("hold")).startswith("> [!WARNING]\n> **v1.1.0 is held.** lunch")


def test_time_that_ran_out_is_no_failure(releases: dict[str, Watched]) -> None:
    def act(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for event in events:
            if event["action"] == "rollback":
                event["verdict"]["name"] = "hold"
        return events

    assert story(changed(releases["bad"].history, act)).startswith("> [!WARNING]\n> **v1.2.0 was rolled back.**")


def test_the_share_of_traffic_is_drawn_from_nothing_to_all_and_back(releases: dict[str, Watched]) -> None:
    def drawn(name: str) -> list[float]:
        (block,) = re.findall(r"```mermaid\n(.*?)```", story(releases[name].history), re.DOTALL)
        return [float(part) for part in re.findall(r"line \[(.*)\]", block)[0].split(", ")]

    assert (drawn("good")[0], drawn("good")[-1]) == (0, 100)
    assert list(dict.fromkeys(drawn("good"))) == [0, 50, 5, 10, 25, 100]
    assert (drawn("bad")[0], max(drawn("bad")), drawn("bad")[-1]) == (0, 50, 0)


def test_what_a_release_is_made_of_stands_by_digest(releases: dict[str, Watched]) -> None:
    manifest = releases["good"].manifest
    assert manifest is not None
    text = story(releases["good"].history, manifest=manifest)
    assert f"| model candidate | `{manifest.models['candidate'].digest[:12]}` |" in text
    assert f"| manifest | `{manifest.name[:12]}` |" in text


def replaced(value: Any, text: str) -> Any:
    """Return the value with the text added to every text, but for the words that say which kind of event it is."""
    if isinstance(value, str):
        return f"{value[:40]}: {text}"
    if isinstance(value, list):
        return [replaced(one, text) for one in value]
    if isinstance(value, dict):
        return {key: one if key in ("action", "step", "kind") else replaced(one, text) for key, one in value.items()}
    return value


def test_nothing_that_a_history_or_a_manifest_holds_is_alive(releases: dict[str, Watched]) -> None:
    for name, text in [(name, text) for text in CORPUS for name in ("good", "bad")]:
        manifest = releases["good"].manifest
        assert manifest is not None
        history = History.model_validate(replaced(json.loads(releases[name].history.as_file()), text))
        whole = text.encode(errors="replace").decode()  # a file holds no half of a character
        hostile = {"images": {whole: whole}, "prompts": {whole: whole}, "commit": whole}
        found = story(history, manifest=manifest.model_copy(update=hostile))
        page = render(found)
        assert [one for one in alive(page) if "[!" not in one] == []
        assert sum("[!" in one for one in alive(page)) == 1, "our own alert, and no other"
        assert not COMMAND.search(found)


def test_charts_hold_numbers_and_plain_letters_only(releases: dict[str, Watched]) -> None:
    for hostile in CORPUS:
        value = json.loads(releases["good"].history.as_file())
        for event in value["events"]:
            event["at"] = hostile if event["action"] == "done" else event["at"]
            for check in (event["verdict"] or {}).get("checks", []):
                check["gate"] += hostile
        blocks = re.findall(r"```mermaid\n(.*?)```", story(History.model_validate(value)), re.DOTALL)
        assert blocks
        assert all(MERMAID.fullmatch(block) for block in blocks)


def test_a_story_of_any_length_fits_and_its_outcome_stays(releases: dict[str, Watched]) -> None:
    def act(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**event, "said": event["said"] + "<" * 300} for event in events for _ in range(60)]

    facts = Facts("v1.0.0", "0" * 40, "pass", {}, {}, {}, {}, {})
    prompts = {f"prompts/{at}.yml": ["<" * 200] * 40 for at in range(40)}
    pairs = [Pair(f"train.{at}", "1", "2") for at in range(3000)]
    comparison = Comparison(facts, facts._replace(tag="v1.1.0"), [], pairs, [], [], [], prompts)
    text = story(changed(releases["good"].history, act), manifest=releases["good"].manifest, comparison=comparison)
    assert len(text) <= 60_000
    assert text.startswith("> [!TIP]")
    assert text.rstrip().endswith("The history file in the repository holds all of it.**")


def test_a_summary_has_a_heading_and_the_manifest(releases: dict[str, Watched]) -> None:
    seen = look(releases["good"].world)
    assert seen.history is not None
    text = summary(seen, seen.history)
    assert text.startswith(f"## Release {seen.history.tag}\n\n> [!")


def test_what_is_shown_climbs_the_ladder_and_ends_released(releases: dict[str, Watched]) -> None:
    shown = releases["good"].shown
    stages = list(dict.fromkeys(look.stage for look in shown if look.told))
    assert stages == ["A/B test", "5 %", "10 %", "25 %", "50 %", "100 %"]
    assert {rung.progress for rung in shown[-1].rungs} == {"done"}
    assert [one.name for one in shown[-1].rungs][:4] == ["staging", "smoke", "deploy", "A/B test"]
    assert all(look.told.alpha == 0.05 for look in shown if look.told)
    assert max(look.total_s for look in shown) == shown[-1].total_s > 0
    assert {look.instead for look in shown} == {"v1.0.0"}
    assert (shown[-1].weight, shown[-1].end) == (1.0, "v1.1.0 serves all traffic")


def test_a_first_release_has_no_stage_with_traffic(first: Watched) -> None:
    assert {look.instead for look in first.shown} == {""}
    assert [rung.name for rung in first.shown[-1].rungs] == ["staging", "smoke", "deploy", "champion"]
    assert {rung.progress for rung in first.shown[-1].rungs} == {"done"}
    assert not any(line.startswith("expected of") for line in first.said)
    assert story(first.history).startswith("> [!TIP]\n> **v1.0.0 is released.** It serves all traffic since `")


def test_the_rung_where_a_release_failed_is_marked(releases: dict[str, Watched]) -> None:
    rungs = {rung.name: rung.progress for rung in releases["bad"].shown[-1].rungs}
    assert (rungs["deploy"], rungs["A/B test"], rungs["5 %"]) == ("done", "failed", "next")
    assert (releases["bad"].shown[-1].weight, releases["bad"].shown[-1].end) == (0.0, "v1.0.0 serves all traffic")


def test_what_a_rollout_will_ask_for_is_said_after_its_beginning_and_before_any_deployment(
    releases: dict[str, Watched],
) -> None:
    said = releases["good"].said
    assert said[0].startswith("Begin release of v1.1.0")
    assert said[1] == "expected of a healthy candidate at 75 requests a minute, both sides together:"
    first = next(at for at, line in enumerate(said) if line.startswith("Bind"))
    table = said[2:first]
    first_words = ["stage", "A/B", "5", "10", "25", "50", "100", "all", "gate"]
    gates = ["error_rate", "schema_failure_rate", "latency_p95_ms"]
    assert [line.split()[0] for line in table if line.startswith("  ")] == first_words + gates


def test_the_next_thing_to_do_follows_from_how_a_run_ended(releases: dict[str, Watched]) -> None:
    seen = look(releases["good"].world)
    bad = what_next(seen._replace(history=releases["bad"].history), releases["bad"].outcome)
    assert bad.endswith("--remote none --release=v1.2.0 --why ...")
    paused = what_next(seen, machine.Outcome("paused", ""))
    assert "--release --why ... lets it go on" in paused
    staged = what_next(seen, machine.Outcome("staged", ""))
    assert staged == "next: the same command without --until staging goes on to production"


def test_a_recorded_rollout_judged_again_is_a_table_that_names_what_differs(releases: dict[str, Watched]) -> None:
    history = releases["good"].history
    judge = releases["good"].world.plan_of((releases["good"].world.root / "gates.yaml").read_bytes()).judge
    rows = table(history.tag, replay(history, judge))
    assert [row.split()[-1] for row in rows[1:-1]] == ["agrees"] * 6
    assert rows[-1] == "6 verdicts of v1.1.0 judged again: all agree"

    def act(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        first = next(event for event in events if event["action"] == "advance")
        first["counters"]["canary"]["epochs"][0]["candidate"]["errors"] = 60
        return events

    rows = table(history.tag, replay(changed(history, act), judge))
    assert rows[1].split()[-3:] == ["advance", "rollback", "DIFFERS"]
    assert rows[2] == "    recorded advance, judged again it is rollback"
    assert rows[-1].endswith("1 of 6 differ")
