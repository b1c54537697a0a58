"""Parts of a release on this machine, each by itself: the generated serving file, models by digest, kept counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core import records
from pipelines.core.errors import ServiceError
from pipelines.core.inputs import input_digest_at
from pipelines.release import manifest as manifests
from pipelines.release.local import model_files, serving_file
from pipelines.release.local.declared import DeclaredAt, taking_part
from pipelines.release.local.fault import spoiled
from pipelines.release.local.kept import KeptCounts
from pipelines.release.local.serving_file import Placed
from pipelines.release.manifest import Manifest
from pipelines.release.tags import Tagged
from pipelines.release.version import parse_tag
from pipelines.serving.references import load_checked
from tests.release.local.laptop import PROMPT, SERVING, Laptop

BASE = {"kind": "process", "model": "base", "port": 8102}
REPLY = {"salt": "r", "variants": {"stable": {"upstream": "base", "weight": 1}}, "prompt": "prompts/reply.prompt.yml"}


@pytest.fixture
def fresh(decided: Laptop, tmp_path: Path) -> Laptop:
    folder = tmp_path / "laptop"
    shutil.copytree(decided.root, folder)
    return Laptop(folder)


def manifest_of(laptop: Laptop, images: Mapping[str, str] = {}) -> Manifest:
    commit = laptop.git("rev-parse", "HEAD")
    digest = input_digest_at(commit, laptop.root)
    record = records.read(digest, laptop.root, None)
    assert record is not None
    tagged = Tagged(parse_tag("v1.0.0"), "1" * 40, commit, "2026-11-21T00:00:00Z", digest, record)
    return manifests.build(laptop.root, tagged, images)


def text(value: Any) -> str:
    return yaml.safe_dump(json.loads(json.dumps(value)))


def test_both_versions_are_variants_with_their_own_prompt_and_process_and_the_gateway_accepts_the_file(
    fresh: Laptop, tmp_path: Path
) -> None:
    stable = DeclaredAt(fresh.root, manifest_of(fresh))
    worded = {**PROMPT, "messages": [{"role": "user", "content": "Label: {{message}}"}]}
    fresh.commit({"prompts/triage.prompt.yml": text(worded)}, "Word it anew")
    candidate = DeclaredAt(fresh.root, manifest_of(fresh))
    folder = tmp_path / "gateway"
    urls = [{"candidate": f"http://127.0.0.1:{port}"} for port in (1001, 1002)]
    found = serving_file.write(folder, Placed(stable, urls[0]), Placed(candidate, urls[1]))
    variants = found["routes"]["triage"]["variants"]
    assert [found["upstreams"][variants[side]["upstream"]]["base_url"] for side in ("stable", "candidate")] == [
        "http://127.0.0.1:1001/v1",
        "http://127.0.0.1:1002/v1",
    ]
    prompts = [(folder / variants[side]["prompt"]).read_text() for side in ("stable", "candidate")]
    assert ["Label: " in one for one in prompts] == [False, True]
    assert found["rollout"] == {"weights": {"file": "split.json"}}
    assert "caches" not in found
    assert "fallbacks" not in found["routes"]["triage"]
    serving = load_checked(folder / "serving.yaml", folder)
    assert serving.guardrails.keys() == {"labels"}
    alone = serving_file.write(folder, Placed(stable, urls[0]), None)
    assert ("rollout" in alone, list(alone["routes"]["triage"]["variants"])) == (False, ["stable"])
    load_checked(folder / "serving.yaml", folder)


def test_a_route_on_the_base_takes_part_only_if_it_differs(fresh: Laptop) -> None:
    serving = {
        **SERVING,
        "upstreams": {**SERVING["upstreams"], "base": BASE},
        "prices": {**SERVING["prices"], "base": SERVING["prices"]["candidate"]},
        "routes": {**SERVING["routes"], "reply": REPLY},
    }
    reply = {**PROMPT, "name": "reply"}
    fresh.commit({"serving.yaml": text(serving), "prompts/reply.prompt.yml": text(reply)}, "Reply too")
    stable = DeclaredAt(fresh.root, manifest_of(fresh))
    assert taking_part(stable, None) == ["triage"]
    assert taking_part(stable, stable) == ["triage"]
    fresh.commit({"prompts/reply.prompt.yml": text({**reply, "description": "warmer"})}, "Be warmer")
    assert sorted(taking_part(stable, DeclaredAt(fresh.root, manifest_of(fresh)))) == ["reply", "triage"]


def test_a_model_is_taken_by_its_digest_and_an_altered_one_by_no_path(fresh: Laptop, tmp_path: Path) -> None:
    manifest = manifest_of(fresh)
    place = model_files.lay_out(fresh.root, manifest, "candidate", tmp_path / "models")
    weights = place / "models/candidate/model.safetensors"
    assert weights.stat().st_ino == (fresh.root / "models/candidate/model.safetensors").stat().st_ino
    shutil.rmtree(tmp_path / "models")
    altered = fresh.root / "models/candidate/config.json"
    good = altered.read_bytes()
    altered.write_text("{}")
    fresh.git("init", "--quiet")
    (fresh.root / ".dvc").mkdir()
    (fresh.root / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = false\n")
    with pytest.raises(ServiceError, match=r"^models/candidate/config.json: object [0-9a-f]{32} is in no cache"):
        model_files.lay_out(fresh.root, manifest, "candidate", tmp_path / "models")
    record = records.read(manifest.input_digest, fresh.root, None)
    assert record is not None
    md5 = record.manifest["models/candidate/config.json"].md5
    kept = fresh.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(good)
    place = model_files.lay_out(fresh.root, manifest, "candidate", tmp_path / "models")
    assert (place / "models/candidate/config.json").read_bytes() == good


def test_models_that_nobody_used_for_long_are_forgotten_first(tmp_path: Path) -> None:
    import os

    for age, name in enumerate("fedcba"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1_000_000 + age, 1_000_000 + age))
    model_files.forget(tmp_path, {tmp_path / "f"})  # its process runs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d", "f"]


def test_a_model_that_lies_there_from_an_earlier_run_is_used_only_unaltered(fresh: Laptop, tmp_path: Path) -> None:
    manifest, folder = manifest_of(fresh), tmp_path / "models"
    config = model_files.lay_out(fresh.root, manifest, "candidate", folder) / "models/candidate/config.json"
    good = config.read_bytes()
    config.unlink()
    config.write_text("{}")
    model_files.lay_out(fresh.root, manifest, "candidate", folder)
    assert config.read_bytes() == good


def test_counts_of_a_gateway_that_is_gone_stay_beside_those_of_the_next(tmp_path: Path) -> None:
    kept = KeptCounts(tmp_path)
    for process, n in (("b1", 1), ("b1", 2), ("a2", 5)):
        kept.keep({"rollout": "r.1", "process": process, "counters": {"n": n}})
    assert KeptCounts(tmp_path).of("r.1") == [{"n": 2}, {"n": 5}]
    assert kept.of("r.2") == []
    kept.keep({"rollout": "../r", "process": "x", "counters": {}})
    assert kept.of("../r") == []
    kept.keep_unit("r.1", "request")
    assert (kept.unit("r.1"), kept.unit("r.2")) == ("request", "user")
    assert len(kept.of("r.1")) == 2


def test_a_spoiled_answer_is_no_json_any_more() -> None:
    answer = {"choices": [{"message": {"content": '{"intent": "fault"}'}}]}
    found = json.loads(spoiled(json.dumps(answer).encode()))["choices"][0]["message"]["content"]
    assert found == '{"intent"'
