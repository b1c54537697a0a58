"""Every action says what it takes, runs one script of this repository, and refuses what is wrong in one clear line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import caller
from tests.act.template import lay_out
from tests.imports import imported_files
from tests.scripts.test_gate import project as evaluated

ROOT = Path(__file__).parent.parent
VERBS = sorted(path.parent.name for path in ROOT.glob("actions/*/action.yml"))
ALL = {
    "accept", "check", "comment", "conclude", "dispatch", "evaluate", "gate", "hand-over", "hold", "image", "noise",
    "plan", "publish", "receive", "reconcile", "register", "release", "report", "reproduce", "rollback", "setup",
    "teams", "train", "validate",
}  # fmt: skip
# Where the code below a script holds a thing, module and test bear the thing's name.
NOUNS = {
    "conclude": "judging", "hand-over": "handover", "register": "registration", "reproduce": "reproduction",
    "release": "machine", "rollback": "machine", "reconcile": "machine", "hold": "machine", "publish": "page",
}  # fmt: skip
# What reaches the script otherwise than as an argument, and is no value of a caller's that a script would check.
ASIDE = {"GH_TOKEN": "token", "GATEHOUSE_PYTHON": "python"}
RECORDS = "pipelines/core/records.py"
# They name the type of a baseline, whose module reads records, and never ask for one.
NO_RECORDS = {"check", "noise"}


def script(verb: str) -> str:
    return verb.replace("-", "_")


def declared(verb: str) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((ROOT / f"actions/{verb}/action.yml").read_text(encoding="utf-8"))
    return value


def test_there_is_an_action_for_each_job() -> None:
    assert set(VERBS) == ALL


@pytest.mark.parametrize("verb", VERBS)
def test_one_word_leads_from_an_action_to_its_script_and_its_test(verb: str) -> None:
    (step,) = declared(verb)["runs"]["steps"]
    assert re.findall(r"-m scripts\.(\w+)", step["run"]) == [script(verb)]
    assert (ROOT / f"scripts/{script(verb)}.py").is_file()
    assert list(ROOT.glob(f"tests/**/test_{NOUNS.get(verb, script(verb))}.py")), "no test bears its name"


@pytest.mark.parametrize("verb", VERBS)
def test_an_action_is_one_composite_step_in_bash(verb: str) -> None:
    action = declared(verb)
    assert set(action) <= {"name", "description", "inputs", "outputs", "runs"}
    assert action["runs"]["using"] == "composite"
    (step,) = action["runs"]["steps"]
    assert step["shell"] == "bash"
    assert step["run"].startswith('"$GITHUB_ACTION_PATH/../python" -m scripts.')
    assert "${{" not in step["run"]


@pytest.mark.parametrize("verb", VERBS)
def test_inputs_and_outputs_are_described_and_reach_the_script_through_the_environment(verb: str) -> None:
    action = declared(verb)
    inputs, outputs = action.get("inputs", {}), action.get("outputs", {})
    (step,) = action["runs"]["steps"]
    environment = step.get("env", {})
    for name, about in {**inputs, **outputs}.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name), name
        assert about["description"].endswith((".", "].")) or about["description"].rstrip()[-1] in ".", name
    for name, about in inputs.items():
        assert ("default" in about) != (about.get("required") is True), f"{name}: either a default or required"
        variable = f"INPUT_{name.upper().replace('-', '_')}"
        given = {key for key, value in environment.items() if value == f"${{{{ inputs.{name} }}}}"}
        assert given in ({variable}, {key for key, aside in ASIDE.items() if aside == name}), name
    assert len(environment) == len(inputs)
    for name in set(environment) - set(ASIDE):
        assert re.search(rf'--[a-z-]+="\${name}"', step["run"]), f"{name} is given and never used"
    for about in outputs.values():
        assert re.fullmatch(rf"\$\{{\{{ steps\.{step.get('id')}\.outputs\.[a-z_-]+ \}}\}}", about["value"])


def test_what_reads_or_writes_records_does_so_with_the_jobs_token() -> None:
    # No checkout keeps credentials, and a private repository answers nobody without them.
    reading = {verb for verb in VERBS if RECORDS in imported_files(ROOT / f"scripts/{script(verb)}.py", ROOT)}
    assert {"conclude", "gate", "receive", "register", "reproduce"} <= reading
    for verb in sorted(reading - NO_RECORDS):
        action = declared(verb)
        assert action["inputs"]["token"]["default"] == "${{ github.token }}", verb
        assert action["runs"]["steps"][0]["env"]["GH_TOKEN"] == "${{ inputs.token }}", verb


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_knows_every_argument_that_its_action_gives(verb: str) -> None:
    (step,) = declared(verb)["runs"]["steps"]
    command = [sys.executable, "-m", f"scripts.{script(verb)}", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for flag in re.findall(r"--[a-z-]+(?==)", step["run"]):
        assert re.search(rf"{flag}\b", shown), flag


def test_an_input_cannot_become_an_option() -> None:
    for verb in VERBS:
        (step,) = declared(verb)["runs"]["steps"]
        assert not re.search(r'--[a-z-]+ "?\$', step["run"]), f'{verb}: write --name="$VALUE", a value may begin with -'
        assert not re.search(r'(?<![="])\$INPUT', step["run"]), f"{verb}: a value without quotes is split"


# Step, inputs, and what its one annotation says; nothing is there but a commit without a single declared file.
REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("setup", {"lock": "gpu"}, r"error lock: 'gpu' is none of auto, cpu, cuda, judging"),
    ("setup", {"lock": "--help"}, r"error lock: '--help' is none of auto, cpu, cuda, judging"),
    ("setup", {"python": "python9"}, r"error no Python at 'python9'; run actions/setup first, its input 'python' .*"),
    ("setup", {"python": "bash"}, r"error 'bash' is no working Python; name Python 3\.11 or newer .*"),
    ("setup", {"data": "some"}, r"error argument --data: invalid choice: 'some' .*"),
    ("setup", {}, ""),
    ("plan", {}, r"error the following arguments are required: --base"),
    ("plan", {"base": "--help"}, r"error --base '--help' is no commit.*"),
    ("plan", {"base": "0" * 40}, r"error .*0000000.*"),
    ("reproduce", {"take-over": "yes"}, r"error argument --take-over: invalid choice: 'yes' .*"),
    ("reproduce", {"take-over": "true"}, r"error --take-over needs --pull URL.*"),
    ("reproduce", {}, r"error .*DVC.*"),
    ("validate", {}, r"error the following arguments are required: --dataset"),
    ("validate", {"dataset": "triage"}, r"error params\.yaml: no such file.*"),
    ("train", {}, r"error params\.yaml: no such file.*"),
    ("evaluate", {}, r"error --suite NAME is needed.*"),
    ("evaluate", {"suite": "triage", "shard": "2"}, r"error .+"),
    ("evaluate", {"suite": "triage"}, r"error params\.yaml: no such file.*"),
    ("hand-over", {}, r"error .+"),
    ("receive", {}, r"error .+"),
    ("accept", {}, r"error argument --result: invalid choice: '' .*"),
    ("accept", {"result": "green"}, r"error argument --result: invalid choice: 'green' .*"),
    ("accept", {"result": "success"}, r"error .+"),
    ("gate", {}, r"error gates\.yaml: no such file.*"),
    ("gate", {"root": "elsewhere"}, r"error elsewhere/gates\.yaml: no such file.*"),
    ("report", {}, r"error .*evaluation/decision\.json.*"),
    ("comment", {}, r"error the following arguments are required: --number, --head"),
    ("comment", {"number": "3\n4", "head": "0" * 40}, r"error --number '3\\n4' is no pull request's number"),
    ("comment", {"number": "3", "head": "main"}, r"error --head 'main' is not 40 hexadecimal digits"),
    ("comment", {"number": "3", "head": "0" * 40, "state": "pass"}, r"error argument --state: invalid choice.*"),
    ("conclude", {}, r"error .+"),
    ("conclude", {"failed": "main"}, r"error --failed 'main' is not 40 hexadecimal digits"),
    ("register", {}, r"error params\.yaml: no such file.*"),
    ("noise", {}, r"error params\.yaml: no such file.*"),
    ("noise", {"seeds": "7"}, r"error .*seeds.*"),
    ("release", {"tag": "v1.0.0"}, r"error --target: is empty; name where it runs.*"),
    ("release", {"tag": "v1.0.0", "target": "moon"}, r"error --target 'moon': no such target.*"),
    ("release", {"tag": "v1.0.0", "target": "moon", "dry-run": "no"}, r"error argument --dry-run: invalid choice.*"),
    ("release", {"tag": "v1.0.0", "target": "moon", "until": "noon"}, r"error argument --until: invalid choice.*"),
    ("release", {"tag": "v1.0.0", "target": "moon", "minutes": "soon"}, r"error argument --minutes: invalid float.*"),
    ("rollback", {"target": "moon"}, r"error --why needs a reason.*"),
    ("rollback", {"why": "--help", "target": "moon"}, r"error --target 'moon': no such target.*"),
    ("reconcile", {"target": "moon"}, r"error --target 'moon': no such target.*"),
    ("reconcile", {"target": "moon", "minutes": "few"}, r"error argument --minutes: invalid float.*"),
    ("hold", {"target": "moon"}, r"error --why needs a reason.*"),
    ("hold", {"why": "lunch"}, r"error --target: is empty; name where it runs.*"),
    ("publish", {}, r"error production: no release of it was begun.*"),
    ("publish", {"tag": "main"}, r"error tag 'main' is no version; .*"),
    ("dispatch", {"tag": "--help"}, r"error tag '--help' is no version; .*"),
    ("image", {}, r"error --name '' is no image; .*"),
    ("image", {"name": "registry.example/gateway:latest"}, r"error --name '.*:latest' is no image; .*"),
    ("image", {"name": "registry.example/gateway", "target": "all"}, r"error argument --target: invalid choice.*"),
    ("image", {"name": "registry.example/model", "target": "model"}, r"error --model '': models/ holds no model; .*"),
]  # fmt: skip


@pytest.fixture(params=["here", "elsewhere"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path | None]:
    """A workspace, and where the actions lie if not in it. A caller has modules of its own that end the job."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    if request.param == "here":
        return caller.ship(workspace), None
    caller.set_traps(workspace)
    return workspace, caller.ship(tmp_path / "gatehouse")


def use(place: tuple[Path, Path | None], verb: str, **inputs: Any) -> dict[str, Any]:
    """Return a step that uses an action; its id is the verb."""
    action = caller.REFERENCE.format(verb) if place[1] else f"./actions/{verb}"
    return {"id": verb, "uses": action, "with": inputs} if inputs else {"id": verb, "uses": action}


@pytest.mark.slow
def test_wrong_inputs_end_in_one_annotation_and_never_green(place: tuple[Path, Path | None], tmp_path: Path) -> None:
    workspace, gatehouse = place
    caller.commit(workspace)
    wrong = REFUSED if gatehouse else [one for one in REFUSED if one[0] in ("setup", "plan", "comment")]
    steps = [
        use(place, verb, **inputs) | {"id": f"{verb}-{number}", "if": "always()"}
        for number, (verb, inputs, _) in enumerate(wrong)
    ]
    told = caller.execute(workspace, steps, home=tmp_path / "home", gatehouse=gatehouse)
    for number, (verb, inputs, said) in enumerate(wrong):
        step = told[f"{verb}-{number}"]
        what = f"{verb} {inputs}: {step}"
        if not said:
            assert step.result == "success", what
            continue
        assert step.result == "failure", what
        assert len(step.annotations) == 1, what
        assert re.fullmatch(said, " ".join(step.annotations[0])), what
        assert "Traceback" not in step.text, what


@pytest.mark.slow
def test_without_setup_an_action_says_what_is_missing(place: tuple[Path, Path | None], tmp_path: Path) -> None:
    workspace, gatehouse = place
    caller.commit(workspace)
    told = caller.execute(workspace, [use(place, "gate")], home=tmp_path / "home", gatehouse=gatehouse)
    assert told["gate"].result == "failure"
    expected = "no Python was set up in this job; add a step with actions/setup before this one"
    assert told["gate"].annotations == [("error", expected)]


def test_the_traps_of_the_caller_are_sharp(tmp_path: Path) -> None:
    caller.set_traps(tmp_path)
    command = [sys.executable, "-m", "scripts.gate"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "the caller's own module was run" in done.stderr


@pytest.mark.slow
def test_a_finished_run_is_checked_gated_and_reported(place: tuple[Path, Path | None], tmp_path: Path) -> None:
    workspace, gatehouse = place
    evaluated(workspace, exact_match=[0.0] * 200)
    shutil.copytree(ROOT / "schemas", workspace / "schemas")
    caller.commit(workspace)
    left = 'mkdir -p evaluation && echo \'{"verdict": "pass"}\' > evaluation/decision.json'
    steps = [
        {"id": "left", "run": left, "shell": "bash"},
        use(place, "setup"),
        {"id": "gone", "run": "test ! -e evaluation/decision.json", "shell": "bash"},
        use(place, "gate", baseline="none"),
        use(place, "report") | {"if": "always()"},
    ]
    told = caller.execute(workspace, steps, home=tmp_path / "home", gatehouse=gatehouse)
    assert told["setup"].result == "success", told["setup"]
    assert told["gone"].result == "success", "the verdict of an earlier run is still there"
    assert (told["gate"].result, told["gate"].outputs) == ("failure", {"verdict": "fail"})
    line = (workspace / "gates.yaml").read_text().splitlines().index(
        "        exact_match: {floor: 0.4, max_regression: 0.08}"
    ) + 1
    errors = [message for level, message in told["gate"].annotations if level == "error"]
    assert [message.partition(" ")[0] for message in errors] == [f"gates.yaml:{line}:"]
    assert told["report"].result == "success"
    assert told["report"].outputs == {"markdown": "evaluation/report.md", "html": "evaluation/report.html"}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A team's repository: its own data, prompts, parameters, gates and stages, and none of our code."""
    folder = tmp_path_factory.mktemp("product")
    lay_out(folder, tiny_model)
    for name in caller.SHIPPED:
        shutil.rmtree(folder / name)
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))
    for stage in stages["stages"].values():
        body = stage.get("do", stage)
        body["deps"] = [dep for dep in body["deps"] if not dep.endswith((".py", ".j2"))]
    (folder / "dvc.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))
    caller.set_traps(folder)
    caller.commit(folder)
    return folder


@pytest.mark.slow
def test_a_team_evaluates_its_own_product_with_the_actions_of_this_repository(product: Path, tmp_path: Path) -> None:
    place = product, caller.ship(tmp_path / "gatehouse")
    remote = tmp_path / "remote"
    remote.mkdir()
    steps = [
        use(place, "setup"),
        use(place, "check"),
        use(place, "reproduce", push=str(remote)),
        use(place, "hand-over"),
        use(place, "gate", baseline="none") | {"continue-on-error": True},
        use(place, "report"),
        use(place, "register"),
        use(place, "validate", dataset="triage"),
        use(place, "evaluate", suite="reply"),
        use(place, "train"),
    ]
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    told = caller.execute(product, steps, home=tmp_path / "home", gatehouse=place[1], environment=environment)
    for step in steps:
        assert told[step["id"]].result == "success" or step["id"] == "gate", (step["id"], told[step["id"]])
    assert told["check"].outputs == {"problems": "0"}
    stages = json.loads(told["reproduce"].outputs["stages"])
    assert set(stages.values()) == {"computed"}
    assert {"fetch@base", "validate@triage", "train", "evaluate@reply", "evaluate@triage", "latency"} <= set(stages)
    assert float(told["reproduce"].outputs["train-seconds"]) > 0
    assert list(remote.rglob("*")), "nothing was pushed"
    assert told["evaluate"].outputs["computed"] == "0", "the answers of `reproduce` are there"
    assert int(told["evaluate"].outputs["cached"]) > 0
    assert told["gate"].outputs["verdict"] in ("pass", "fail", "manual_review")
    assert int(told["hand-over"].outputs["files"]) >= 4
    assert re.fullmatch("[0-9a-f]{32}", told["register"].outputs["run-id"])
    assert told["register"].outputs["model-version"] == "1"
