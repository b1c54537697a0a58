from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.review.declarations import problems, texts
from pipelines.review.rulesets import json_of, with_app
from pipelines.review.settings import FILES, code_owners, load_settings

ROOT = Path(__file__).parent.parent.parent
SETTINGS = load_settings(ROOT)
RULESETS = {ruleset.name: ruleset for _, ruleset in SETTINGS.rulesets}
DOCUMENTED = json.loads((ROOT / "tests/schemas/ruleset.schema.json").read_text())
TAG = st.from_regex(r"v[0-9]+\.[0-9]+\.[0-9]+", fullmatch=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    return tmp_path


@pytest.mark.parametrize("name", RULESETS)
@pytest.mark.parametrize("app_id", [4711, None])
def test_every_ruleset_is_what_githubs_rest_api_documents(name: str, app_id: int | None) -> None:
    jsonschema.validate(json_of(RULESETS[name]), DOCUMENTED)
    body, _ = with_app(RULESETS[name], app_id)
    if body is not None:
        jsonschema.validate(body, DOCUMENTED)
        assert "0" not in re.findall(r'_id": ([0-9]+)', json.dumps(body)), "the placeholder never reaches GitHub"


@given(tag=TAG)
def test_every_release_tag_is_held_by_both_rulesets_on_tags(tag: str) -> None:
    for name in ("releases", "releases: history"):
        (pattern,) = RULESETS[name].conditions.ref_name.include
        assert fnmatch.fnmatchcase(f"refs/tags/{tag}", pattern)


def test_a_plus_sign_would_not_hold_a_release_tag() -> None:
    # Rulesets read patterns as fnmatch does, workflows' filters do not: `+` means something only there.
    assert not fnmatch.fnmatchcase("refs/tags/v1.2.3", "refs/tags/v[0-9]+.[0-9]+.[0-9]+")


def test_what_nobody_may_do_stands_in_rulesets_that_nobody_may_bypass() -> None:
    for ruleset in RULESETS.values():
        types = {rule.type for rule in ruleset.rules}
        if types & {"deletion", "non_fast_forward"}:
            assert ruleset.bypass_actors == (), f"a bypass holds for every rule of '{ruleset.name}'"


def test_every_label_that_a_file_gives_is_declared() -> None:
    declared = {label.name for label in SETTINGS.labels}
    dependabot = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())
    used = {label for update in dependabot["updates"] for label in update["labels"]}
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"):
        used |= set(yaml.safe_load(form.read_text())["labels"])
    assert used
    assert used <= declared


def test_every_variable_that_a_workflow_reads_is_declared_and_the_other_way_round() -> None:
    read = set()
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        read |= set(re.findall(r"\bvars\.([A-Z_]+)", workflow.read_text()))
    assert read <= set(SETTINGS.variables), "undeclared"
    assert set(SETTINGS.variables) <= read, "declared for nobody"


def test_every_environment_that_a_workflow_names_is_declared() -> None:
    declared = {environment.name for environment in SETTINGS.environments}
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(workflow.read_text())["jobs"].values():
            named = job.get("environment")
            name = named["name"] if isinstance(named, dict) else named
            assert name is None or name.startswith("${{") or name in declared


def test_whoever_writes_records_does_so_as_the_bot_where_there_is_one() -> None:
    # The ruleset `records` lets nobody else write the branch, GITHUB_TOKEN included.
    concluding = []
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(workflow.read_text())["jobs"].values():
            concluding += [step for step in job.get("steps", []) if step.get("uses") == "./actions/conclude"]
    assert concluding
    for step in concluding:
        assert step.get("with", {}).get("token") == "${{ steps.app.outputs.token || github.token }}"


def test_the_shipped_files_have_no_problem_and_the_schemas_accept_them() -> None:
    assert problems(ROOT) == []
    schemas = {name: json.loads(text) for name, text in texts().items()}
    for name, path in FILES.items():
        value = yaml.safe_load((ROOT / path).read_text())
        jsonschema.validate(value, schemas[f"schemas/{name}.schema.json"])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**value, "sed": 1}, schemas[f"schemas/{name}.schema.json"])


@pytest.mark.parametrize(
    ("path", "old", "new", "words"),
    [
        ("labels.yml", 'color: "b60205"', 'color: "#b60205"', "labels[2].color: string should match pattern"),
        ("labels.yml", "name: gate", "name: Data", "labels[2].name: 'data' is there twice"),
        ("environments.yml", "prevent_self_review", "prevent_selfreview", "did you mean 'prevent_self_review'?"),
        ("environments.yml", "reviewers: CODEOWNERS", "reviewers: [ada]", "@user or @organisation/team is needed"),
        ("environments.yml", "    reviewers: CODEOWNERS\n", "", "prevent_self_review: needs 'reviewers'"),
        ("variables.yml", "GATEHOUSE_SHARDS:", "GATEHOUSE_SHARD:", "did you mean 'GATEHOUSE_SHARDS'?"),
        ("variables.yml", "spread; default 1.", "spread.\n    value: '0'", "a whole number from 1 to 256"),
        (
            "variables.yml",
            'unless it lives for one job; default "ubuntu-latest".',
            "which.\n    value: gpu",
            "JSON is needed",
        ),
        ("variables.yml", "default false.", "default false.\n    value: 'yes'", "true or false, in quotes, is needed"),
        ("variables.yml", "is released or reconciled.", "which.\n    value: a b", "local, or package.module"),
        ("variables.yml", "needed by the target kubernetes.", "x.\n    value: p:9090", "URL without a password"),
        ("variables.yml", "auto, cpu or cuda; default auto.", "which.\n    value: gpu", "auto, cpu or cuda is needed"),
        ("rulesets/main.json", '"integration_id": 0', '"integration": 0', "did you mean 'integration_id'?"),
        ("rulesets/main.json", '"squash"', '"sqash"', "did you mean 'squash'?"),
        ("rulesets/records.json", '"type": "update"', '"type": "updates"', "must be one of"),
        ("rulesets/records.json", '"type": "update"', '"type": "creation"', "rules[1].type: 'creation' is there twice"),
        ("rulesets/records.json", '"name": "records"', '"name": "Main"', "'main' is there twice"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(folder: Path, path: str, old: str, new: str, words: str) -> None:
    file = folder / ".github" / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    line = problems(folder)[0]
    assert words in line
    assert line.startswith(".github/")
    assert re.match(rf"\.github/{re.escape(path)}:[0-9]+: ", line) or "/rulesets: " in line


def test_a_file_that_is_gone_is_a_problem_and_no_settings_at_all_is_none(folder: Path, tmp_path: Path) -> None:
    (folder / ".github/labels.yml").unlink()
    (line,) = problems(folder)
    assert line.startswith(".github/labels.yml: no such file")
    shutil.rmtree(folder / ".github")
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("text", "owners"),
    [
        ("* @a @b/c # all\n/x @d\n", ("@a", "@b/c")),
        ("* @a\n* @b\n", ("@b",)),
        ("*.py @a\n", ()),
        ("# * @a\n", ()),
        ("* ada@example.org @a\n", ("@a",)),
    ],
)
def test_the_owners_of_everything_are_those_of_the_last_star(text: str, owners: Any) -> None:
    assert code_owners(text) == owners


SHAPES = {
    "vendor.dependabot": "dependabot.yml",
    "vendor.github-issue-config": "ISSUE_TEMPLATE/config.yml",
    "vendor.github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_github_reads_itself_has_githubs_shape(shape: str) -> None:
    files = sorted(map(str, (ROOT / ".github").glob(SHAPES[shape])))
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", shape, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_dependency_is_proposed_on_the_day_it_is_published() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "pip"}
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)


def test_code_owners_own_what_is_there_and_everything_else_comes_first() -> None:
    lines = [
        line.split() for line in (ROOT / ".github/CODEOWNERS").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert lines[0][0] == "*", "the last line that matches counts"
    for pattern, *owners in lines[1:]:
        assert (ROOT / pattern.strip("/")).exists(), pattern
        assert owners, f"{pattern} would be owned by nobody"
