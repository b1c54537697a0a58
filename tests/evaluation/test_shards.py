"""Several runners answer one suite: together exactly what one would have answered, each batch once and whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError
from pipelines.evaluation.shards import parse_shard
from pipelines.llm.answers import Shard
from tests.scratch import Scratch

# Where an answer came from is no part of the answer.
OWN = {"is_cached", "latency_ms", "ttft_ms"}


def columns(project: Scratch, suite: str) -> dict[str, list[object]]:
    table = pq.read_table(project.folder / "evaluation" / suite / "rows.parquet")
    # As text, since NaN is not equal to itself; repr keeps every bit of a float.
    return {name: [repr(value) for value in table[name].to_pylist()] for name in table.column_names if name not in OWN}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Scratch:
    project = Scratch(tmp_path_factory.mktemp("alone") / "project", tiny_model, n_rows=60)
    result = project.run("evaluate", "--suite", "triage")
    assert result.returncode == 0, result.stderr
    return project


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[Scratch]:
    found = []
    for number in (1, 2, 3):
        project = Scratch(tmp_path_factory.mktemp("shard") / "project", tiny_model, n_rows=60)
        result = project.run("evaluate", "--suite", "triage", "--shard", f"{number}/3")
        assert result.returncode == 0, result.stderr
        assert not (project.folder / "evaluation").exists()
        found.append(project)
    return found


def answers(project: Scratch) -> set[str]:
    return {path.name for path in (project.folder / ".cache/answers").glob("*/*.json")}


def merged(folder: Path, model: Path, parts: list[Scratch]) -> Scratch:
    project = Scratch(folder, model, n_rows=60)
    for part in parts:
        shutil.copytree(part.folder / ".cache", folder / ".cache", dirs_exist_ok=True)
    return project


@pytest.mark.slow
def test_three_shards_hold_what_one_runner_answers_and_each_answer_once(alone: Scratch, shards: list[Scratch]) -> None:
    parts = [answers(shard) for shard in shards]
    assert all(parts), "a runner has nothing to do"
    assert set.union(*parts) == answers(alone)
    assert sum(map(len, parts)) == len(answers(alone))


@pytest.mark.slow
def test_merged_shards_give_the_rows_of_one_runner_and_compute_nothing(
    tmp_path: Path, tiny_model: Path, alone: Scratch, shards: list[Scratch]
) -> None:
    project = merged(tmp_path / "merged", tiny_model, shards)
    result = project.run("evaluate", "--suite", "triage")
    assert result.returncode == 0, result.stderr
    assert "computed 0, cached 60" in result.stdout
    assert columns(project, "triage") == columns(alone, "triage")
    assert project.json("evaluation/triage/metrics.json") == alone.json("evaluation/triage/metrics.json")


@pytest.mark.slow
def test_a_lost_shard_is_computed_by_the_one_who_merges_with_the_same_rows(
    tmp_path: Path, tiny_model: Path, alone: Scratch, shards: list[Scratch]
) -> None:
    project = merged(tmp_path / "merged", tiny_model, shards[:2])
    result = project.run("evaluate", "--suite", "triage")
    assert result.returncode == 0, result.stderr
    assert "computed 0" not in result.stdout
    assert columns(project, "triage") == columns(alone, "triage")


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "1/3/5", "a/b", "-1/3", "1 /3", "\u0661/3", ""])
def test_a_share_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="1/3, 2/3 or 3/3 is needed"):
        parse_shard(text)


@given(
    batches=st.lists(st.lists(st.text(alphabet="0123456789abcdef", min_size=4), min_size=1), unique_by=tuple),
    of=st.integers(1, 7),
)
def test_every_batch_belongs_to_exactly_one_runner_and_no_runner_gets_more_than_one_beyond_another(
    batches: list[list[str]], of: int
) -> None:
    batches = [[f"{at}-{key}" for key in batch] for at, batch in enumerate(batches)]  # a key is in one batch only
    owned = [Shard(number, of).keys(batches) for number in range(1, of + 1)]
    for batch in batches:
        assert sum(set(batch) <= keys for keys in owned) == 1
        assert sum(bool(set(batch) & keys) for keys in owned) == 1
    counts = [sum(set(batch) <= keys for batch in batches) for keys in owned]
    assert max(counts) - min(counts) <= 1
    assert [Shard(number, of).keys(batches[::-1]) for number in range(1, of + 1)] == owned
