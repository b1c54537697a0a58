"""What only GitHub enforces and no local run can show: read from the workflows' YAML and held to tables."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from pipelines.review.accepted import MOST_BYTES
from pipelines.review.deployment_review import ENVIRONMENT
from pipelines.review.pull_request import APPROVE
from tests.standin.github import GitHub

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / "actions").glob("*/action.yml"))
BIN = Path(sys.executable).parent

TRIGGERS: dict[str, Any] = {
    "pull-request.yml": {"pull_request": {"types": ["opened", "synchronize", "reopened", "ready_for_review"]}},
    "review.yml": {"pull_request_review": {"types": ["submitted", "edited", "dismissed"]}},
    "approve.yml": {"workflow_dispatch": ""},
    "verdict.yml": {
        "workflow_run": {"workflows": ["pull-request", "review", "approve"], "types": ["requested", "completed"]}
    },
    "main.yml": {
        "push": {
            "branches": ["main"],
            "paths-ignore": [
                f"k8s/overlays/*/{what}" for what in ("release.yaml", "history/**", "manifests/**", "released/**")
            ],
        },
        "workflow_dispatch": "",
    },
    "nightly.yml": {"schedule": [{"cron": "17 2 * * *"}], "workflow_dispatch": ""},
    "release.yml": {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}, "workflow_dispatch": ["tag", "dry-run"]},
    "rollback.yml": {"workflow_dispatch": ["why", "tag"]},
    "hold.yml": {"workflow_dispatch": ["why", "release"]},
    "reconcile.yml": {
        "schedule": [{"cron": "3-59/10 * * * *"}],
        "workflow_dispatch": "",
        "push": {"branches": ["main"], "paths": ["k8s/overlays/production/serving-patch.yaml"]},
        "workflow_run": {"workflows": ["release", "rollback"], "types": ["completed"]},
    },
}
# What each job's token may do. Every workflow grants nothing by itself.
READ = {"contents": "read"}
PERMISSIONS: dict[tuple[str, str], dict[str, str]] = {
    ("pull-request.yml", "plan"): READ,
    ("pull-request.yml", "train"): READ,
    ("pull-request.yml", "answer"): READ,
    ("pull-request.yml", "evaluate"): READ,
    ("pull-request.yml", "done"): {},
    ("review.yml", "review"): {},
    ("approve.yml", "approve"): {},
    ("verdict.yml", "people"): READ,
    ("verdict.yml", "judge"): {"actions": "read", "contents": "read", "pull-requests": "read"},
    ("verdict.yml", "speak"): {"contents": "write", "pull-requests": "write", "statuses": "write"},
    ("main.yml", "reproduce"): READ,
    ("main.yml", "decide"): {"contents": "write", "statuses": "write"},
    ("nightly.yml", "noise"): READ,
    ("release.yml", "verify"): READ,
    ("release.yml", "hand-over"): {"actions": "write", "contents": "read"},
    ("release.yml", "staging"): {"contents": "write"},
    ("release.yml", "production"): {"contents": "write"},
    ("rollback.yml", "rollback"): {"contents": "write"},
    ("hold.yml", "hold"): {"contents": "write"},
    ("reconcile.yml", "look"): READ,
    ("reconcile.yml", "again"): {"actions": "write", "contents": "read"},
    ("reconcile.yml", "finish"): {"contents": "write"},
}  # fmt: skip
# An environment holds the secrets and says which branch may read them (.github/environments.yml).
ENVIRONMENTS = {
    ("pull-request.yml", "train"): "pull-request",
    ("pull-request.yml", "answer"): "pull-request",
    ("pull-request.yml", "evaluate"): "pull-request",
    ("approve.yml", "approve"): "manual-review",
    ("verdict.yml", "people"): "verdict",
    ("verdict.yml", "judge"): "judge",
    ("verdict.yml", "speak"): "verdict",
    ("main.yml", "reproduce"): "main",
    ("main.yml", "decide"): "main",
    ("nightly.yml", "noise"): "main",
    ("release.yml", "staging"): "staging",
    ("release.yml", "production"): "production",
    ("rollback.yml", "rollback"): "recovery",
    ("hold.yml", "hold"): "recovery",
    ("reconcile.yml", "finish"): "recovery",
}
CONCURRENCY: dict[str, dict[str, str]] = {
    "pull-request.yml": {
        "group": "pull-request-${{ github.event.pull_request.number }}", "cancel-in-progress": "true",
    },
    "review.yml": {"group": "review-${{ github.event.pull_request.number }}", "cancel-in-progress": "true"},
    "approve.yml": {"group": "approve-${{ github.ref }}", "cancel-in-progress": "true"},
    "verdict.yml": {
        "group": "verdict-${{ github.event.workflow_run.head_repository.full_name }}"
        "-${{ github.event.workflow_run.head_branch }}",
        "queue": "max",
    },
    "main.yml": {"group": "main", "queue": "max"},
    "nightly.yml": {"group": "nightly", "cancel-in-progress": "false"},
    "release.yml": {
        "group": "${{ (github.event_name == 'push' || inputs.dry-run)"
        " && format('verify-{0}', inputs.tag || github.ref_name) || 'release' }}",
        "queue": "max",
    },
    "rollback.yml": {"group": "rollback", "queue": "max"},
    "hold.yml": {"group": "hold", "queue": "max"},
    "reconcile.yml": {"group": "reconcile", "cancel-in-progress": "false"},
}  # fmt: skip
# Findings of zizmor that stand, with their reason; and how often each is ignored where it stands.
ACCEPTED = {
    "self-repository": "`$/actions/x` is unknown to GitHub Enterprise Server and to act; `./actions/x` means the same",
    "dangerous-triggers": "verdict.yml and reconcile.yml run on workflow_run; they check out main only",
}
IGNORED = {"dangerous-triggers": 2}
# The environments that hold what a release is made with, and the runner that may meet it.
RELEASING = ("staging", "production", "recovery")
OWN_RUNNER = "${{ fromJSON(vars.GATEHOUSE_RELEASE_RUNNER || '\"ubuntu-latest\"') }}"
# The jobs that a tag's own commit starts; they say that main is checked out.
TAGGED = {("release.yml", "verify"), ("release.yml", "hand-over")}
MAIN = "${{ github.event.repository.default_branch }}"
PIN = re.compile(
    r"uses: (?P<action>[\w.-]+/[\w./-]+)@(?P<commit>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)(?: # .+)?$"
)


class Step(NamedTuple):
    """A step and where it stands."""

    file: str
    job: str
    step: dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    """Parse a workflow as text only, so that `on` stays `on`."""
    value: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    return value


DECLARED = {path.name: read(path) for path in WORKFLOWS}
JOBS = {(name, job): body for name, workflow in DECLARED.items() for job, body in workflow["jobs"].items()}
ids = {"ids": lambda value: "/".join(value) if isinstance(value, tuple) else str(value)}


def steps() -> Iterator[Step]:
    for (name, job), body in JOBS.items():
        for step in body["steps"]:
            yield Step(name, job, step)


def inputs_and_outputs(action: str) -> tuple[dict[str, Any], set[str]]:
    declared = read(ROOT / action / "action.yml")
    return declared.get("inputs", {}), set(declared.get("outputs", {}))


def test_the_workflows_start_on_these_events_and_on_no_other() -> None:
    assert {name: triggers(workflow["on"]) for name, workflow in DECLARED.items()} == TRIGGERS


def triggers(declared: dict[str, Any]) -> dict[str, Any]:
    """Return the events; of what a person types only the names."""
    typed = declared.get("workflow_dispatch")
    return {**declared, "workflow_dispatch": list(typed["inputs"])} if isinstance(typed, dict) else declared


def test_a_workflow_waits_for_workflows_that_exist() -> None:
    names = {workflow["name"] for workflow in DECLARED.values()}
    for name in ("verdict.yml", "reconcile.yml"):
        assert set(TRIGGERS[name]["workflow_run"]["workflows"]) <= names


def test_a_workflow_is_named_as_its_file() -> None:
    assert {workflow["name"] for workflow in DECLARED.values()} == {Path(name).stem for name in DECLARED}


@pytest.mark.parametrize("name", DECLARED)
def test_a_workflow_by_itself_grants_nothing(name: str) -> None:
    assert DECLARED[name]["permissions"] == {}


def test_each_job_may_do_what_the_table_says() -> None:
    assert {place: body["permissions"] for place, body in JOBS.items()} == PERMISSIONS


def test_nothing_that_a_pull_request_starts_itself_may_write() -> None:
    for place in JOBS:
        if place[0] in ("pull-request.yml", "review.yml", "approve.yml"):
            assert set(PERMISSIONS[place].values()) <= {"read"}, place


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_each_permission_says_what_for(path: Path) -> None:
    granted = re.findall(r"^ +(?!permission-)[\w-]+: (?:read|write)\b.*$", path.read_text(encoding="utf-8"), re.M)
    assert all(re.search(r" # \w", line) for line in granted), granted


def test_secrets_are_read_in_the_environment_that_holds_them_only() -> None:
    found = {place: environment(body) for place, body in JOBS.items() if environment(body)}
    assert found == ENVIRONMENTS
    for (name, job), body in JOBS.items():
        if "secrets." in json.dumps(body):
            assert (name, job) in ENVIRONMENTS, f"{name}: {job} reads a secret outside of an environment"
    for name, workflow in DECLARED.items():
        outside = {key: value for key, value in workflow.items() if key != "jobs"}
        assert "secrets." not in json.dumps(outside), name


def environment(body: dict[str, Any]) -> str | None:
    declared = body.get("environment")
    return declared["name"] if isinstance(declared, dict) else declared


def test_every_environment_is_declared_and_those_that_hold_mains_keys_are_for_main_only() -> None:
    settings = yaml.safe_load((ROOT / ".github/environments.yml").read_text(encoding="utf-8"))["environments"]
    branches = {one["name"]: one.get("branches") for one in settings if one["name"] in ENVIRONMENTS.values()}
    assert branches == {
        "pull-request": None, "manual-review": None, "judge": ["main"], "verdict": ["main"], "main": ["main"],
        "staging": ["main"], "production": ["main"], "recovery": ["main"],
    }  # fmt: skip
    assert not [one["name"] for one in settings if one.get("tags")], "a tag brings workflows of its own"
    (asking,) = [one for one in settings if one["name"] == ENVIRONMENT]
    assert asking["reviewers"] == "CODEOWNERS"


def test_the_workflow_that_waits_for_a_reviewer_is_the_one_that_is_asked_about() -> None:
    assert APPROVE == ".github/workflows/approve.yml"
    assert JOBS["approve.yml", "approve"]["environment"] == ENVIRONMENT, "without a deployment nobody is asked"
    assert "secrets." not in json.dumps(DECLARED["approve.yml"])


def test_every_variable_is_declared() -> None:
    read_here = {name for path in WORKFLOWS for name in re.findall(r"\bvars\.(\w+)", path.read_text(encoding="utf-8"))}
    settings = yaml.safe_load((ROOT / ".github/variables.yml").read_text(encoding="utf-8"))["variables"]
    assert read_here <= set(settings)


def test_a_pull_request_reads_no_secret_but_the_key_of_its_own_corner() -> None:
    text = (ROOT / ".github/workflows/pull-request.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"secrets\.(\w+)", text)) == {"GATEHOUSE_REMOTE_KEY_ID", "GATEHOUSE_REMOTE_KEY"}
    assert "secrets: inherit" not in text


def test_forks_get_no_runner_of_our_own() -> None:
    own = "github.event.pull_request.head.repo.full_name == github.repository"
    for (name, job), body in JOBS.items():
        if name == "pull-request.yml" and "vars.GATEHOUSE_RUNNER" in body["runs-on"]:
            expected = f"${{{{ fromJSON({own} && vars.GATEHOUSE_RUNNER || '\"ubuntu-latest\"') }}}}"
            assert body["runs-on"] == expected, job


def test_only_who_gets_the_remotes_key_is_told_of_the_remote() -> None:
    own = (
        "github.event.pull_request.head.repo.full_name == github.repository"
        " && github.event.pull_request.user.login != 'dependabot[bot]' && vars.GATEHOUSE_REMOTE"
    )
    corner = "format('{0}/pr/{1}', vars.GATEHOUSE_REMOTE, github.event.pull_request.number)"
    assert DECLARED["pull-request.yml"]["env"] == {
        "REMOTE": f"${{{{ {own} || '' }}}}", "OWN": f"${{{{ {own} && {corner} || '' }}}}",
    }  # fmt: skip
    jobs = (ROOT / ".github/workflows/pull-request.yml").read_text(encoding="utf-8").partition("\njobs:")[2]
    assert "vars.GATEHOUSE_REMOTE" not in jobs


def test_what_writes_runs_where_no_pull_request_has_been() -> None:
    for place, granted in PERMISSIONS.items():
        if "write" in granted.values():
            own = OWN_RUNNER if ENVIRONMENTS.get(place) in RELEASING and place[0] != "hold.yml" else "ubuntu-latest"
            assert JOBS[place]["runs-on"] == own, place


def test_mains_write_key_never_meets_a_runner_of_pull_requests() -> None:
    own = """${{ fromJSON(vars.GATEHOUSE_MAIN_RUNNER || '"ubuntu-latest"') }}"""
    names = ("main", "verdict", "judge")
    found = {place: JOBS[place]["runs-on"] for place, name in ENVIRONMENTS.items() if name in names}
    assert found == {
        ("verdict.yml", "people"): "ubuntu-latest",
        ("verdict.yml", "judge"): "ubuntu-latest",
        ("verdict.yml", "speak"): "ubuntu-latest",
        ("main.yml", "reproduce"): own,
        ("main.yml", "decide"): "ubuntu-latest",
        ("nightly.yml", "noise"): own,
    }
    for name in ("pull-request.yml", "review.yml"):
        assert not re.search("(MAIN|RELEASE)_RUNNER", json.dumps(DECLARED[name])), name


def test_runs_that_could_meet_are_kept_apart() -> None:
    found = {name: workflow["concurrency"] for name, workflow in DECLARED.items() if "concurrency" in workflow}
    found |= {"/".join(place): body["concurrency"] for place, body in JOBS.items() if "concurrency" in body}
    assert found == CONCURRENCY


@pytest.mark.parametrize("place", JOBS, **ids)
def test_every_job_has_a_time_limit(place: tuple[str, str]) -> None:
    limit = JOBS[place]["timeout-minutes"]
    assert limit.isdigit() or limit == "${{ fromJSON(vars.GATEHOUSE_TIMEOUT_MINUTES || '360') }}"


@pytest.mark.parametrize("name", DECLARED)
def test_one_last_job_needs_every_other(name: str) -> None:
    jobs = DECLARED[name]["jobs"]
    *others, last = jobs
    needs = jobs[last].get("needs", [])
    assert sorted([needs] if isinstance(needs, str) else needs) == sorted(others)


def test_what_failed_or_was_stopped_on_one_runner_is_not_computed_again_on_another() -> None:
    last = JOBS["pull-request.yml", "evaluate"]
    # A job that waits for `answer` alone sees `skipped` where training failed.
    assert last["needs"] == ["plan", "train", "answer"]
    conditions = set(last["if"].split(" && "))
    assert conditions == {
        "!cancelled()", "needs.plan.outputs.evaluate == 'true'", "!contains(needs.*.result, 'failure')",
        "!contains(needs.*.result, 'cancelled')",
    }  # fmt: skip


def test_no_job_is_named_like_the_required_status() -> None:
    for place, body in JOBS.items():
        assert "gatehouse" not in body["name"].lower(), place


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: str(path.relative_to(ROOT)))
def test_third_party_actions_are_pinned_to_a_commit_with_its_version_beside(path: Path) -> None:
    for line in re.findall(r"^.*\buses:.*$", path.read_text(encoding="utf-8"), re.M):
        assert "uses: ./actions/" in line or PIN.search(line), line


def test_one_action_has_one_pin() -> None:
    pins: dict[str, set[tuple[str, str]]] = {}
    for path in WORKFLOWS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if found := PIN.search(line):
                pins.setdefault("/".join(found["action"].split("/")[:2]), set()).add(
                    (found["commit"], found["version"])
                )
    assert pins, "no pin was found"
    assert not {action: found for action, found in pins.items() if len(found) > 1}


def test_every_checkout_leaves_no_credentials_behind() -> None:
    found = [step for step in steps() if str(step.step.get("uses", "")).startswith("actions/checkout@")]
    assert len(found) >= len(DECLARED) - 1
    for name, job, step in found:
        assert step["with"]["persist-credentials"] == "false", (name, job)


def test_the_night_takes_what_main_left_in_githubs_cache() -> None:
    found = {}
    for name, job in (("main.yml", "reproduce"), ("nightly.yml", "noise")):
        used = [step.get("uses", "").partition("@")[0] for step in JOBS[name, job]["steps"]]
        at = used.index("actions/cache/restore")
        assert at < used.index("./actions/reproduce"), name
        found[name] = JOBS[name, job]["steps"][at]
    assert found["nightly.yml"] == found["main.yml"], "without a remote everything would be trained again"


def test_what_judges_and_what_releases_checks_out_main_only() -> None:
    for name, job, step in steps():
        if str(step.get("uses", "")).startswith("actions/checkout@") and name != "pull-request.yml":
            said = {"ref": MAIN} if (name, job) in TAGGED else {}
            assert {key: step["with"][key] for key in ("ref", "repository") if key in step["with"]} == said, (name, job)


def test_what_reads_hostile_data_holds_no_key_and_no_token_that_writes() -> None:
    judge = JOBS["verdict.yml", "judge"]
    used = {str(step.get("uses", "")).partition("@")[0] for step in judge["steps"]}
    assert {"actions/download-artifact", "./actions/receive", "./actions/gate", "./actions/report"} <= used
    assert not {"./actions/comment", "./actions/conclude", "actions/create-github-app-token"} & used
    assert set(judge["permissions"].values()) == {"read"}
    # Of the secrets, the key that reads the remote; the environment that holds it has no other.
    assert set(re.findall(r"secrets\.(\w+)", json.dumps(judge))) == {"GATEHOUSE_REMOTE_KEY_ID", "GATEHOUSE_REMOTE_KEY"}
    for name in ("people", "speak"):
        assert "GATEHOUSE_REMOTE_KEY" not in json.dumps(JOBS["verdict.yml", name])


def test_what_may_write_parses_nothing_that_a_pull_request_left() -> None:
    for name in ("people", "speak"):
        steps_here = JOBS["verdict.yml", name]["steps"]
        used = {str(step.get("uses", "")).partition("@")[0] for step in steps_here}
        assert not {"./actions/receive", "./actions/gate", "./actions/report", "actions/cache/restore"} & used, name
        for step in steps_here:
            if str(step.get("uses", "")).startswith("actions/download-artifact@"):
                assert "run-id" not in step["with"], "only what this very run has left"


def test_judging_hands_over_three_files_and_one_word() -> None:
    judge = JOBS["verdict.yml", "judge"]
    (left,) = [step for step in judge["steps"] if step.get("with", {}).get("name") == "judging"]
    assert left["with"]["path"].split() == [f"judging/{name}" for name in MOST_BYTES]
    assert set(judge["outputs"]) == {"state"}


def test_a_verdict_that_breaks_says_so_whatever_broke() -> None:
    jobs = {name: JOBS["verdict.yml", name] for name in ("judge", "speak")}
    starts = re.search(r"\(github\.event\.workflow_run\.event.*\)\)", jobs["judge"]["if"])
    assert starts
    assert jobs["judge"]["if"] == f"!cancelled() && {starts[0]}", (
        "without `!cancelled()` it waits for `people` to succeed"
    )
    assert jobs["speak"]["if"].startswith(f"always() && {starts[0]} && ")
    body = jobs["speak"]["steps"]
    by_id = {step["id"]: at for at, step in enumerate(body) if "id" in step}
    assert "token" not in body[by_id["accept"]]["with"], "whom to tell is known without the App"
    assert body[by_id["accept"]]["with"]["result"] == "${{ needs.judge.result }}"
    assert by_id["accept"] < by_id["app"]
    alarm, told = body[by_id["alarm"] :]
    assert set(alarm) == {"id", "if", "shell", "env", "run"}, "it needs no checkout and no set-up"
    assert alarm["env"]["HEAD"] == "${{ steps.accept.outputs.head || github.event.workflow_run.head_sha }}"
    assert told["uses"] == "./actions/comment"
    for step in (alarm, told):
        assert step["if"].startswith("(failure() || cancelled()) && "), step
        assert "continue-on-error" not in step, step
    assert "steps.alarm.outputs.by == 'app'" in told["with"]["token"], "the token that was taken before is taken again"


@pytest.mark.parametrize(
    ("app", "job", "said_by"),
    [("app-token", "job-token", "app"), ("expired", "job-token", "job"), ("", "job-token", "job"), ("", "expired", "")],
)
def test_the_last_step_needs_nothing_but_bash_and_curl(tmp_path: Path, app: str, job: str, said_by: str) -> None:
    (alarm,) = [step for step in JOBS["verdict.yml", "speak"]["steps"] if step.get("id") == "alarm"]
    with GitHub("o/r") as github:
        writes = {"permissions": {"statuses": "write"}}
        github.tokens |= {"app-token": {"login": "bot[bot]", **writes}, "job-token": {"login": "job[bot]", **writes}}
        given = {
            **github.environment,
            "GITHUB_RUN_ID": "7",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "HEAD": "a" * 40,
        }
        given |= {"APP_TOKEN": app, "TOKEN": job, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", alarm["run"]]
        done = subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == bool(said_by), done.stderr
        said = github.statuses.get("a" * 40, [])
        assert [one["creator"]["login"] for one in said] == (
            [f"{said_by.replace('app', 'bot')}[bot]"] if said_by else []
        )
        for one in said:
            assert (one["state"], one["context"]) == ("error", "gatehouse/verdict")
            assert one["target_url"] == f"{github.url}/o/r/actions/runs/7"
        assert not said_by or (tmp_path / "output").read_text() == f"by={said_by}\n"
        refused = subprocess.run(command, env=given | {"HEAD": "main; id"}, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert list(github.statuses) in ([], ["a" * 40])


def test_the_members_of_teams_are_asked_for_only_where_the_app_may_know_them() -> None:
    # The action fails on a permission that the installation lacks: then `people` fails, and nothing else.
    found = {job: step["with"]["permission-members"] for _, job, step in steps()
             if "permission-members" in step.get("with", {})}  # fmt: skip
    assert found == {"people": "read"}
    condition = JOBS["verdict.yml", "people"]["if"].split(" && ")
    asked = {"vars.GATEHOUSE_TEAMS == 'true'", "github.event.repository.owner.type == 'Organization'"}
    assert asked <= set(condition)


def test_no_expression_is_pasted_into_a_script() -> None:
    for name, job, step in steps():
        assert "${{" not in step.get("run", ""), (name, job)
        assert "run" not in step or step.get("shell") == "bash", (name, job)
    for path in WORKFLOWS:  # a block scalar with an expression would always be true
        assert not re.search(r"^\s*-?\s*if:\s*[|>]", path.read_text(encoding="utf-8"), re.M), path.name


def test_steps_give_our_actions_inputs_that_they_have() -> None:
    n_seen = 0
    for name, job, step in steps():
        action = str(step.get("uses", ""))
        if action.startswith("./actions/"):
            inputs, _ = inputs_and_outputs(action)
            given = set(step.get("with", {}))
            needed = {key for key, value in inputs.items() if value.get("required") == "true"}
            assert given <= set(inputs), (name, job, action)
            assert needed <= given, (name, job, action)
            n_seen += 1
    assert n_seen > 10


def test_outputs_that_are_read_are_declared() -> None:
    for (name, job), body in JOBS.items():
        by_id = {step["id"]: step.get("uses", "") for step in body["steps"] if "id" in step}
        for step_id, output in re.findall(r"\bsteps\.([\w-]+)\.outputs\.([\w-]+)", json.dumps(body)):
            assert step_id in by_id, (name, job, step_id)
            if by_id[step_id].startswith("./actions/"):
                assert output in inputs_and_outputs(by_id[step_id])[1], (name, job, step_id, output)
        for other, output in re.findall(r"\bneeds\.(\w+)\.outputs\.([\w-]+)", json.dumps(body)):
            assert output in DECLARED[name]["jobs"][other]["outputs"], (name, job, output)


@pytest.mark.parametrize(
    ("schema", "paths"), [("workflows", WORKFLOWS), ("actions", ACTIONS)], ids=["workflows", "actions"]
)
def test_the_files_keep_to_githubs_schema(schema: str, paths: list[Path]) -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", f"vendor.github-{schema}", *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def zizmor(*arguments: str) -> Counter[str]:
    command = [str(BIN / "zizmor"), "--offline", "--persona=auditor", "--format=json", *arguments, ".github", "actions"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout, result.stderr
    return Counter(finding["ident"] for finding in json.loads(result.stdout) if not finding["ignored"])


def test_zizmor_finds_nothing() -> None:
    assert zizmor("--config", ".github/zizmor.yml") == {}


def test_what_zizmor_is_told_to_ignore_is_a_short_list() -> None:
    command = [str(BIN / "zizmor"), "--offline", "--persona=auditor", "--format=json", "--no-config", "--no-ignores"]
    result = subprocess.run([*command, ".github", "actions"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = Counter(finding["ident"] for finding in json.loads(result.stdout))
    local = sum(str(step.step.get("uses", "")).startswith("./actions/") for step in steps())
    assert found == {"self-repository": local} | IGNORED
    assert set(found) == set(ACCEPTED)
    told = list(yaml.safe_load((ROOT / ".github/zizmor.yml").read_text(encoding="utf-8"))["rules"])
    text = "".join(path.read_text(encoding="utf-8") for path in [*WORKFLOWS, *ACTIONS])
    assert sorted(told) == sorted(set(ACCEPTED) - set(IGNORED))
    assert Counter(re.findall(r"zizmor: ignore\[([\w-]+)\] \w", text)) == IGNORED
