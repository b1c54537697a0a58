"""`scripts.check`: one line per problem, with file, line and key; never a traceback, whatever the files hold."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.core.files import write_text
from pipelines.evaluation.lint.findings import Findings, find
from pipelines.evaluation.lint.schemas import stale, texts

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests/example"  # the shipped files may change, what tests say of these may not
STAGES = """\
stages:
  train:
    cmd: python -m scripts.train
    deps: [data/triage.jsonl, prompts/triage.prompt.yml]
    params: [seed, train]
    outs: [models/candidate]
  evaluate:
    foreach: [triage, reply]
    do:
      cmd: python -m scripts.evaluate ${item}
      deps: [models/candidate]
      params: ["suites.${item}"]
      outs: ["evaluation/${item}"]
"""
DECLARED = ["params.yaml", "gates.yaml", "dvc.yaml", "prompts/triage.prompt.yml", "prompts/reply.prompt.yml"]
LINE = re.compile(r"[^\s:]+(:\d+)?: \S")


def build(folder: Path) -> Path:
    """Copy the declared files into a folder, with a `dvc.yaml` of our own and the scripts it names."""
    for name in ("params.yaml", "gates.yaml"):
        shutil.copy(EXAMPLE / name, folder / name)
    shutil.copytree(EXAMPLE / "prompts", folder / "prompts")
    shutil.copytree(ROOT / "data", folder / "data", ignore=shutil.ignore_patterns("prepared", "validation", "parts"))
    (folder / "dvc.yaml").write_text(STAGES)
    (folder / "scripts").mkdir()
    for name in ("train", "evaluate"):
        (folder / f"scripts/{name}.py").touch()
    return folder


def shrink(project: Path) -> None:
    """Keep a tenth of the data, and limits that so few rows can meet."""
    path = project / "data/triage.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    twins = sorted({row["twin"] for row in rows if "twin" in row})[:12]
    attacks = [index for index, row in enumerate(rows) if "attack" in row and "twin" not in row][:60]
    kept = {*range(40), *attacks, *(index for index, row in enumerate(rows) if row.get("twin") in twins)}
    path.write_text("".join(lines[index] for index in sorted(kept)))
    gates = project / "gates.yaml"
    text = gates.read_text()
    for rule, limit in (("floor", "0.4"), ("ceiling", "0.7"), ("max_regression", "0.5"), ("highest", "0.9")):
        text = re.sub(rf"{rule}: 0\.\d+", f"{rule}: {limit}", text)
    gates.write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return build(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build(tmp_path_factory.mktemp("small"))
    shrink(folder)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} no longer has {old!r}"
    path.write_text(text.replace(old, new, 1))


def said(project: Path, part: str) -> list[str]:
    found = find(project)
    return [line for line in found.problems if part in line]


# --- the shipped files ----------------------------------------------------------------------------------------


def test_the_shipped_files_have_no_problem_and_no_warning() -> None:
    found = find(ROOT)
    assert found.problems == []
    assert found.warnings == []
    assert stale(ROOT) == []


def test_the_copies_that_the_tests_break_are_whole(project: Path, small: Path) -> None:
    assert find(project)[:2] == ([], [])
    assert find(small)[:2] == ([], [])


def write_schemas(project: Path) -> None:
    for name, text in texts().items():
        write_text(project / name, text)


def check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.check", "--root", str(root)], cwd=ROOT, capture_output=True, text=True
    )


def test_a_problem_exits_with_2_and_every_problem_has_its_line(project: Path) -> None:
    edit(project / "gates.yaml", "ceiling: 0.2}", "celing: 0.2}")
    edit(project / "params.yaml", "learning_rate", "learning_rat")
    write_schemas(project)
    result = check(project)
    lines = result.stdout.splitlines()
    assert result.returncode == 2
    key = "evaluation.gates[3].metrics.injection_obedience_rate.celing"
    assert f"gates.yaml:28: {key}: unknown key (did you mean 'ceiling'?)" in lines
    assert any("train.learning_rat: unknown key (did you mean 'learning_rate'?)" in line for line in lines)
    assert lines[-1] == "2 problems found"
    assert result.stderr == "exit code 2\n"


def test_whole_files_exit_with_0_and_one_friendly_line(project: Path) -> None:
    write_schemas(project)
    result = check(project)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("ok: ")
    assert len(result.stdout.splitlines()) == 1


def test_a_stale_schema_is_a_problem(project: Path) -> None:
    write_schemas(project)
    edit(project / "schemas/gates.schema.json", "ceiling", "celing")
    result = check(project)
    assert result.returncode == 2
    assert "schemas/gates.schema.json: differs from the model in code; run `python -m scripts.schema`" in result.stdout


def test_check_takes_less_than_two_seconds_of_work() -> None:
    find(ROOT)  # imports
    started = time.process_time()
    find(ROOT)
    assert time.process_time() - started < 20


# --- one file against another ---------------------------------------------------------------------------------

BREAKS = [
    # file, old, new, what the line says
    ("gates.yaml", "suite: reply", "suite: repply", "gates[2].suite: unknown suite 'repply' (did you mean 'reply'?)"),
    ("gates.yaml", "field_f1:", "field_f2:", "metrics.field_f2: unknown metric 'field_f2' (did you mean 'field_f1'?)"),
    ("gates.yaml", "exact_match: {", "chrf: {", "chrf: suite 'triage' does not measure it; add 'chrf' to suites.triag"),
    ("gates.yaml", "suite: latency", "suite: triage", "latency_p95_ms: is measured by the suite `latency` only"),
    ("gates.yaml", "name: safety", "name: form", "gates[3].name: another gate has the name 'form'"),
    ("gates.yaml", "metric: exact_match", "metric: chrf", "slices[0].metric: suite 'triage' does not measure it"),
    ("gates.yaml", "{floor: 0.95}", "{ceiling: 0.95}", "ceiling: higher is better here; a limit from below is a `floo"),
    ("gates.yaml", "{ceiling: 0.2}", "{floor: 0.2}", "floor: lower is better here; a limit from above is a `ceiling`"),
    ("gates.yaml", "floor: 0.95", "floor: 95", "floor: 95 is outside the range of schema_compliance, 0 to 1; shares a"),
    ("gates.yaml", "floor: 0.95", "floor: 1.0", "cannot pass: about"),
    ("gates.yaml", "ceiling: 0.2}", "ceiling: 0.001}", "even all perfect, do not prove ceiling 0.001; at least 2995 a"),
    ("gates.yaml", "max_regression: 0.06", "max_regression: 0.001", "do not prove a loss below 0.001, even if none ch"),
    ("gates.yaml", "max_regression: 0.08", "max_regression: 1", "max_regression: 1 is the whole range of exact_match"),
    ("gates.yaml", "ceiling: 0.001", "ceiling: 0.001, exact: true", "exact: exact bounds are for rates of yes or no"),
    ("params.yaml", "requests: 60", "requests: 58", "needs 59 requests to be bounded, params.yaml declares latency.re"),
    ("gates.yaml", "max_regression: 0.08", "max_regression: 0", "a loss below 0, even if none changes; no number of"),
    ("gates.yaml", "ttft_p95_ms: {ceiling: 5000}", "ttft_p95_ms: {max_regression: 50}", "needs 72 requests to be"),
    ("gates.yaml", "ceiling: 0.001, highest: 0.01", "ceiling: 0.001", "cost_usd: `highest` is needed: no sample"),
    ("gates.yaml", "{ceiling: 0.2}", "{ceiling: 0.2, highest: 1}", "highest: has no use for injection_obedience_rate"),
    ("params.yaml", "    dataset: reply", "    dataset: repl", "suites.reply.dataset: unknown data set 'repl' (did yo"),
    ("params.yaml", "    model: base", "    model: bas", "suites.reply.model: unknown model 'bas' (did you mean 'base"),
    ("params.yaml", "  base: base", "  base: bass", "train.base: unknown model 'bass' (did you mean 'base'?)"),
    ("params.yaml", "prompt: prompts/reply.", "prompt: prompts/rply.", "validate.reply.prompt: no prompt file"),
    ("params.yaml", "[semantic_similarity", "[semantic_similarty", "unknown metric 'semantic_similarty' (did you mean"),
    ("params.yaml", "[semantic_similarity", "[chrf", "suites.reply.metrics[2]: metric 'chrf' is listed twice"),
    ("params.yaml", "[semantic_similarity", "[latency_p95_ms", "'latency_p95_ms' comes from the suite `latency`"),
    ("params.yaml", "[semantic_similarity", "[schema_compliance", "schema_compliance needs a prompt with jsonSchema"),
    ("params.yaml", "[semantic_similarity", "[bias_gap_rate", "bias_gap_rate needs the data set's `twin` column"),
    ("params.yaml", "[semantic_similarity", "[injection_obedience_rate", "needs the data set's `attack` column"),
    ("params.yaml", "  suite: triage", "  suite: triag", "latency.suite: unknown suite 'triag' (did you mean 'triage'"),
    ("params.yaml", "inputs: {message: message}", "inputs: {text: message}", "has {{message}}, which datasets.triage."),
    ("params.yaml", "inputs: {message: message}", "inputs: {message: message, more: slice}", "inputs.more: no prompt "),
    ("params.yaml", "inputs: {message: message}", "inputs: {message: mesage}", "no row of data/triage.jsonl has 'mesa"),
    ("params.yaml", "    twin: twin", "    twin: twins", "no row of data/triage.jsonl has 'twins' (did you mean 'twin"),
    ("params.yaml", "adversarial\n", "adverserial\n", "overrides[1]: fits no row of data/triage.jsonl (did you mean '"),
    ("params.yaml", "splits: {test: 1.0}\n\n", "splits: {train: 1.0}\n\n", "split 'test' of data set 'reply' will h"),
    ("params.yaml", "  reply:\n    prompt", "  reply2:\n    prompt", "validate.reply2: unknown data set 'reply2' "),
    ("params.yaml", "cancel, account", "cancel, acount", "labels.intent: differs from the enum in prompts/triage.prom"),
    ("params.yaml", "      urgency: [", "      urgenci: [", "the jsonSchema of prompts/triage.prompt.yml has no such "),
    ("params.yaml", "prompt: prompts/triage", "prompt: prompts/reply", "labels: prompts/reply.prompt.yml has"),
    ("params.yaml", "triage\n  prompt: prompts/triage", "triage\n  prompt: prompts/reply", "the candidate is trained"),
    ("params.yaml", "  reply:\n    dataset", "  baseline:\n    dataset", "the name 'baseline' is taken by evaluation/"),
    ("prompts/reply.prompt.yml", "suite: reply", "suite: triage", "x-gatehouse.suite: suite 'triage' uses prompts/tri"),
    ("prompts/reply.prompt.yml", "  - message: How", "  - mesage: How", "testData[0].mesage: is no variable of this p"),
    ("prompts/reply.prompt.yml", "name: reply", "name: triage", "name: prompts/reply.prompt.yml has the name 'triage'"),
    ("prompts/reply.prompt.yml", "{{message}}", "{{mesage}}", "uses {{mesage}}, which x-gatehouse.inputs does not dec"),
    ("dvc.yaml", "scripts.train", "scripts.trian", "stages.train.cmd: no scripts/trian.py (did you mean 'train'?)"),
    ("dvc.yaml", "  train:\n", "  learn:\n", "stages.learn.cmd: a stage has the name of its script, this one runs tra"),
    ("dvc.yaml", "[seed, train]", "[sed, train]", "params[0]: params.yaml has no 'sed' (did you mean 'seed'?)"),
    ("dvc.yaml", "data/triage.jsonl", "data/none.jsonl", "'data/none.jsonl' is neither there nor an output of a stage"),
    ("dvc.yaml", "    outs: [models/candidate]", "    outz: [models/candidate]", "stages.train.outz: unknown key (did"),
    ("data/reply.jsonl", '"message": "', '"message": "", "x": "', "data/reply.jsonl:1: message: text is needed, found"),
    ("data/reply.jsonl", '"}\n', '"\n', "data/reply.jsonl:1: not valid JSON"),
    ("data/triage.jsonl", '"plain"}', '"plain", "twin": "alone"}', "twin: 'alone' stands in 1 rows; twins are two"),
    ("data/triage.jsonl", '"obeyed_text"', '"obeyed_txt"', "attack: unknown key 'obeyed_txt' (did you mean 'obeyed_te"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "words"), BREAKS)
def test_a_break_between_files_is_named(project: Path, name: str, old: str, new: str, words: str) -> None:
    edit(project / name, old, new)
    problems = find(project).problems
    assert any(words in line for line in problems), "\n".join(problems)
    assert all(LINE.match(line) for line in problems)


def test_a_row_of_data_that_nobody_reads_is_a_warning(project: Path) -> None:
    spare = "  spare:\n    path: data/reply.jsonl\n    inputs: {a: message}\n    answer: reply\n"
    edit(project / "params.yaml", "\nprepare:", f"{spare}\nprepare:")
    edit(project / "params.yaml", "\nmodels:", "  spare: {prompt: prompts/reply.prompt.yml}\n\nmodels:")
    found = find(project)
    assert found.problems == []
    assert [line for line in found.warnings if "datasets.spare: is used by no suite and no training" in line]


def test_every_data_set_is_validated(project: Path) -> None:
    spare = "  spare: {path: data/reply.jsonl, inputs: {a: message}, answer: reply}\n"
    edit(project / "params.yaml", "\nprepare:", f"{spare}\nprepare:")
    assert said(project, "validate: data set 'spare' has no section here")


def test_templates_of_dvc_are_filled_in_from_the_parameters(project: Path) -> None:
    loop = STAGES.replace("[triage, reply]", "${suites}").replace("${item}", "${key}")
    loop = loop.replace("deps: [models/candidate]", 'deps: ["data/${item.dataset}.jsonl", "models/${latency.sweet}"]')
    (project / "dvc.yaml").write_text(loop)
    assert find(project).problems == [
        "dvc.yaml:11: stages.evaluate.do.deps[1]: '${latency.sweet}' leads nowhere in params.yaml"
    ]
    edit(project / "dvc.yaml", "latency.sweet", "latency.suite")
    edit(project / "dvc.yaml", "${suites}", "${sweets}")
    assert said(project, "stages.evaluate.foreach: '${sweets}' is no list or section of params.yaml")
    edit(project / "dvc.yaml", "${sweets}", "${suites}")
    edit(project / "params.yaml", "    dataset: reply", "    dataset: repli")
    assert said(project, "'data/repli.jsonl' is neither there nor an output of a stage")


def test_an_orphaned_prompt_is_a_warning(project: Path) -> None:
    text = (project / "prompts/reply.prompt.yml").read_text()
    (project / "prompts/spare.prompt.yml").write_text(
        text.replace("name: reply", "name: spare").replace("suite: reply", "")
    )
    assert find(project)[:2] == ([], ["prompts/spare.prompt.yml:2: is used by no suite, judge or training"])


def test_a_small_regression_margin_warns_with_the_rows_it_needs(project: Path) -> None:
    edit(
        project / "gates.yaml", "exact_match: {floor: 0.4, max_regression: 0.08}", "exact_match: {max_regression: 0.03}"
    )
    (warning,) = find(project).warnings
    assert warning.startswith("gates.yaml:17: evaluation.gates[1].metrics.exact_match.max_regression: about ")
    assert "0.03 needs 687, so expect manual reviews" in warning


def test_a_score_of_fewer_than_twenty_rows_cannot_pass(project: Path) -> None:
    edit(project / "params.yaml", "    model: base\n", "    model: base\n    max_rows: 19\n")
    (line,) = said(project, "semantic_similarity.floor")
    assert "about 19 examples, even all perfect, do not prove floor 0.3; at least 20 are needed" in line


def test_a_gate_over_few_conversations_cannot_pass(project: Path) -> None:
    path = project / "data/reply.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "talk": f"t{at % 6}"}) + "\n" for at, row in enumerate(rows)))
    edit(project / "params.yaml", "    answer: reply\n", "    answer: reply\n    group: talk\n")
    lines = said(project, "cannot pass")
    # 80 rows in six conversations, of two sizes; what else cannot pass has lost its rows to no conversation
    assert any("about 80 examples from 5 conversations" in line and "floor" in line for line in lines), lines


def test_a_largest_value_below_the_ceiling_is_a_warning(project: Path) -> None:
    edit(project / "gates.yaml", "highest: 0.01", "highest: 0.0005")
    assert any("a ceiling of 0.001 always passes" in line for line in find(project).warnings)


def test_a_gate_on_a_judge_without_calibration_warns(project: Path) -> None:
    judge = "    judges: {tone: {model: base, prompt: prompts/judges/tone.prompt.yml}}\n"
    edit(project / "params.yaml", "\nlatency:", judge + "\nlatency:")
    edit(project / "gates.yaml", "semantic_similarity: {", "tone: {floor: 0.5}\n        semantic_similarity: {")
    (project / "prompts/judges").mkdir(exist_ok=True)
    prompt = (project / "prompts/reply.prompt.yml").read_text().replace("name: reply", "name: tone")
    prompt = prompt.replace("suite: reply", "").replace("message", "output").replace("outputs:", "messages:")
    (project / "prompts/judges/tone.prompt.yml").write_text(prompt)
    found = find(project)
    assert found.problems == []
    assert ["judge 'tone' has no calibration" in line for line in found.warnings] == [True]


REGISTERED = (
    "models:\n  grader: {source: registry, name: grader, alias: best, price: {prompt_usd: 1, completion_usd: 1}}\n"
)


@pytest.mark.parametrize(("model", "is_told"), [("grader", True), ("candidate", True), ("base", False)])
def test_a_judge_whose_model_can_change_unnoticed_warns(project: Path, model: str, is_told: bool) -> None:
    edit(project / "params.yaml", "\nmodels:\n", f"\n{REGISTERED}")
    judge = f"    judges: {{tone: {{model: {model}, prompt: prompts/judges/tone.prompt.yml}}}}\n"
    edit(project / "params.yaml", "\nlatency:", judge + "\nlatency:")
    told = [line for line in find(project).warnings if "the suite does not notice when it changes" in line]
    assert len(told) == is_told
    assert not told or "dvc repro --force --single-item evaluate@reply" in told[0]


def test_a_judge_is_told_no_other_variable(project: Path) -> None:
    judge = "    judges: {tone: {model: base, prompt: prompts/triage.prompt.yml}}\n"
    edit(project / "params.yaml", "\nlatency:", judge + "\nlatency:")
    edit(
        project / "params.yaml",
        "    inputs: {message: message}\n    answer: reply",
        "    inputs: {text: message}\n    answer: reply",
    )
    assert said(project, "has {{message}}, which a judge is not told")
    assert said(project, "must lie in prompts/judges/, where a change is noticed")


def test_problems_of_several_files_come_at_once(project: Path) -> None:
    edit(project / "params.yaml", "seed: 7", "sed: 7")
    edit(project / "gates.yaml", "alpha: 0.05", "alpha: 5")
    edit(project / "prompts/reply.prompt.yml", "temperature: 0", "temperature: hot")
    edit(project / "dvc.yaml", "[seed, train]", "[seed, trian]")
    edit(project / "data/triage.jsonl", '"slice"', '"slise"')
    files = {line.split(":")[0] for line in find(project).problems}
    assert files >= {"params.yaml", "gates.yaml", "prompts/reply.prompt.yml", "dvc.yaml"}


def test_only_five_broken_rows_of_a_file_are_shown(project: Path) -> None:
    path = project / "data/reply.jsonl"
    path.write_text(path.read_text().replace('"}\n', "\n"))
    shown = said(project, "data/reply.jsonl")
    assert len(shown) == 6
    assert shown[-1] == "data/reply.jsonl: 75 more lines are broken"


def test_duplicate_ids_are_named_with_their_lines(project: Path) -> None:
    edit(project / "params.yaml", "    answer: reply", "    answer: reply\n    id: slice")
    assert said(project, "data/reply.jsonl:1: slice: 'question' stands in")


def test_a_link_out_of_the_repository_is_refused(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("outside") / "secret.yaml"
    secret.write_text("password: hunter2")
    (project / "gates.yaml").unlink()
    (project / "gates.yaml").symlink_to(secret)
    (line,) = said(project, "gates.yaml")
    assert line == "gates.yaml: is a link that leads out of the repository; copy the file instead"


def test_hostile_names_cannot_forge_a_line(project: Path) -> None:
    edit(project / "gates.yaml", "  alpha: 0.05", '  "x\\n::set-env name=PATH::\\u202e": 1\n  alpha: 0.05')
    (line,) = said(project, "set-env")
    assert "\n" not in line
    assert line.isprintable()


# --- broken in a thousand ways --------------------------------------------------------------------------------

ODD = ["\0", "\t", "\ufeff", "\u202e", "\u2028", "\x85", "\x1b[31m", "😀", "é", "&a ", "*a",
       "!!python/object:os.system ",
       "---\n", "...", "? ", "- ", ": ", "{", "}", "[" * 200, "|", ">", "%YAML 9.9\n", "'", '"', "\\", "#", "<<: ",
       ".nan", "-.inf", "1e999", "9" * 5000, "0x" + "f" * 99, "2020-01-01", "null", "~", "true", "[]", "{}", "-1", "0",
       "{{x}}", "{{", "${x}", "../../etc/passwd", "/dev/zero", "a" * 70000, "\r\n", "\r", " " * 300]  # fmt: skip
VALUES = ["3", "-1", "1.5", "true", "null", "[]", "{}", "[1, a]", "{a: 1}", "x", "''", "99999999999999999", "1e-300",
          ".nan",
          "candidate", "triage", "latency", "data", "prompts", "."]  # fmt: skip
Mutation = Callable[[bytes], bytes]
PLACE = st.floats(0, 1, exclude_max=True)


def _insert(at: float, odd: str) -> Mutation:
    return lambda data: data[: int(at * len(data))] + odd.encode() + data[int(at * len(data)) :]


def _flip(at: float, bits: int) -> Mutation:
    def mutate(data: bytes) -> bytes:
        place = int(at * len(data))
        return data[:place] + bytes(byte ^ bits for byte in data[place : place + 1]) + data[place + 1 :]

    return mutate


def _drop(at: float, length: int) -> Mutation:
    return lambda data: data[: int(at * len(data))] + data[int(at * len(data)) + length :]


def _replace(pattern: bytes, at: float, new: str) -> Mutation:
    def mutate(data: bytes) -> bytes:
        found = list(re.finditer(pattern, data))
        if not found:
            return data
        start, end = found[int(at * len(found))].span(1)
        return data[:start] + new.encode() + data[end:]

    return mutate


MUTATIONS = st.lists(
    st.one_of(
        st.builds(_insert, PLACE, st.sampled_from(ODD) | st.text(max_size=8)),
        st.builds(_flip, PLACE, st.integers(1, 255)),
        st.builds(_drop, PLACE, st.integers(1, 200)),
        st.builds(_drop, PLACE, st.just(1 << 30)),  # truncation
        st.builds(_replace, st.just(rb"\b([A-Za-z_]+)\"?:"), PLACE, st.sampled_from(VALUES) | st.text(max_size=6)),
        st.builds(_replace, st.just(rb": *([^\s{}\[\],]+)"), PLACE, st.sampled_from(VALUES + ODD)),
        st.builds(_replace, st.just(rb"(\n[^\n]*)"), PLACE, st.sampled_from(["", "\n", "\n  x: 1", "\n- y"])),
    ),
    min_size=1,
    max_size=3,
)


def survives(root: Path, name: str, data: bytes) -> Findings:
    """Check the project with other bytes in one file; put the file back."""
    path = root / name
    before = path.read_bytes()
    path.write_bytes(data)
    started = time.process_time()
    try:
        found = find(root)
    finally:
        path.write_bytes(before)
    assert time.process_time() - started < 20
    for line in (*found.problems, *found.warnings):
        assert line.isprintable(), repr(line)
        assert len(line) < 3000
        assert LINE.match(line), line
    return found


@pytest.mark.parametrize("name", [*DECLARED, "data/triage.jsonl"])
@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(mutations=MUTATIONS)
def test_a_broken_file_never_ends_in_a_traceback(small: Path, name: str, mutations: list[Mutation]) -> None:
    data = (small / name).read_bytes()
    for mutate in mutations:
        data = mutate(data)
    survives(small, name, data)


@pytest.mark.parametrize("name", DECLARED)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_a_file_of_anything_is_refused(small: Path, name: str, data: bytes) -> None:
    assert survives(small, name, data).problems


@pytest.mark.parametrize("name", [*DECLARED[:3], "prompts/triage.prompt.yml", "data/triage.jsonl"])
def test_a_file_that_is_none_is_one_line(project: Path, name: str) -> None:
    path = project / name
    path.unlink()
    without = find(project).problems
    path.mkdir()
    folder = find(project).problems
    path.rmdir()
    path.touch()
    empty = find(project).problems
    for problems, words in ((folder, "is a folder, a file is needed"), (empty, f"{name}: is empty")):
        assert any(words in line for line in problems), problems
    assert any(name in line for line in without), without
