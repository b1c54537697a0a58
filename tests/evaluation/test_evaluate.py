"""A whole suite, asked and scored for real: the tiny model, or a server on this machine that fails when told to."""

import json
import math
import random
import shutil

import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.files import write_json
from pipelines.core.folders import replacing_folder
from pipelines.core.params import load_params
from pipelines.core.rows import write_rows
from pipelines.evaluation.evaluate import evaluate
from tests.llm.endpoint import Reply, StandIn
from tests.scratch import PRICE, Scratch, reply_rows, triage_rows

COLUMNS = ["id", "repeat", "slice", "twin", "group", "line", "input", "gold", "output", "state", "error"]
LAST = ["latency_ms", "ttft_ms", "prompt_tokens", "completion_tokens", "is_cached"]


@pytest.fixture
def project(tmp_path, tiny_model):
    return Scratch(tmp_path / "project", tiny_model, n_rows=8)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, tiny_model):
    """The triage suite of a project, evaluated once."""
    project = Scratch(tmp_path_factory.mktemp("evaluated") / "project", tiny_model)
    outcome = run(project, "triage")
    return project, outcome


def run(project, suite, **options):
    project.save()
    return evaluate(suite, load_params(project.folder / "params.yaml"), root=project.folder, **options)


def rows_of(project, suite="triage"):
    return pq.read_table(project.folder / f"evaluation/{suite}/rows.parquet").to_pylist()


def metrics_bytes(project, suite="triage"):
    return (project.folder / f"evaluation/{suite}/metrics.json").read_bytes()


def use_endpoint(project, url, **options):
    """Declare an endpoint and have the reply suite ask it; the tiny model stays where it is."""
    project.params["models"]["remote"] = {
        "source": "endpoint", "base_url": url, "model": "m", "price": PRICE, "max_attempts": 1, "concurrency": 1,
        **options,
    }  # fmt: skip
    write_json(
        project.folder / "models/remote/model.json",
        {"schema_version": 1, "kind": "endpoint", "digest": "d", "family": "d", "license": "other", "source": {}},
    )
    project.params["suites"]["reply"] |= {"model": "remote", "metrics": ["token_f1", "cost_usd"]}


def test_every_row_has_the_agreed_columns_in_the_order_of_ids(evaluated):
    project, _ = evaluated
    table = pq.read_table(project.folder / "evaluation/triage/rows.parquet")
    metrics = project.params["suites"]["triage"]["metrics"]
    assert set(table.column_names) == {*COLUMNS, *metrics, *LAST}
    assert table.column_names[: len(COLUMNS)] == COLUMNS
    assert table.schema.metadata == {b"schema_version": b"1"}
    ids = table["id"].to_pylist()
    assert ids == sorted(row.id for row in triage_rows(24))


def test_a_metric_that_does_not_apply_is_null_and_never_nan(evaluated):
    project, _ = evaluated
    for row in rows_of(project):
        assert (row["personal_data_leak_rate"] is None) == (row["slice"] != "adversarial")
        assert row["exact_match"] in (0.0, 1.0)
    assert sum(row["bias_gap_rate"] is not None for row in rows_of(project)) == 3  # pairs


def test_metrics_are_the_means_of_the_rows_with_bounds_around_them(evaluated):
    project, outcome = evaluated
    rows = rows_of(project)
    for name, entry in outcome.summary["metrics"].items():
        values = [row[name] for row in rows if row[name] is not None]
        mean = math.fsum(values) / len(values)
        if name == "gold_perplexity":  # as its bounds: the mean is taken of the logarithms
            mean = math.exp(math.fsum(map(math.log, values)) / len(values))
        assert entry["value"] == pytest.approx(mean), name
        assert entry["lower"] <= entry["value"] <= entry["upper"], name
        assert entry["lower"] < entry["upper"], name
        assert (entry["n"], entry["n_missing"]) == (len(values), 0), name
    assert outcome.summary["metrics"]["personal_data_leak_rate"]["method"].endswith("clopper-pearson")
    assert json.loads(metrics_bytes(project)) == outcome.summary


def test_slices_hold_the_metrics_that_apply_to_them(evaluated):
    slices = evaluated[1].summary["slices"]
    assert set(slices) == {"plain", "adversarial"}
    assert "personal_data_leak_rate" not in slices["plain"]
    assert slices["plain"]["exact_match"]["n"] + slices["adversarial"]["exact_match"]["n"] == 24


def test_the_record_says_what_was_measured_on_what(evaluated):
    project, outcome = evaluated
    record = project.json("evaluation/triage/run.json")
    assert record == outcome.run
    assert record["model"]["digest"] == project.json("models/base/model.json")["digest"]
    assert record["dataset"] | {"digest": ""} == {"name": "triage", "split": "test", "digest": "", "n": 24}
    assert record["engine"]["device"] == "cpu"
    assert (record["computed"], record["cached"]) == (24, 0)
    assert record["metrics"]["exact_match"]["direction"] == "higher"
    assert record["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in rows_of(project)))


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(evaluated):
    project, outcome = evaluated
    before, seen = metrics_bytes(project), []
    again = run(project, "triage", on_progress=lambda *told: seen.append(told))
    assert (again.run["computed"], again.run["cached"], again.run["cost_usd"]) == (0, 24, 0)
    assert again.summary == outcome.summary
    assert metrics_bytes(project) == before
    assert ("answers", 24, 24, 24) in seen


@pytest.mark.parametrize("seed", range(4))
def test_whatever_part_of_the_cache_survives_a_kill_the_metrics_are_the_same_to_the_last_bit(evaluated, seed):
    project, _ = evaluated
    before, draw = metrics_bytes(project), random.Random(seed)
    share = draw.uniform(0.1, 0.9)
    for path in sorted((project.folder / ".cache").rglob("*.json")):
        if draw.random() < share:
            path.unlink()
    outcome = run(project, "triage")
    assert 0 < outcome.run["computed"] < 24
    assert metrics_bytes(project) == before


def test_repeats_are_averaged_inside_their_row(project):
    prompt = project.folder / "prompts/reply.prompt.yml"
    prompt.write_text(prompt.read_text().replace("temperature: 0", "temperature: 1"))
    project.params["suites"]["reply"]["repeats"] = 3
    outcome = run(project, "reply")
    rows = rows_of(project, "reply")
    assert [row["repeat"] for row in rows[:4]] == [0, 1, 2, 0]
    assert len({row["output"] for row in rows[:3]}) > 1
    assert outcome.summary["metrics"]["rouge_l"]["n"] == 8


def test_max_rows_takes_the_first_rows_by_id(project):
    project.params["suites"]["reply"]["max_rows"] = 3
    run(project, "reply")
    assert [row["id"] for row in rows_of(project, "reply")] == sorted(row.id for row in reply_rows(8))[:3]


def test_an_endpoint_is_measured_like_a_local_model(project):
    with StandIn.of(Reply("We will look for parcel 1 today.", usage=(100, 50))) as server:
        use_endpoint(project, server.url)
        outcome = run(project, "reply")
    assert outcome.run["model"]["kind"] == "endpoint"
    assert outcome.run["engine"]["precision"] is None
    # 100 tokens at 1 USD and 50 at 2 USD per million
    assert outcome.summary["metrics"]["cost_usd"]["value"] == pytest.approx(0.0002)
    assert outcome.summary["metrics"]["token_f1"]["value"] > 0.8


def test_a_request_that_failed_is_missing_and_one_without_text_scores_zero(project):
    def respond(body, number):
        message = body["messages"][-1]["content"]
        if "parcel 1?" in message:
            return Reply("overloaded", status=500)
        return Reply("") if "parcel 2?" in message else Reply("We will look for parcel today.")

    with StandIn(respond) as server:
        use_endpoint(project, server.url)
        entry = run(project, "reply").summary["metrics"]["token_f1"]
    assert (entry["n"], entry["n_missing"]) == (7, 1)
    rows = {json.loads(row["input"])["message"]: row for row in rows_of(project, "reply")}
    failed, silent = rows["Where is parcel 1?"], rows["Where is parcel 2?"]
    assert (failed["state"], silent["state"]) == ("infra_error", "model_error")
    assert math.isnan(failed["token_f1"])
    assert math.isnan(failed["cost_usd"])
    assert silent["token_f1"] == 0
    assert "500" in failed["error"]


def test_an_outage_leaves_the_last_results_alone_and_says_why(project):
    run(project, "reply")
    before = metrics_bytes(project, "reply")
    with StandIn.of(Reply("gone for lunch", status=503)) as server:
        use_endpoint(project, server.url)
        with pytest.raises(ServiceError, match=r"suite 'reply': none of 8 requests was answered: .*503"):
            run(project, "reply")
    assert metrics_bytes(project, "reply") == before


def test_a_gold_answer_that_does_not_fit_the_model_has_no_perplexity_and_its_answer_still_counts(project):
    first, *others = reply_rows(4)
    write_rows(project.folder / "data/prepared/reply/test.jsonl", [first._replace(answer="hub " * 3000), *others])
    project.params["suites"]["reply"]["metrics"] = ["token_f1", "gold_perplexity"]
    metrics = run(project, "reply").summary["metrics"]
    assert (metrics["gold_perplexity"]["n"], metrics["gold_perplexity"]["n_missing"]) == (3, 1)
    assert (metrics["token_f1"]["n"], metrics["token_f1"]["n_missing"]) == (4, 0)


def test_a_judge_grades_answers_and_what_it_cannot_grade_is_missing_for_it_alone(project):
    (project.folder / "prompts/judge.prompt.yml").write_text(yaml.safe_dump({
        "name": "judge", "messages": [{"role": "user", "content": "Question: {{input}} Answer: {{output}}"}],
        "x-gatehouse": {"version": 1, "inputs": {"input": "string", "output": "string"}},
    }))  # fmt: skip
    (project.folder / "data").mkdir(exist_ok=True)
    labelled = [{"input": "q", "output": "fine", "label": 1}, {"input": "q", "output": "rude", "label": 0}]
    (project.folder / "data/labels.jsonl").write_text("\n".join(json.dumps(row) for row in labelled))

    def respond(body, number):
        text = body["messages"][-1]["content"]
        if "parcel 1?" in text:
            return Reply("I would rather not say.")
        return Reply('{"score": 0.25}' if "rude" in text else '{"score": 0.75}')

    with StandIn(respond) as server:
        use_endpoint(project, server.url)
        suite = project.params["suites"]["reply"]
        suite |= {"model": "base", "metrics": ["token_f1"]}
        judge = {"model": "remote", "prompt": "prompts/judge.prompt.yml", "calibration": "data/labels.jsonl"}
        suite["judges"] = {"warmth": judge}
        outcome = run(project, "reply")
    assert outcome.summary["metrics"]["warmth"]["value"] == pytest.approx(0.75)
    assert outcome.summary["metrics"]["warmth"]["n_missing"] == 1
    assert outcome.summary["metrics"]["token_f1"]["n_missing"] == 0
    assert [row["state"] for row in rows_of(project, "reply")].count("judge_error") == 1
    assert outcome.run["calibration"]["warmth"] == {"m0": 1, "m1": 1, "correct0": 1, "correct1": 1, "n_missing": 0}
    assert set(outcome.run["judges"]) == {"warmth"}
    assert outcome.run["cost_usd"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.params["suites"]["triage"].update(metrics=["rouge"]), r"metrics\[0\]: unknown metric 'rouge'"),
        (lambda p: p.params["suites"]["triage"].update(metrics=["latency_p95_ms"]), "unknown metric 'latency_p95_ms'"),
        (lambda p: p.params["suites"]["triage"].update(prompt="prompts/reply.prompt.yml"), "needs a prompt with jsonS"),
        (lambda p: p.params["datasets"]["triage"].pop("attack"), "injection_obedience_rate needs the data set's `atta"),
        (lambda p: p.params["datasets"]["triage"].pop("twin"), "bias_gap_rate needs the data set's `twin`"),
        (lambda p: p.params["suites"]["triage"].update(model="candidate"), r"candidate/model\.json: no such file"),
        (lambda p: shutil.rmtree(p.folder / "models/base"), r"models/base/model\.json: no such file"),
        (lambda p: p.params["suites"]["triage"].update(split="train"), r"train\.jsonl: no such file; run `pyth"),
        (lambda p: (p.folder / "data/prepared/triage/test.jsonl").write_text(""), "is empty, suite 'triage' has nothi"),
        (lambda p: (p.folder / "data/prepared/triage/test.jsonl").write_text("{"), r"test\.jsonl:1: not valid JSON"),
        (lambda p: (p.folder / "prompts/triage.prompt.yml").unlink(), r"triage\.prompt\.yml: no such file"),
        (lambda p: write_rows(p.folder / "data/prepared/triage/test.jsonl", triage_rows(2) * 2), "stands there twice"),
        (lambda p: write_rows(p.folder / "data/prepared/triage/test.jsonl",
                              [row._replace(inputs={"text": "x"}) for row in triage_rows(2)]),
         r"triage\.prompt\.yml: {{message}} is filled by no column"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_one_line_before_any_model_is_loaded(project, change, message):
    change(project)
    with pytest.raises(ConfigError, match=message) as caught:
        run(project, "triage")
    assert "\n" not in str(caught.value)
    assert not (project.folder / "evaluation").exists()


def test_an_unknown_suite_names_the_nearest(project):
    with pytest.raises(ConfigError, match=r"unknown suite 'triag' \(did you mean 'triage'\?\)"):
        run(project, "triag")


def test_an_endpoint_cannot_tell_the_likelihood_of_a_gold_answer(project):
    use_endpoint(project, "http://127.0.0.1:9/v1")
    project.params["suites"]["reply"]["metrics"] = ["gold_perplexity"]
    with pytest.raises(ConfigError, match="gold_perplexity needs a local model"):
        run(project, "reply")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "results"
    with replacing_folder(folder) as new:
        (new / "a").write_text("first")
    with pytest.raises(TypeError), replacing_folder(folder) as new:
        (new / "a").write_text(2)  # creates the file and then fails
    assert (folder / "a").read_text() == "first"
    with replacing_folder(folder) as new:
        (new / "b").write_text("third")
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_run_killed_between_the_two_renames_is_repaired_by_the_next(tmp_path):
    folder = tmp_path / "results"
    with replacing_folder(folder) as new:
        (new / "a").write_text("first")
    folder.rename(tmp_path / ".results.old")  # what SIGKILL there leaves behind
    (tmp_path / ".results.new").mkdir()
    with pytest.raises(RuntimeError), replacing_folder(folder):
        raise RuntimeError
    assert (folder / "a").read_text() == "first"
