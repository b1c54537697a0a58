import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.files import write_json
from pipelines.evaluation.catalogue import LATENCY_METRICS, METRICS
from pipelines.evaluation.results import Results, read_results
from pipelines.evaluation.row_table import ids_digest, write_rows
from tests.evaluation.evidence import NAN, names, right, run_record, write_suite

WANTED = {name: METRICS[name] for name in ("exact_match", "bias_gap_rate", "cost_usd")}
TIMED = {name: METRICS[name] for name in LATENCY_METRICS}


def read(folder: Path) -> Results:
    return read_results(folder, WANTED)


def test_null_does_not_apply_and_nan_is_missing(tmp_path: Path) -> None:
    states = ["scored", "scored", "infra_error"]
    write_suite(tmp_path, {"state": states, "exact_match": [1.0, 0.0, NAN], "bias_gap_rate": [None, 1.0, NAN]})
    column = read(tmp_path).columns["bias_gap_rate"]
    assert column.applies.tolist() == [False, True, True]
    assert np.isnan(column.values).tolist() == [True, False, True]
    assert column.values[1] == 1.0


def test_what_a_failed_request_did_not_measure_is_missing_even_if_written_as_null(tmp_path: Path) -> None:
    write_suite(tmp_path, {"state": ["scored", "infra_error"], "exact_match": [1.0, None]})
    column = read(tmp_path).columns["exact_match"]
    assert column.applies.tolist() == [True, True]
    assert math.isnan(column.values[1])


def test_a_latency_of_a_failed_request_is_missing_and_an_untimed_one_does_not_apply(tmp_path: Path) -> None:
    states = ["scored", "scored", "infra_error"]
    write_suite(tmp_path, {"state": states, "latency_ms": [10.0, None, None], "ttft_ms": [1.0, 2.0, NAN]})
    column = read_results(tmp_path, TIMED).columns["latency_p95_ms"]
    assert column.applies.tolist() == [True, False, True]


def test_a_metric_without_a_column_is_left_out(tmp_path: Path) -> None:
    write_suite(tmp_path, {"exact_match": [1.0]})
    assert list(read(tmp_path).columns) == ["exact_match"]


def test_rows_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    write_suite(tmp_path, {"id": ["c", "a", "b"], "exact_match": [1.0, 0.0, 1.0], "slice": ["x", "y", "z"]})
    results = read(tmp_path)
    assert results.ids.tolist() == ["a", "b", "c"]
    assert results.slices.tolist() == ["y", "z", "x"]
    assert results.columns["exact_match"].values.tolist() == [0.0, 1.0, 1.0]


def test_repeats_are_averaged_inside_the_row(tmp_path: Path) -> None:
    write_suite(tmp_path, {"id": ["a", "b"] * 2, "repeat": [0, 0, 1, 1], "exact_match": [1.0, 1.0, 0.0, 1.0]})
    assert read(tmp_path).columns["exact_match"].values.tolist() == [0.5, 1.0]


def test_a_row_with_a_missing_repeat_is_missing(tmp_path: Path) -> None:
    columns = {
        "id": ["a", "b", "c", "a", "b"],
        "repeat": [0, 0, 0, 1, 1],
        "state": ["scored"] * 4 + ["infra_error"],
        "exact_match": [1.0, 1.0, 1.0, 0.0, NAN],
    }
    write_suite(tmp_path, columns)
    values = read(tmp_path).columns["exact_match"].values
    assert values[0] == 0.5
    assert np.isnan(values[1:]).all()


def test_rows_of_one_conversation_and_twins_are_clusters(tmp_path: Path) -> None:
    columns = {"exact_match": [1.0] * 5, "group": ["g", "g", None, None, None], "twin": [None, "t", "t", "t", None]}
    write_suite(tmp_path, columns)
    clusters = read(tmp_path).clusters
    assert clusters is not None
    assert (clusters[0] == clusters[1], clusters[2] == clusters[3]) == (True, True)
    assert len(set(clusters.tolist())) == 3


def test_rows_that_stand_alone_are_no_clusters(tmp_path: Path) -> None:
    write_suite(tmp_path, {"exact_match": [1.0] * 3, "group": ["a", "b", None]})
    assert read(tmp_path).clusters is None


def test_a_twins_gap_may_be_missing_because_the_other_twin_failed(tmp_path: Path) -> None:
    columns = {
        "state": ["scored", "infra_error"],
        "twin": ["t", "t"],
        "exact_match": [1.0, NAN],
        "bias_gap_rate": [NAN, None],
    }
    write_suite(tmp_path, columns)
    assert read(tmp_path).columns["bias_gap_rate"].applies.tolist() == [True, False]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"exact_match": [1.0, NAN]}, "row 0000000000000001: exact_match: found NaN"),
        ({"exact_match": [1.0, None]}, "row 0000000000000001: exact_match: found null"),
        ({"exact_match": [1.0, math.inf]}, "row 0000000000000001: exact_match: found inf"),
        ({"exact_match": [0.5, 1.0]}, "row 0000000000000000: exact_match: found 0.5, needed is 0 or 1"),
        ({"exact_match": [1.0, 2.0]}, "exact_match: found 2, needed is a number from 0 to 1"),
        ({"cost_usd": [-1.0, 1.0]}, "cost_usd: found -1, needed is a finite number of at least 0"),
        ({"exact_match": [1.0, 1.0], "state": ["scored", "fine"]}, "row 0000000000000001: state: found 'fine'"),
        ({"exact_match": [1.0, 1.0], "state": ["scored", None]}, "row 0000000000000001: state: found ''"),
        ({"exact_match": [1.0, 1.0], "id": ["a", "a"]}, "id a, repeat 0: stands there twice"),
        ({"exact_match": [1.0, 1.0], "id": ["a", ""]}, "has no id"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_file_row_and_column(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    write_suite(tmp_path, columns)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'rows.parquet'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_that_are_not_parquet_are_one_clear_line(tmp_path: Path) -> None:
    write_suite(tmp_path, {"exact_match": [1.0]})
    whole = (tmp_path / "rows.parquet").read_bytes()
    for broken in (b"", b"PAR1", whole[:-20], b"x" * 500):
        (tmp_path / "rows.parquet").write_bytes(broken)
        with pytest.raises(ConfigError, match="not a readable Parquet file") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_metric_of_words_is_refused(tmp_path: Path) -> None:
    write_suite(tmp_path, {"exact_match": [1.0]})
    pq.write_table(pa.table({"id": ["a"], "state": ["scored"], "exact_match": ["good"]}), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match="column 'exact_match' holds string"):
        read(tmp_path)


def test_a_missing_column_or_file_or_key_is_named(tmp_path: Path) -> None:
    write_suite(tmp_path, {"exact_match": [1.0]})
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match="column 'state' is missing"):
        read(tmp_path)
    (tmp_path / "rows.parquet").unlink()
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path)
    write_json(tmp_path / "run.json", {"model": {"digest": "d"}})
    with pytest.raises(ConfigError, match=r"run\.json: dataset: field required"):
        read(tmp_path)


def test_rows_of_a_later_layout_are_refused(tmp_path: Path) -> None:
    write_suite(tmp_path, {"exact_match": [1.0]})
    table = pq.read_table(tmp_path / "rows.parquet").replace_schema_metadata({"schema_version": "2"})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match="schema_version"):
        read(tmp_path)


def test_rows_know_whether_they_are_the_data_sets(tmp_path: Path) -> None:
    write_suite(tmp_path, {"exact_match": [1.0, 1.0]})
    assert read(tmp_path).is_whole
    write_json(tmp_path / "run.json", run_record(names(3)))
    assert not read(tmp_path).is_whole


def test_a_data_sets_digest_knows_no_order_and_no_repeats() -> None:
    assert ids_digest(["b", "a"]) == ids_digest(["a", "b", "a"]) != ids_digest(["a"])


def test_an_answer_with_half_a_character_is_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", {"id": ["a"], "output": ["x\ud800"], "exact_match": [None]})
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table["output"].to_pylist() == ["x?"]
    assert table["exact_match"].to_pylist() == [None]
    assert table.schema.metadata == {b"schema_version": b"1"}


def test_no_rows_at_all_are_read_as_no_rows(tmp_path: Path) -> None:
    write_suite(tmp_path, {"id": [], "exact_match": []})
    results = read(tmp_path)
    assert len(results.ids) == 0
    assert not results.columns["exact_match"].applies.any()


def test_a_column_of_nothing_but_nulls_applies_to_no_row(tmp_path: Path) -> None:
    write_suite(tmp_path, {"exact_match": [1.0, 0.0]})
    table = pa.table({"id": names(2), "state": ["scored"] * 2, "bias_gap_rate": pa.nulls(2)})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert read(tmp_path).columns["bias_gap_rate"].applies.tolist() == [False, False]


def test_rows_spread_over_many_row_groups_are_read_in_order(tmp_path: Path) -> None:
    write_suite(tmp_path, {"exact_match": right(30, 100)})
    pq.write_table(pq.read_table(tmp_path / "rows.parquet"), tmp_path / "rows.parquet", row_group_size=7)
    assert read(tmp_path).columns["exact_match"].values.tolist() == right(30, 100)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("slice", pa.array([["a"], ["b"]])),
        ("twin", pa.array([{"of": "a"}, {"of": "b"}])),
        ("id", pa.array([b"\xff\xfe", b"b"])),
        ("group", pa.array([b"\xff\xfe", b"b"])),
        ("repeat", pa.array([[0], [1]])),
    ],
    ids=["a list", "a struct", "bytes as id", "bytes", "a list as repeat"],
)
def test_a_column_that_holds_no_text_is_one_line(tmp_path: Path, name: str, column: pa.Array) -> None:
    write_suite(tmp_path, {"id": ["a", "a"] if name == "repeat" else ["a", "b"], "exact_match": [1.0, 0.0]})
    path = tmp_path / "rows.parquet"
    table = pq.read_table(path)
    table = table.drop_columns([name]) if name in table.column_names else table
    pq.write_table(table.append_column(name, column), path)
    with pytest.raises(ConfigError, match=rf"rows\.parquet: column '{name}' holds .* no text in UTF-8; evaluate again"):
        read(tmp_path)


def test_a_text_column_of_bytes_that_are_not_utf_8_is_one_line(tmp_path: Path) -> None:
    write_suite(tmp_path, {"id": ["a", "b"], "exact_match": [1.0, 0.0]})
    path = tmp_path / "rows.parquet"
    table = pq.read_table(path)
    broken = pa.array([b"\xff\xfe", b"b"]).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("id"), "id", broken), path)
    with pytest.raises(ConfigError, match=r"column 'id' holds string that is no text"):
        read(tmp_path)
