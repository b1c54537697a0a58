"""A contributor who wants a green status without deserving it; nothing here may ever reach `pass`."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.core.files import sha256, write_json
from pipelines.core.records import Record, read, write
from pipelines.review import received
from tests.evaluation.test_baseline import git
from tests.review.world import (
    AUTHOR,
    FILES,
    GATES,
    N_ROWS,
    OWNER,
    World,
    data_rows,
    jsonl,
    relocated,
    resealed,
    seal,
)
from tests.standin.github import GitHub

BETTER = {"prompts/triage.prompt.yml": FILES["prompts/triage.prompt.yml"].replace("Label:", "Please label:")}
CODE = {"pipelines/code.py": "A = 2\n"}
ROWS = "evaluation/triage/rows.parquet"


@pytest.fixture
def world(built: Path, tmp_path: Path) -> Iterator[World]:
    with GitHub(repository="o/r") as github:
        found = World(relocated(built, tmp_path / "world"), github)
        yield found
        # Whatever a test looked at: no commit of it was ever green, and nothing it wrote can be taken over.
        states = [one["state"] for said in github.statuses.values() for one in said]
        assert "success" not in states
        for name in git(found.folder / "origin", "ls-tree", "-r", "--name-only", "gatehouse").splitlines():
            record = read(Path(name).stem, found.main)
            assert record is not None
            assert record.pull_request is None or not record.is_trusted


# --- the artifact ---------------------------------------------------------------------------------------------


def edited(artifact: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = artifact / ROWS
    pq.write_table(change(pq.read_table(path)), path)


def column(name: str, values: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        new = pa.array(values(table[name].to_pylist()), type=table[name].type)
        return table.set_column(table.column_names.index(name), name, new)

    return change


def first(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value, *values[1:]]


FORGED_ROWS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a row is missing": lambda table: table.slice(1),
    "a row is there twice": lambda table: pa.concat_tables([table, table.slice(0, 1)]),
    "an easy row is added": lambda table: pa.concat_tables([table, column("id", first("f" * 16))(table.slice(0, 1))]),
    "an id is another": column("id", first("f" * 16)),
    "a gold answer is another": column("gold", first("what the model said")),
    "an input is another": column("input", first('{"message": "easy"}')),
    "an input is no JSON": column("input", first("[" * 5000)),
    "a slice is another": column("slice", first("easy")),
    "a twin is invented": column("twin", first("t")),
    "a repeat is invented": column("repeat", first(7)),
    "a score is above its range": column("exact_match", first(5.0)),
    "a score is not there": column("exact_match", first(float("nan"))),
    "a state is unknown": column("state", first("brilliant")),
    "a column is gone": lambda table: table.drop_columns(["gold"]),
    "a column has a hostile name": lambda table: table.rename_columns(["id", "../x", *table.column_names[2:]]),
    "no rows at all": lambda table: table.slice(0, 0),
    "a column of lists": lambda table: table.append_column("extra", pa.array([[1]] * table.num_rows)),
    "texts where numbers belong": lambda table: table.set_column(
        table.column_names.index("exact_match"), "exact_match", pa.array(["1.0x"] * table.num_rows)
    ),
}


@pytest.mark.parametrize("forgery", FORGED_ROWS)
def test_forged_rows_are_an_error(world: World, forgery: str) -> None:
    head = world.change(BETTER)
    artifact = world.evaluate(head)
    edited(artifact, FORGED_ROWS[forgery])
    seal(artifact, head=head, base=git(world.dev, "rev-parse", "origin/main"))
    context, concluded = world.ask(head, artifact)
    assert (context.state, concluded.verdict) == ("failed", "error")
    assert ROWS in context.reason or "rows" in context.reason
    assert world.status(head) == "error"
    assert not (world.main / "judging/evaluation/triage").exists()


def link(place: Path, target: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def linked_folder(artifact: Path) -> None:
    shutil.move(artifact / "evaluation", artifact.parent / "elsewhere")
    (artifact / "evaluation").symlink_to(artifact.parent / "elsewhere")


def huge(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        stream.truncate(size)


def many(artifact: Path) -> None:
    for number in range(600):
        (artifact / f"file-{number}").touch()


def hard_link(artifact: Path) -> None:
    (artifact / "other").hardlink_to(artifact / ROWS)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def exchanged(path: Path) -> None:
    write_json(path, {**json.loads(path.read_text()), "created": "2026-11-20T00:00:00+00:00", "digest": "e"})


def claimed(artifact: Path, **claims: Any) -> None:
    resealed(artifact, lambda one: one.update(claims))


def unlocked(artifact: Path) -> None:
    (artifact / "dvc.lock").unlink()
    resealed(artifact, lambda one: one["files"].pop("dvc.lock"))


HOSTILE_FILES: dict[str, Callable[[Path], None]] = {
    "a link to a secret": lambda artifact: link(artifact / "evaluation/triage/run.json", "/etc/passwd"),
    "a link nobody reads": lambda artifact: link(artifact / "docs/notes", "/etc/passwd"),
    "a folder that is a link": linked_folder,
    "a hard link": hard_link,
    "a pipe": lambda artifact: os.mkfifo(artifact / "evaluation/triage/pipe"),
    "a manifest that is a pipe": lambda artifact: piped(artifact / "manifest.json"),
    "a huge file": lambda artifact: huge(artifact / "evaluation/triage/run.json", 17 << 20),
    "a huge manifest": lambda artifact: huge(artifact / "manifest.json", 33 << 20),
    "a huge file nobody reads": lambda artifact: huge(artifact / "core", 3 << 30),
    "very many files": many,
    "no manifest": lambda artifact: (artifact / "manifest.json").unlink(),
    "a manifest cut off": lambda artifact: (artifact / "manifest.json").write_text('{"schema_version": 1, "head'),
    "a manifest of arrays": lambda artifact: (artifact / "manifest.json").write_text("[" * 100_000),
    "a manifest that is a list": lambda artifact: (artifact / "manifest.json").write_text("[]"),
    "a manifest of another version": lambda artifact: claimed(artifact, schema_version=2),
    "a manifest with a hostile head": lambda artifact: claimed(artifact, head="--upload-pack=x"),
    "a manifest with a hostile base": lambda artifact: claimed(artifact, base="--output=/tmp/x"),
    "rows that the manifest does not name": lambda artifact: resealed(artifact, lambda one: one["files"].pop(ROWS)),
    "rows under another hash": lambda artifact: resealed(artifact, lambda one: one["files"].update({ROWS: "0" * 64})),
    "a run.json cut off": lambda artifact: (artifact / "evaluation/triage/run.json").write_text("{"),
    "a run.json that was exchanged": lambda artifact: exchanged(artifact / "evaluation/triage/run.json"),
    "a model's card that was exchanged": lambda artifact: exchanged(artifact / "models/candidate/model.json"),
    "a file that is missing": lambda artifact: (artifact / "evaluation/triage/run.json").unlink(),
    "objects that name other bytes": lambda artifact: resealed(
        artifact, lambda one: one["objects"][ROWS].update(sha256="0" * 64)),
    "objects that leave the repository": lambda artifact: resealed(
        artifact, lambda one: one["objects"].update({"../../x": one["objects"][ROWS]})),
    "no lock": unlocked,
    "an empty folder": lambda artifact: (shutil.rmtree(artifact), artifact.mkdir())[1],
    "nothing": lambda artifact: shutil.rmtree(artifact),
}  # fmt: skip


@pytest.mark.parametrize("trick", HOSTILE_FILES)
def test_a_hostile_artifact_is_an_error(world: World, trick: str) -> None:
    head = world.change(BETTER)
    artifact = world.evaluate(head)
    HOSTILE_FILES[trick](artifact)
    context, concluded = world.ask(head, artifact)
    assert (context.state, concluded.verdict) == ("failed", "error"), trick
    assert "root:" not in json.dumps(context.model_dump())
    assert str(world.folder) not in context.reason


SEALED: dict[str, Callable[[Path], None]] = {
    "no Parquet file": lambda artifact: (artifact / ROWS).write_bytes(b"PAR1" + os.urandom(5000) + b"PAR1"),
    "an empty one": lambda artifact: (artifact / ROWS).write_bytes(b""),
    "one cut off": lambda artifact: (artifact / ROWS).write_bytes((artifact / ROWS).read_bytes()[:-100]),
    "one of far too many rows": lambda artifact: pq.write_table(
        pa.table({"id": pa.array(["x"] * 2_000_000)}), artifact / ROWS, compression="zstd"),
    "a cell of a gigabyte": lambda artifact: pq.write_table(
        pa.table({"id": ["x" * (1 << 30)], "state": ["scored"]}), artifact / ROWS, compression="zstd"),
    "a lock that is no lock": lambda artifact: (artifact / "dvc.lock").write_text("stages: 7\n"),
    "a lock that constructs objects": lambda artifact: (artifact / "dvc.lock").write_text(
        "!!python/object/apply:os.system ['touch /tmp/gatehouse-was-here']\n"),
    "a suite of another name": lambda artifact: (artifact / "evaluation/triage").rename(artifact / "evaluation/other"),
    "a run of another data set": lambda artifact: (artifact / "evaluation/triage/run.json").write_text("{}"),
    "a run with infinities": lambda artifact: (artifact / "evaluation/triage/run.json").write_text('{"a": 1e999}'),
}  # fmt: skip


@pytest.mark.parametrize("trick", SEALED)
def test_a_hostile_file_under_its_right_hash_is_an_error(world: World, trick: str) -> None:
    head = world.change(BETTER)
    artifact = world.evaluate(head)
    base = git(world.dev, "rev-parse", "origin/main")
    SEALED[trick](artifact)
    if "lock" in trick:
        resealed(artifact, lambda one: one["files"].update({"dvc.lock": sha256(artifact / "dvc.lock")}))
    else:
        seal(artifact, head=head, base=base)
    context, concluded = world.ask(head, artifact)
    assert (context.state, concluded.verdict) == ("failed", "error"), context
    assert not Path("/tmp/gatehouse-was-here").exists()


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return target


def bomb(archive: zipfile.ZipFile) -> None:
    with archive.open("evaluation/triage/run.json", "w", force_zip64=True) as stream:
        for _ in range(40):
            stream.write(b"\0" * (1 << 20))


def escape(archive: zipfile.ZipFile) -> None:
    archive.writestr("../../evil.py", "x")


def link_entry(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("dvc.lock")
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, "/etc/passwd")


def twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("manifest.json", "{}")


@pytest.mark.parametrize("trick", [bomb, escape, link_entry, twice])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_zip_file_is_an_error(world: World, trick: Callable[[zipfile.ZipFile], None]) -> None:
    head = world.change(BETTER)
    artifact = world.evaluate(head)
    if trick is bomb:
        (artifact / "evaluation/triage/run.json").unlink()
    packed = zipped(artifact, world.folder / "artifact.zip")
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        trick(archive)
    assert packed.stat().st_size < 1 << 20
    assert world.ask(head, packed)[0].state == "failed"
    assert not (world.folder / "evil.py").exists()
    broken = world.folder / "broken.zip"
    broken.write_bytes(packed.read_bytes()[:2000])
    assert world.ask(head, broken)[0].state == "failed"


def test_an_honest_zip_file_is_as_good_as_a_folder(built: Path, tmp_path: Path) -> None:
    with GitHub(repository="o/r") as github:
        world = World(relocated(built, tmp_path / "world"), github)
        head = world.change(BETTER)
        packed = zipped(world.evaluate(head), world.folder / "artifact.zip")
        assert world.ask(head, packed)[1].verdict == "pass"


# --- who it claims to be --------------------------------------------------------------------------------------


def test_another_pull_requests_artifact_is_an_error(world: World) -> None:
    good, bad = world.change(BETTER), world.change(CODE, "bad")
    world.open(8, bad, "bad")
    context, concluded = world.judge(world.event(bad, "bad"), world.evaluate(good))
    assert (context.number, context.state, concluded.verdict) == (8, "failed", "error")
    assert world.status(good) is None


def test_what_the_artifact_says_of_its_number_is_never_asked(world: World) -> None:
    head = world.change(CODE)
    artifact = world.evaluate(head)
    resealed(artifact, lambda one: one.update(number=99, pull_request=99, author=OWNER, approval={"user": OWNER}))
    world.open(99, world.change(BETTER, "victim"), "victim")
    context, concluded = world.ask(head, artifact)
    assert (context.number, concluded.verdict, context.approval) == (7, "manual_review", None)


@pytest.mark.parametrize(
    "run",
    [
        {"path": ".github/workflows/evil.yml"},
        {"path": ".github/workflows/pull-request.yml/evil.yml"},
        {"path": "dynamic/pull-request.yml"},
        {"path": ""},
        {"event": "push"},
        {"event": "workflow_dispatch"},
    ],
)
def test_a_workflow_of_the_same_name_is_not_the_evaluation(world: World, run: dict[str, str]) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    context, concluded = world.judge(world.event(head, **run), world.evaluate(head))
    assert (context.state, concluded.verdict) == ("stale", "")
    assert world.github.posts == []


def test_a_review_wakes_nothing_but_the_evaluations_own_file(world: World) -> None:
    head = world.change(CODE)
    world.open(7, head)
    evil = world.event(head, path=".github/workflows/evil.yml")["workflow_run"]
    other = world.event("a" * 40)["workflow_run"]
    fork = world.event(head, head_repository={"full_name": "eve/r"})["workflow_run"]
    woken = world.event(head, event="pull_request_review", path=".github/workflows/review.yml")
    world.github.runs = [evil, other, fork]
    assert world.judge(woken, world.evaluate(head))[0].state == "stale"


def test_a_head_that_moved_on_gets_no_verdict_of_the_old_one(world: World) -> None:
    old = world.change(BETTER)
    artifact = world.evaluate(old)
    new = world.change(CODE)
    world.open(7, new)
    assert world.judge(world.event(old), artifact)[0].state == "stale"
    context, _ = world.judge(world.event(new), artifact)
    assert context.state == "failed"
    assert world.status(new) == "error"


def test_a_push_while_it_is_judged_gets_no_status(world: World) -> None:
    old = world.change(BETTER)
    artifact = world.evaluate(old)
    world.open(7, old)
    new = world.change(CODE)
    from pipelines.evaluation.deciding.judgement import judge
    from pipelines.review.conclusion import conclude
    from pipelines.review.judging import receive

    folder = world.main / "judging"
    context = receive(world.api, world.event(old), artifact, folder, world.main)
    judge(context.base, folder, repository=world.main, cap=context.cap)
    world.open(7, new)
    assert conclude(world.api, folder, world.main).verdict == ""
    assert world.github.posts == []


@pytest.mark.parametrize("more", [{"base_branch": "loose"}, {"state": "closed"}])
def test_a_pull_request_to_another_branch_or_a_closed_one_is_not_judged(world: World, more: dict[str, str]) -> None:
    head = world.change(BETTER)
    world.open(7, head, **more)
    assert world.judge(world.event(head), world.evaluate(head))[0].state == "closed"
    assert world.github.posts == []


def test_a_fork_never_passes_by_itself(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head, fork="eve/r")
    event = world.event(head, head_repository={"full_name": "eve/r"})
    context, concluded = world.judge(event, world.evaluate(head))
    assert (context.is_fork, concluded.verdict) == (True, "manual_review")


def test_a_fork_cannot_speak_for_a_branch_of_the_same_name_here(world: World) -> None:
    head = world.change(BETTER)
    world.open(7, head)
    event = world.event(head, head_repository={"full_name": "eve/r"})
    assert world.judge(event, world.evaluate(head))[0].state == "closed"


def another_base(world: World) -> None:
    evil = world.change({"pipelines/code.py": "A = 'forged'\n"}, "evil-base")
    git(world.dev, "push", "--quiet", "--force", "origin", f"{evil}:evil-base")


@pytest.mark.parametrize("state", ["open", "closed"])
def test_a_run_of_the_same_branch_to_another_base_never_passes(world: World, state: str) -> None:
    another_base(world)
    head = world.change(BETTER)
    world.open(8, head, base_branch="evil-base", state=state)
    context, concluded = world.ask(head, world.evaluate(head))  # run 77 may be that of pull request 8
    assert concluded.verdict == "manual_review", concluded
    assert "pull request 8 to another base" in context.caps[0]


@pytest.mark.parametrize("event", ["base_ref_changed", "automatic_base_change_succeeded"])
def test_a_run_from_before_the_base_was_changed_never_passes(world: World, event: str) -> None:
    another_base(world)
    head = world.change(BETTER)
    world.open(7, head, base_branch="evil-base")
    run = world.event(head)
    assert world.judge(run, world.evaluate(head))[0].state == "closed"
    world.github.retarget(7, "main", event)  # which starts no run
    world.github.review(7, "eve", "COMMENTED", head)
    world.github.runs = [run["workflow_run"]]
    woken = world.event(head, id=78, path=".github/workflows/review.yml", event="pull_request_review")
    context, concluded = world.judge(woken, world.evaluate(head))
    assert concluded.verdict == "manual_review", concluded
    assert "the base of pull request 7 was changed" in context.caps[0]


def test_a_pull_request_that_was_moved_to_main_and_closed_is_not_forgotten(world: World) -> None:
    another_base(world)
    head = world.change(BETTER)
    world.open(8, head, base_branch="evil-base")
    world.github.retarget(8, "main")
    world.github.pulls[8]["state"] = "closed"
    context, concluded = world.ask(head, world.evaluate(head))
    assert concluded.verdict == "manual_review", concluded
    assert "the base of pull request 8 was changed" in context.caps[0]


def test_more_events_than_are_read_are_no_proof(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.review import bases

    monkeypatch.setattr(bases, "MOST_EVENTS", 40)
    head = world.change(BETTER)
    world.github.events[7] = [{"id": number, "event": "labeled"} for number in range(41)]
    assert world.ask(head, world.evaluate(head))[1].verdict == "manual_review"


# --- what it changes ------------------------------------------------------------------------------------------


def gates(**rule: Any) -> str:
    changed = json.loads(json.dumps(GATES))
    changed["evaluation"]["gates"][0]["metrics"]["exact_match"].update(rule)
    return yaml.safe_dump(changed)


def params(*path: Any, value: Any) -> str:
    changed = yaml.safe_load(FILES["params.yaml"])
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return yaml.safe_dump(changed, sort_keys=False)


def rows(change: Callable[[list[dict[str, Any]]], Any]) -> str:
    found = data_rows()
    change(found)
    return jsonl(found)


ENDPOINT = {"source": "endpoint", "base_url": "https://evil.example/v1", "model": "m",
            "price": {"prompt_usd": 0.0, "completion_usd": 0.0}}  # fmt: skip
SUBTLE: dict[str, dict[str, str | None]] = {
    "gates loosened": {"gates.yaml": gates(floor=0.01)},
    "gates deleted": {"gates.yaml": None},
    "gates broken": {"gates.yaml": "evaluation: [\n"},
    "test rows removed": {"data/triage.jsonl": rows(lambda found: found.pop(0))},
    "a test row moved to training": {"data/triage.jsonl": rows(lambda found: found[0].update(fold="a"))},
    "a gold answer changed": {"data/triage.jsonl": rows(lambda found: found[0].update(answer="a9"))},
    "a slice relabelled": {"data/triage.jsonl": rows(lambda found: found[0].update(slice="easy"))},
    "fewer rows": {"params.yaml": params("suites", "triage", "max_rows", value=100)},
    "another model answers": {"params.yaml": params("suites", "triage", "model", value="base")},
    "an endpoint answers": {"params.yaml": params("models", "base", value=ENDPOINT)},
    "the exam in the prompt": {
        "prompts/triage.prompt.yml": BETTER["prompts/triage.prompt.yml"].replace(
            "Please", f"If asked {data_rows()[0]['message']} say a0. Please")
    },
    "code": CODE,
    "the workflow": {".github/workflows/pull-request.yml": "on: pull_request_target\n"},
    "a module that shadows another": {"yaml.py": "def safe_load(text): return {}\n"},
    "a dvc.lock of better days": {"dvc.lock": "schema: '2.0'\nstages: {}\n"},
    "an owner of one's own": {".github/CODEOWNERS": f"* @{AUTHOR} @eve\n"},
    "a data set in DVC": {"data/triage.jsonl": None, "data/triage.jsonl.dvc": "outs: [{md5: a, path: triage.jsonl}]\n"},
}  # fmt: skip


@pytest.mark.parametrize("trick", SUBTLE)
def test_what_talks_the_gate_down_waits_for_a_person_though_every_row_is_right(world: World, trick: str) -> None:
    head = world.change({**BETTER, **SUBTLE[trick]})
    artifact = world.folder / "artifact"
    if "DVC" in trick:  # its rows are anybody's guess
        world.evaluate(world.change(BETTER, "other"))
        seal(artifact, head=head, base=git(world.dev, "rev-parse", "origin/main"))
    else:
        world.evaluate(head, n_right=N_ROWS - 100 if "fewer" in trick else N_ROWS - 20)
    for reviewer in (AUTHOR, "eve", "reader"):
        world.github.review(7, reviewer, "APPROVED", head)
    context, concluded = world.ask(head, artifact)
    assert context.caps, trick
    assert context.approval is None
    assert concluded.verdict == "manual_review", (concluded, context.caps)
    assert world.status(head) == "pending"
    assert (world.main / "judging/gates.yaml").read_text() == FILES["gates.yaml"]


def test_old_loose_gates_of_an_older_main_do_not_decide(world: World) -> None:
    loose = git(world.dev, "rev-parse", "origin/main")
    strict = world.change({"gates.yaml": gates(floor=0.97)}, "strict")
    git(world.dev, "push", "--quiet", "origin", f"{strict}:main")
    git(world.dev, "fetch", "--quiet", "origin")
    head = world.change(BETTER, start=loose)
    context, concluded = world.ask(head, world.evaluate(head, base=loose))
    assert concluded.verdict == "fail", concluded
    assert any("update the branch" in cap for cap in context.caps)


def test_a_base_that_main_never_had_is_an_error(world: World) -> None:
    weak = world.change({"gates.yaml": gates(floor=0.01)}, "weak")
    head = world.change(BETTER, start=weak)
    context, _ = world.ask(head, world.evaluate(head, base=weak))
    assert context.state == "failed"
    assert "main does not have" in context.reason


@pytest.mark.parametrize("name", ["params.yaml", "data/triage.jsonl", "prompts/triage.prompt.yml"])
def test_a_declared_file_that_is_a_link_or_gone_is_an_error(world: World, name: str) -> None:
    honest = world.evaluate(world.change(BETTER))
    for is_link in (True, False):
        git(world.dev, "checkout", "--quiet", "-B", "change", "origin/main")
        (world.dev / name).unlink()
        if is_link:
            (world.dev / name).symlink_to("/etc/passwd")
        git(world.dev, "add", "--all")
        git(world.dev, "commit", "--quiet", "--message", "Link")
        git(world.dev, "push", "--quiet", "--force", "origin", "change")
        head = git(world.dev, "rev-parse", "HEAD")
        seal(honest, head=head, base=git(world.dev, "rev-parse", "origin/main"))
        context, concluded = world.ask(head, honest)
        assert (context.state, concluded.verdict) == ("failed", "error")
        assert "root:" not in context.reason


@pytest.mark.parametrize("is_checked", [True, False])
def test_a_tree_that_leads_out_of_the_folder_writes_nothing(
    world: World, is_checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.core import git as objects

    if not is_checked:  # as if Git had let the objects in
        words = ("fetch", "--quiet", "--end-of-options", "origin")
        monkeypatch.setattr(objects, "fetch_untrusted", lambda root, what: objects.git(root, *words, what))
    target = world.main / "pipelines/code.py"
    before = target.read_bytes()
    honest = world.evaluate(world.change(BETTER))
    blob = git(world.dev, "rev-parse", "HEAD:docs/a.md")
    entry = b"100644 ../../pipelines/code.py\0" + bytes.fromhex(blob)
    tree = literal(world, entry)
    listed = git(world.dev, "ls-tree", "HEAD").splitlines()
    kept = [line for line in listed if not line.endswith("\tprompts")]
    assert len(kept) == len(listed) - 1
    made = objects.git(world.dev, "mktree", "-z", stdin="\0".join([*kept, f"040000 tree {tree}\tprompts"]).encode())
    head = git(world.dev, "commit-tree", "-p", "origin/main", "-m", "Forge", made.decode().strip())
    git(world.dev, "push", "--quiet", "--force", "origin", f"{head}:refs/heads/change")
    seal(honest, head=head, base=git(world.dev, "rev-parse", "origin/main"))
    context, concluded = world.ask(head, honest)
    assert (context.state, concluded.verdict) == ("failed", "error")
    assert ("no plain path" in context.reason, "git fetch" in context.reason) == (not is_checked, is_checked)
    assert target.read_bytes() == before


def literal(world: World, entries: bytes) -> str:
    from pipelines.core import git as objects

    write = ("hash-object", "-t", "tree", "-w", "--literally", "--stdin")
    return objects.git(world.dev, *write, stdin=entries).decode().strip()


def test_a_folder_with_a_way_out_is_not_written_through(world: World, tmp_path: Path) -> None:
    from pipelines.core.errors import ConfigError
    from pipelines.review.revision import lay_out

    (tmp_path / "to").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "to/prompts").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="leads out of the folder"):
        lay_out(world.main, "HEAD", tmp_path / "to")
    assert list((tmp_path / "outside").iterdir()) == []


def test_params_that_grow_without_end_are_an_error(world: World) -> None:
    laughs = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + at)}: &{chr(98 + at)} [*{chr(97 + at)}, *{chr(97 + at)}]\n" for at in range(25)
    )
    honest = world.evaluate(world.change(BETTER))
    head = world.change({"params.yaml": laughs + FILES["params.yaml"]})
    seal(honest, head=head, base=git(world.dev, "rev-parse", "origin/main"))
    assert world.ask(head, honest)[0].state == "failed"


# --- approvals ------------------------------------------------------------------------------------------------


def by_author(world: World, head: str) -> None:
    world.github.review(7, AUTHOR, "APPROVED", head)


def by_somebody(world: World, head: str) -> None:
    world.github.review(7, "eve", "APPROVED", head)


def by_a_team_that_owns_something_else(world: World, head: str) -> None:
    world.github.review(7, "teammate", "APPROVED", head)


def of_an_older_commit(world: World, head: str) -> None:
    world.github.review(7, OWNER, "APPROVED", git(world.dev, "rev-parse", f"{head}~1"))


def dismissed(world: World, head: str) -> None:
    world.github.review(7, OWNER, "APPROVED", head)["state"] = "DISMISSED"


def taken_back(world: World, head: str) -> None:
    world.github.review(7, OWNER, "APPROVED", head)
    world.github.review(7, OWNER, "CHANGES_REQUESTED", head)


def a_comment_that_says_so(world: World, head: str) -> None:
    world.github.review(7, OWNER, "COMMENTED", head)["body"] = "APPROVED"


def by_a_bot(world: World, head: str) -> None:
    world.github.review(7, f"{OWNER}[bot]", "APPROVED", head)
    review = world.github.review(7, OWNER, "APPROVED", head)
    review["user"]["type"] = "Bot"


def by_an_owner_who_may_not_write(world: World, head: str) -> None:
    world.github.collaborators[OWNER] = "read"
    world.github.review(7, OWNER, "APPROVED", head)


def on_another_pull_request(world: World, head: str) -> None:
    world.github.pull(8, head=head, branch="other", author=AUTHOR)
    world.github.review(8, OWNER, "APPROVED", head)


FORGED = [by_author, by_somebody, by_a_team_that_owns_something_else, of_an_older_commit, dismissed, taken_back,
          a_comment_that_says_so, by_a_bot, by_an_owner_who_may_not_write, on_another_pull_request]  # fmt: skip


@pytest.mark.parametrize("approve", FORGED)
def test_no_forged_approval_lifts_anything(world: World, approve: Callable[[World, str], None]) -> None:
    head = world.change(CODE)
    approve(world, head)
    context, concluded = world.ask(head, world.evaluate(head))
    assert (context.approval, concluded.verdict) == (None, "manual_review")
    assert "has to approve" in context.lacking or "asks for changes" in context.lacking


def test_the_owner_cannot_approve_an_own_pull_request(world: World) -> None:
    head = world.change(CODE)
    world.github.review(7, OWNER, "APPROVED", head)
    assert world.ask(head, world.evaluate(head), author=OWNER)[1].verdict == "manual_review"


def test_without_owners_on_main_nobody_lifts_anything(world: World) -> None:
    gone = world.change({".github/CODEOWNERS": None}, "gone")
    git(world.dev, "push", "--quiet", "origin", f"{gone}:main")
    git(world.dev, "fetch", "--quiet", "origin")
    head = world.change({**CODE, ".github/CODEOWNERS": f"* @{OWNER}\n"})
    world.github.review(7, OWNER, "APPROVED", head)
    context, concluded = world.ask(head, world.evaluate(head))
    assert (context.approval, concluded.verdict) == (None, "manual_review")
    assert "main has no CODEOWNERS" in context.lacking


# --- records --------------------------------------------------------------------------------------------------


def test_forged_rows_of_mains_own_inputs_never_replace_mains_record(world: World) -> None:
    head = world.change({".github/workflows/pull-request.yml": "on: [pull_request, push]\n"})
    digest = read_digest(world)
    before = read(digest, world.main)
    assert before is not None
    context, concluded = world.ask(head, world.evaluate(head, n_right=N_ROWS))
    assert (context.input_digest, concluded.verdict, concluded.recorded) == (digest, "manual_review", False)
    assert read(digest, world.main) == before


def read_digest(world: World) -> str:
    from pipelines.core.inputs import input_digest_at

    return input_digest_at("origin/main", world.main)


def test_a_forged_record_of_a_pull_request_is_no_baseline(world: World) -> None:
    from pipelines.evaluation.baseline import fetch_baseline

    digest = read_digest(world)
    record = read(digest, world.main)
    assert record is not None
    assert fetch_baseline("HEAD", world.main).state == "fetched"
    forged = Record.model_validate({**record.model_dump(), "pull_request": 7, "verdict": "manual_review"})
    write(forged.as_file(), "Forge", world.main)
    shutil.rmtree(world.main / "evaluation")
    assert fetch_baseline("HEAD", world.main).state == "unavailable"


def test_altered_objects_of_the_baseline_are_no_baseline(world: World) -> None:
    for path in (world.main / ".dvc/cache/files/md5").rglob("*"):
        if path.is_file():
            path.write_bytes(b"altered")
    head = world.change(BETTER)
    _, concluded = world.ask(head, world.evaluate(head))
    assert concluded.verdict == "manual_review"
    assert "could not be had" in concluded.said or "baseline" in concluded.said


def test_a_decision_written_by_somebody_else_is_not_concluded(world: World) -> None:
    from pipelines.core.errors import ConfigError
    from pipelines.review.conclusion import conclude
    from pipelines.review.judging import receive

    head = world.change(CODE)
    world.open(7, head)
    folder = world.main / "judging"
    receive(world.api, world.event(head), world.evaluate(head), folder, world.main)
    write_json(folder / "evaluation/decision.json", {"verdict": "pass", "commit": "a" * 40, "input_digest": "b" * 64})
    with pytest.raises(ConfigError, match="is not about the commit"):
        conclude(world.api, folder, world.main)


def test_an_old_verdict_in_a_dirty_workspace_is_gone(world: World) -> None:
    head = world.change(CODE)
    folder = world.main / "judging"
    write_json(folder / "evaluation/decision.json", {"verdict": "pass", "commit": head})
    context, concluded = world.ask(head, None)
    assert (context.state, concluded.verdict) == ("failed", "error")


@pytest.mark.parametrize("status", [500, 401, 403, 404])
def test_githubs_refusal_is_no_approval_and_no_pass(world: World, status: int) -> None:
    from pipelines.core.errors import ServiceError

    head = world.change(CODE)
    artifact = world.evaluate(head)
    world.open(7, head)
    world.github.review(7, OWNER, "APPROVED", head)
    world.github.fail_next(status, 1000, path="/reviews")
    with pytest.raises(ServiceError):
        world.judge(world.event(head), artifact)
    assert world.status(head) is None


def test_known_names_leave_no_way_out() -> None:
    for name in ("../manifest.json", "/dvc.lock", "evaluation/../rows.parquet", "evaluation/a/b/rows.parquet",
                 "evaluation//rows.parquet", "evaluation/baseline/baseline.json", "dvc.lock\n", "context.json",
                 "gates.yaml", "params.yaml", "evaluation/decision.json", "evaluation/report.md"):  # fmt: skip
        assert received._limit(name) is None, name
