"""One sum per endpoint and day, whoever spends it."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.params import EndpointModel, Price
from pipelines.llm.client import Client
from pipelines.llm.cost import cost_usd
from pipelines.llm.spending import Ledger
from tests.llm.endpoint import Reply, StandIn
from tests.llm.test_client import DEAR, declared, question

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_clients_one_after_the_other_share_one_limit(tmp_path: Path) -> None:
    scored = 0
    with StandIn.of(Reply("word", usage=(90, 16))) as server:
        endpoint = declared(server, price=DEAR, max_spend_usd=1.0)
        for start in range(0, 40, 8):  # a suite, its judge, the timing, the same command again
            with Client(endpoint, cache=None, ledger=Ledger.of(endpoint, tmp_path)) as client:
                answers = client.answer([question(f"question {start + number:03}") for number in range(8)])
            scored += sum(answer.state == "scored" for answer in answers)
        assert sum(cost_usd(DEAR, *counts) for counts in server.billed) <= 1.0
    assert scored == len(server.billed) == 7
    assert "spent today (UTC)" in client.notes[0]
    assert Ledger.of(endpoint, tmp_path).today_usd() == pytest.approx(7 * 0.122)


def test_another_name_for_the_same_endpoint_shares_its_sum_and_another_model_does_not(tmp_path: Path) -> None:
    one = EndpointModel(
        source="endpoint", base_url="http://x/v1", model="m", price=Price(prompt_usd=1, completion_usd=1)
    )
    same = one.model_copy(update={"base_url": "http://x/v1/", "max_spend_usd": 9.0})
    other = one.model_copy(update={"model": "n"})
    assert Ledger.of(one, tmp_path).take(0.5, 1.0)
    assert Ledger.of(same, tmp_path).today_usd() == 0.5
    assert Ledger.of(other, tmp_path).today_usd() == 0.0


def test_the_sum_begins_anew_the_next_day(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "one.json")
    assert ledger.take(1.0, 1.0)
    assert not ledger.take(0.01, 1.0)
    value = json.loads(ledger.path.read_text())
    yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    ledger.path.write_text(json.dumps(value | {"day": yesterday.isoformat()}))
    assert ledger.take(0.01, 1.0)


def test_what_a_killed_process_held_stays_booked(tmp_path: Path) -> None:
    body = f"""
        import os, signal
        from pathlib import Path
        from pipelines.llm.cost import Budget
        from pipelines.llm.spending import Ledger
        budget = Budget(1.0, Ledger(Path({str(tmp_path / "one.json")!r})))
        assert budget.reserve(0.3)
        budget.settle(0.3, 0.1)
        assert budget.reserve(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(body)], cwd=ROOT, env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert Ledger(tmp_path / "one.json").today_usd() == pytest.approx(0.4)


def test_processes_at_once_never_book_more_than_the_limit(tmp_path: Path) -> None:
    body = f"""
        from pathlib import Path
        from pipelines.llm.spending import Ledger
        ledger = Ledger(Path({str(tmp_path / "one.json")!r}))
        print(sum(ledger.take(0.01, 1.0) for _ in range(100)))
    """
    command = [sys.executable, "-c", textwrap.dedent(body)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    booked = sum(int(process.communicate()[0]) for process in started)
    assert booked in (99, 100)  # a hundred times a hundredth is a little more than one
    assert Ledger(tmp_path / "one.json").today_usd() <= 1.0


@pytest.mark.parametrize("text", ["{", "[]", '{"day": "2026-01-01", "usd": -1}', '{"day": "2026-01-01", "usd": NaN}'])
def test_a_broken_ledger_is_one_line_and_no_fresh_limit(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(ConfigError, match=r"one\.json: is not what was written there.*delete it"):
        Ledger(tmp_path / "one.json").take(0.1, 1.0)
