"""`python -m scripts.bootstrap` against a stand-in of GitHub: the whole way, over HTTP."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from pipelines.core import command
from pipelines.review.settings import load_settings
from scripts import bootstrap as script
from tests.standin.settings import Repository

ROOT = Path(__file__).parent.parent.parent
APP = ("--app-id", "4711")


@pytest.fixture(autouse=True)
def _terminable() -> Iterator[None]:
    """Give back the handler that `command.run` replaces."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def github() -> Iterator[Repository]:
    with Repository() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of this repository's settings, with somebody named as code owner."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github", ignore=shutil.ignore_patterns("workflows"))
    edit(tmp_path / ".github/CODEOWNERS", "@your-organisation/maintainers", "@acme/maintainers")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class Done(NamedTuple):
    """How a run of the script ended."""

    returncode: int
    stdout: str
    stderr: str


def bootstrap(github: Repository, folder: Path, *arguments: str, **environment: str) -> Done:
    """Run the script's main function in this process, from arguments to exit code: a new process takes a second."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, kept | github.environment | environment, clear=True),
        mock.patch.object(sys, "argv", ["bootstrap", "--root", str(folder), *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        command.run(script.main)
    return Done(int(stop.value.code or 0), out.getvalue(), err.getvalue())


def rules(ruleset: dict[str, Any]) -> dict[str, Any]:
    return {rule["type"]: rule.get("parameters", {}) for rule in ruleset["rules"]}


def test_dry_run_is_the_default_and_names_everything_without_a_single_write(github: Repository, folder: Path) -> None:
    done = bootstrap(github, folder, *APP)
    assert done.returncode == 0, done.stderr
    assert "ruleset main (.github/rulesets/main.json): is missing" in done.stdout
    assert "label prompt (.github/labels.yml): is missing" in done.stdout
    assert "environment production (.github/environments.yml): is missing" in done.stdout
    assert "dry run: nothing was changed" in done.stdout
    assert {call.method for call in github.calls} == {"GET"}


def test_it_runs_as_a_command_of_its_own(github: Repository, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bootstrap", "--root", str(folder), "--repository", "acme/support", "--check"],
        cwd=ROOT, env=os.environ | github.environment | {"GITHUB_REPOSITORY": "other/one"}, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "acme/support: " in done.stdout
    assert "settings differ from the files" in done.stdout
    assert done.stderr == "exit code 3\n"


def test_apply_protects_the_repository_and_a_second_time_changes_nothing(github: Repository, folder: Path) -> None:
    first = bootstrap(github, folder, *APP, "--apply")
    assert first.returncode == 0, first.stderr
    declared = load_settings(folder)
    n_declared = len(declared.rulesets) + len(declared.labels) + len(declared.environments)
    assert first.stdout.count("done: ") == n_declared + 1, "and the App as a variable"
    assert "not protected" not in first.stdout
    before = len(github.posts)
    second = bootstrap(github, folder, *APP, "--apply")
    assert second.stdout == "ok: acme/support is what the files say\n"
    assert len(github.posts) == before
    assert bootstrap(github, folder, *APP, "--check").returncode == 0


def test_what_is_applied_pins_the_status_to_the_app_and_lets_nobody_move_a_release_tag(
    github: Repository, folder: Path
) -> None:
    bootstrap(github, folder, *APP, "--apply")
    main = github.ruleset("main")
    status = rules(main)["required_status_checks"]["required_status_checks"]
    assert status == [{"context": "gatehouse/verdict", "integration_id": 4711}]
    assert main["bypass_actors"] == [{"actor_id": 4711, "actor_type": "Integration", "bypass_mode": "always"}]
    reviews = rules(main)["pull_request"]
    assert reviews["require_code_owner_review"]
    assert reviews["required_approving_review_count"] == 1
    assert github.ruleset("records")["bypass_actors"] == main["bypass_actors"]
    assert set(rules(github.ruleset("records"))) == {"creation", "update"}
    for history in ("main: history", "records: history", "releases: history"):
        assert github.ruleset(history)["bypass_actors"] == []
        assert {"deletion", "non_fast_forward"} <= set(rules(github.ruleset(history)))
    assert "update" in rules(github.ruleset("releases: history"))
    production = github.environments["production"]
    assert production["protection_rules"][0]["reviewers"] == [{"type": "Team", "reviewer": {"id": 70}}]
    assert {(one["type"], one["name"]) for one in production["policies"]} == {("branch", "main")}


def test_without_an_app_it_still_applies_and_says_what_is_not_protected(github: Repository, folder: Path) -> None:
    done = bootstrap(github, folder, "--apply")
    assert done.returncode == 0, done.stderr
    open_points = [line for line in done.stdout.splitlines() if line.startswith("not protected: ")]
    assert len(open_points) == 4
    assert "gatehouse/verdict counts whoever sets it" in done.stdout
    assert "refs/heads/gatehouse can be written by everybody with write access" in done.stdout
    checks = rules(github.ruleset("main"))["required_status_checks"]["required_status_checks"]
    assert checks == [{"context": "gatehouse/verdict"}]
    assert "records" not in {one["name"] for one in github.rulesets.values()}, "a rule that locks the workflows out"
    assert "deletion" in rules(github.ruleset("records: history"))
    before = len(github.posts)
    assert "ok: " in bootstrap(github, folder, "--apply").stdout
    assert len(github.posts) == before


def test_a_pinned_status_is_not_unpinned_by_forgetting_the_app(github: Repository, folder: Path) -> None:
    bootstrap(github, folder, *APP, "--apply")
    assert bootstrap(github, folder, "--check").returncode == 0
    assert "by App 4711" in bootstrap(github, folder, "--app-id", "none").stdout


@pytest.mark.parametrize("where", ["environment", "file"])
def test_the_app_may_come_from_the_environment_or_from_variables_yml(
    github: Repository, folder: Path, where: str
) -> None:
    path = folder / ".github/variables.yml"
    if where == "file":
        path.write_text(path.read_text().rstrip() + '\n    value: "4711"\n')
    environment = {"GATEHOUSE_APP_ID": "4711"} if where == "environment" else {}
    done = bootstrap(github, folder, "--apply", **environment)
    assert done.returncode == 0, done.stderr
    assert "not protected" not in done.stdout
    assert github.variables == {"GATEHOUSE_APP_ID": "4711"}, "the workflows take the App's token where it is set"


def _ruleset_switched_off(github: Repository) -> None:
    github.ruleset("main")["enforcement"] = "disabled"


def _reviews_lowered(github: Repository) -> None:
    rules(github.ruleset("main"))["pull_request"]["required_approving_review_count"] = 0


def _bypass_added(github: Repository) -> None:
    actor = {"actor_id": 12, "actor_type": "User", "bypass_mode": "always"}
    github.ruleset("releases: history")["bypass_actors"].append(actor)


def _status_unpinned(github: Repository) -> None:
    del rules(github.ruleset("main"))["required_status_checks"]["required_status_checks"][0]["integration_id"]


def _rule_removed(github: Repository) -> None:
    ruleset = github.ruleset("releases: history")
    ruleset["rules"] = [rule for rule in ruleset["rules"] if rule["type"] != "update"]


def _branch_excluded(github: Repository) -> None:
    github.ruleset("main")["conditions"]["ref_name"]["exclude"] = ["refs/heads/main"]


def _ruleset_deleted(github: Repository) -> None:
    del github.rulesets[github.ruleset("main")["id"]]


def _label_recoloured(github: Repository) -> None:
    github.labels["gate"]["color"] = "ffffff"


def _label_capitals(github: Repository) -> None:
    github.labels["gate"]["name"] = "Gate"


def _reviewer_replaced(github: Repository) -> None:
    rule = github.environments["production"]["protection_rules"][0]
    rule["reviewers"] = [{"type": "User", "reviewer": {"id": 12}}]


def _own_approval_allowed(github: Repository) -> None:
    github.environments["production"]["protection_rules"][0]["prevent_self_review"] = False


def _any_branch_deploys(github: Repository) -> None:
    github.environments["production"] |= {"deployment_branch_policy": None, "policies": []}


def _a_branch_more_deploys(github: Repository) -> None:
    github.environments["production"]["policies"].append({"id": 5, "type": "branch", "name": "hack"})


def _variable_set(github: Repository) -> None:
    github.variables["GATEHOUSE_SHARDS"] = "9"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_ruleset_switched_off, 'ruleset main (.github/rulesets/main.json): enforcement is "disabled"'),
        (_reviews_lowered, "parameters.pull_request.required_approving_review_count is 0, the file says 1"),
        (_bypass_added, 'bypass_actors is ["User 12 always"], the file says []'),
        (_status_unpinned, 'is ["gatehouse/verdict"], the file says ["gatehouse/verdict by App 4711"]'),
        (_rule_removed, 'rules is ["deletion", "non_fast_forward"], the file says'),
        (_branch_excluded, 'exclude is ["refs/heads/main"], the file says []'),
        (_ruleset_deleted, "ruleset main (.github/rulesets/main.json): is missing"),
        (_label_recoloured, 'label gate (.github/labels.yml): color is "ffffff", the file says "b60205"'),
        (_label_capitals, 'name is "Gate", the file says "gate"'),
        (_reviewer_replaced, 'reviewers is ["User 12"], the file says ["Team 70"]'),
        (_own_approval_allowed, "prevent_self_review is false, the file says true"),
        (_any_branch_deploys, 'branches is "all", the file says ["main"]'),
        (_a_branch_more_deploys, 'branches is ["hack", "main"], the file says ["main"]'),
        (_variable_set, "variable GATEHOUSE_SHARDS (.github/variables.yml): is '9', the file leaves it"),
    ],
)
def test_drift_is_named_fails_the_check_and_is_mended(
    github: Repository, folder: Path, change: Any, words: str
) -> None:
    bootstrap(github, folder, *APP, "--apply")
    change(github)
    before = len(github.posts)
    checked = bootstrap(github, folder, *APP, "--check")
    assert (checked.returncode, len(github.posts)) == (3, before), checked.stdout + checked.stderr
    assert words in checked.stdout
    assert "1 setting differs" in checked.stdout
    assert bootstrap(github, folder, *APP, "--apply").returncode == 0
    assert bootstrap(github, folder, *APP, "--check").returncode == 0


def test_what_is_only_in_the_repository_is_named_and_left_alone(github: Repository, folder: Path) -> None:
    bootstrap(github, folder, *APP, "--apply")
    github.variables["GATEHOUSE_SHARD"] = "4"
    github.variables["TEAM_CHANNEL"] = "support"
    github.rulesets[9] = github.ruleset("main") | {"id": 9, "name": "old\n::error::main"}
    done = bootstrap(github, folder, *APP, "--check")
    assert done.returncode == 3
    assert "variable GATEHOUSE_SHARD (.github/variables.yml): is in no file, no workflow reads it" in done.stdout
    assert "ruleset old\\n::error::main (.github/rulesets): is in no file" in done.stdout
    assert "TEAM_CHANNEL" not in done.stdout
    before = len(github.posts)
    bootstrap(github, folder, *APP, "--apply")
    assert len(github.posts) == before


def test_settings_beyond_the_first_page_are_found(github: Repository, folder: Path) -> None:
    bootstrap(github, folder, *APP, "--apply")
    github.labels = {f"l{at}": {"name": f"l{at}", "color": "000000"} for at in range(150)} | github.labels
    github.variables |= {f"A_{at:03}": "1" for at in range(70)} | {"GATEHOUSE_ZEAL": "1"}
    done = bootstrap(github, folder, *APP, "--check")
    assert done.stdout.splitlines()[0].startswith("variable GATEHOUSE_ZEAL"), done.stdout
    assert "1 setting differs" in done.stdout


@pytest.mark.parametrize(
    ("permissions", "words"),
    [
        ({"issues": "write", "variables": "write"}, "ruleset main: history: GitHub refuses POST"),
        ({"administration": "write", "variables": "write"}, "label prompt: GitHub refuses POST"),
        ({"administration": "write", "issues": "write", "variables": "read"}, "variable GATEHOUSE_SHARDS"),
    ],
)
def test_a_missing_permission_is_one_clear_line(
    github: Repository, folder: Path, permissions: dict[str, str], words: str
) -> None:
    github.variables["GATEHOUSE_SHARDS"] = "9"
    github.allow(**permissions)
    done = bootstrap(github, folder, *APP, "--apply")
    assert done.returncode == 5
    complaint, code = done.stderr.splitlines()[-2:]
    assert complaint.startswith("error: ")
    assert words in complaint
    needed = "Administration" if "ruleset" in words else "Issues" if "label" in words else "Variables"
    assert f"the token needs {needed}: write" in complaint
    assert code == "exit code 5"


def test_a_token_that_may_read_only_cannot_vouch_for_the_bypasses(github: Repository, folder: Path) -> None:
    bootstrap(github, folder, *APP, "--apply")
    github.allow(administration="read", variables="read")
    done = bootstrap(github, folder, *APP, "--check")
    assert done.returncode == 4, done.stderr
    assert done.stdout.count("who may bypass it is not shown to this token") == 6


def test_a_wrong_token_and_a_missing_one_are_one_line_each(github: Repository, folder: Path) -> None:
    wrong = bootstrap(github, folder, GH_TOKEN="expired")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (5, 2)
    assert "401" in wrong.stderr
    none = bootstrap(github, folder, GH_TOKEN="")
    assert (none.returncode, none.stderr.count("\n")) == (2, 2)
    assert "GH_TOKEN" in none.stderr


def test_a_missing_repository_is_asked_for(github: Repository, folder: Path) -> None:
    done = bootstrap(github, folder, GITHUB_REPOSITORY="")
    assert done.returncode == 2
    assert "which repository? Say --repository owner/name" in done.stderr


def test_a_private_repository_without_required_reviewers_falls_back_and_says_to_what(folder: Path) -> None:
    with Repository(private=True, plan="team") as github:
        done = bootstrap(github, folder, *APP, "--apply")
        assert done.returncode == 0, done.stderr
        notes = [line for line in done.stdout.splitlines() if line.startswith("not protected: ")]
        asked = [" environment production", " environment manual-review"]
        assert [note.split(":")[1] for note in notes] == asked
        assert all("a CODEOWNER's approving review of exactly the head commit" in note for note in notes)
        production = github.environments["production"]
        assert production["protection_rules"] == []
        assert {one["name"] for one in production["policies"]} == {"main"}, "what the plan has is still applied"
        before = len(github.posts)
        again = bootstrap(github, folder, *APP, "--apply")
        assert len(github.posts) == before, "nothing is written a second time"
        assert again.stdout.count("not protected: ") == len(asked)


def test_a_private_repository_on_the_free_plan_is_told_that_nothing_is_held(folder: Path) -> None:
    with Repository(private=True, plan="free") as github:
        done = bootstrap(github, folder, *APP, "--apply")
        assert done.returncode == 0, done.stderr
        assert "not protected: this plan has no rulesets for private repositories" in done.stdout
        assert "not protected: environment verdict: this plan has no environments with rules" in done.stdout
        assert "done: environment verdict" not in done.stdout
        assert github.labels
        assert not github.rulesets
        assert set(github.environments) == {"pull-request", "manual-review"}
        assert not github.environments["manual-review"]["protection_rules"], "nobody can be asked, so it lifts nothing"
        assert "not protected: environment manual-review: this plan has no" in done.stdout
        checked = bootstrap(github, folder, *APP, "--check")
        assert checked.returncode == 3
        assert "ruleset (every one) (.github/rulesets): is missing, this plan has none" in checked.stdout


def test_an_app_that_is_not_installed_is_refused_in_one_line(github: Repository, folder: Path) -> None:
    done = bootstrap(github, folder, "--app-id", "99", "--apply")
    assert done.returncode == 5
    assert "ruleset main: " in done.stderr
    assert "422" in done.stderr
    bad = bootstrap(github, folder, "--app-id", "Iv1.abc", "--apply")
    assert bad.returncode == 2
    assert "not the client id" in bad.stderr


def test_the_templates_own_code_owner_is_refused_before_anything_is_changed(github: Repository, folder: Path) -> None:
    edit(folder / ".github/CODEOWNERS", "@acme/maintainers", "@your-organisation/maintainers")
    assert "no code owner's review is required" in bootstrap(github, folder, *APP).stdout
    done = bootstrap(github, folder, *APP, "--apply")
    assert done.returncode == 2
    assert ".github/CODEOWNERS" in done.stderr
    assert not github.posts


def test_owners_that_github_cannot_follow_are_named_as_unprotected(github: Repository, folder: Path) -> None:
    error = {"line": 9, "kind": "Unknown owner", "path": ".github/CODEOWNERS", "message": "", "column": 3}
    github.code_owner_errors = [error]
    done = bootstrap(github, folder, *APP)
    assert "not protected: .github/CODEOWNERS:9: Unknown owner" in done.stdout


def test_a_reviewer_whom_github_does_not_know_is_named_with_the_file(github: Repository, folder: Path) -> None:
    edit(folder / ".github/CODEOWNERS", "@acme/maintainers", "@acme/maintainer")
    done = bootstrap(github, folder, *APP, "--apply")
    assert done.returncode == 2
    assert ".github/CODEOWNERS: @acme/maintainer is no team that GitHub shows this token" in done.stderr
    assert not github.posts


def test_a_failure_half_way_is_mended_by_running_again(github: Repository, folder: Path) -> None:
    github.fail_next(422, path="/labels", method="POST")
    assert bootstrap(github, folder, *APP, "--apply").returncode == 5
    assert github.rulesets
    assert not github.environments
    assert bootstrap(github, folder, *APP, "--apply").returncode == 0
    assert bootstrap(github, folder, *APP, "--check").returncode == 0


def test_a_misspelt_key_is_named_with_file_and_line(github: Repository, folder: Path) -> None:
    path = folder / ".github/rulesets/main.json"
    edit(path, '"require_code_owner_review"', '"require_codeowner_review"')
    done = bootstrap(github, folder, *APP)
    line = 1 + path.read_text()[: path.read_text().index("require_codeowner")].count("\n")
    assert done.returncode == 2
    assert f"main.json:{line}: rules[1].parameters.require_codeowner_review: unknown key" in done.stderr
    assert json.loads(path.read_text()), "the file is JSON"
    assert not github.calls
