"""What was spent: the sums by hand, the table, the page, and what is said about wrong arguments."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.serving.cost import Wanted, add_up, parse_by, parse_day, table
from pipelines.serving.cost_plot import page
from pipelines.serving.ledger_database import Database
from pipelines.serving.ledger_sqlite import SqliteLedger
from tests.serving.gateway import ROOT, declared, upstream
from tests.serving.ledgers import exchange, row

NEW_YEAR = 1_767_225_600.0  # 2026-01-01T00:00:00Z
DAY = 86_400
HOSTILE = "</title><script>alert(1)</script>\n\x1b[31m"


@pytest.fixture
def ledger(tmp_path: Path) -> SqliteLedger:
    made = SqliteLedger(tmp_path / ".gatehouse/ledger.db")
    made.open()
    spent = [
        exchange(time_s=NEW_YEAR, usd=1.0, user="ann"),
        exchange(time_s=NEW_YEAR + DAY - 1, usd=2.0, user="bob", model="large", route="mail"),
        exchange(time_s=NEW_YEAR + DAY, usd=4.0, user="ann", status=502, is_estimated=True),
        exchange(time_s=NEW_YEAR + 31 * DAY, usd=8.0, project="second", user=HOSTILE, variant=""),
        exchange(time_s=NEW_YEAR + 31 * DAY, usd=0.0, project="second", cache="exact", n_attempts=0),
    ]
    made.book([row(each) for each in spent], [])
    return made


@pytest.mark.parametrize(
    ("wanted", "usd"),
    [
        (Wanted(("project",)), {("first",): 7.0, ("second",): 8.0}),
        (
            Wanted(("project", "day")),
            {("first", "2026-01-01"): 3.0, ("first", "2026-01-02"): 4.0, ("second", "2026-02-01"): 8.0},
        ),
        (Wanted(("month",)), {("2026-01",): 7.0, ("2026-02",): 8.0}),
        (Wanted(("model",)), {("large",): 2.0, ("small",): 13.0}),
        (Wanted(("route",)), {("desk",): 13.0, ("mail",): 2.0}),
        (Wanted(("variant",)), {("",): 8.0, ("stable",): 7.0}),
        (Wanted(("user",), "", "", "first"), {("ann",): 5.0, ("bob",): 2.0}),
        (Wanted(("day",), "2026-01-02"), {("2026-01-02",): 4.0, ("2026-02-01",): 8.0}),
        (Wanted(("day",), "2026-01-02", "2026-01-31"), {("2026-01-02",): 4.0}),
        (Wanted(("day",), "2027-01-01"), {}),
    ],
)
def test_sums_are_those_made_by_hand(ledger: Database, wanted: Wanted, usd: dict[tuple[str, ...], float]) -> None:
    costs = add_up(ledger, wanted)
    assert {found.keys: found.usd for found in costs.rows} == usd
    assert costs.total.usd == sum(usd.values())


def test_single_rows_and_sums_say_the_same(ledger: Database) -> None:
    by_project, by_user = add_up(ledger, Wanted(("project",))), add_up(ledger, Wanted(("project", "user")))
    assert by_project.total == by_user.total
    assert by_project.total[1:] == (5, 1, 1, 1, 40, 20, 15.0)


def test_a_table_shows_bars_marks_guesses_and_hides_what_could_harm_a_terminal(ledger: Database) -> None:
    lines = table(add_up(ledger, Wanted(("user",)))).splitlines()
    assert lines[0].split() == [
        "user",
        "requests",
        "failed",
        "cached",
        "prompt",
        "tokens",
        "completion",
        "tokens",
        "USD",
    ]
    assert [line.count("█") for line in lines[1:-2]] == [0, 24, 15, 6]
    assert "~5.000000" in lines[3]
    assert lines[-2].split() == ["total", "5", "1", "1", "40", "20", "~15.000000"]
    assert lines[-1] == "~ 1 requests are estimated: their upstream gave no token counts"
    assert "\x1b" not in "\n".join(lines)


def test_the_page_is_html_that_nothing_in_the_ledger_can_break(ledger: Database) -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.append(tag)

    for wanted in (Wanted(("project", "day")), Wanted(("user",)), Wanted(("day",), "2027-01-01")):
        costs = add_up(ledger, wanted)
        reader = Reader()
        text = page(costs, "Cost <by> day")
        reader.feed(text)
        assert "script" not in reader.tags
        assert reader.tags.count("rect") == len(costs.rows)
        assert not re.search(r"(src|href)=|nan|inf", text)


def test_the_bars_of_a_day_are_as_high_as_its_cost(ledger: Database) -> None:
    text = page(add_up(ledger, Wanted(("day",))), "x")
    heights = [float(found) for found in re.findall(r'height="([\d.]+)" fill', text)]
    assert [height / heights[-1] for height in heights] == pytest.approx([3 / 8, 4 / 8, 1.0], abs=0.01)


@pytest.mark.parametrize("text", ["", "projects", "day,day", "day, ,user", "day;drop"])
def test_a_wrong_grouping_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--by: different names out of project, day"):
        parse_by(text)


def test_days_are_read_and_wrong_ones_named() -> None:
    assert parse_day("--since", "2026-01-31", 0.0) == "2026-01-31"
    assert parse_day("--since", "1d", NEW_YEAR) == "2026-01-01"
    assert parse_day("--since", "7d", NEW_YEAR + 6 * DAY) == "2026-01-01"
    for wrong in ("2026-02-30", "0d", "yesterday", "7", "1e3d"):
        with pytest.raises(ConfigError, match=r"^--since: a day such as"):
            parse_day("--since", wrong, 0.0)


def cost(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.cost", "--root", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_script_prints_a_table_json_and_a_page(ledger: SqliteLedger, tmp_path: Path) -> None:
    routes = {"desk": {"tiers": [{"upstream": "one"}]}}
    (tmp_path / "serving.yaml").write_text(json.dumps(declared({"one": upstream("http://127.0.0.1:1/v1")}, routes)))
    done = cost(tmp_path, "--by", "project,day", "--plot", str(tmp_path / "cost.html"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "2026-01-02" in done.stdout
    assert (tmp_path / "cost.html").read_text().startswith("<!doctype html>")
    found = json.loads(cost(tmp_path, "--by", "model", "--json").stdout)
    assert (found["rows"][0]["model"], found["rows"][0]["usd"], found["total"]["usd"]) == ("large", 2.0, 15.0)
    ledger.close()
    (tmp_path / ".gatehouse/ledger.db").unlink()
    done = cost(tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith("there is no ledger yet; `make serve` begins one")
