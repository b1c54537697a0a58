"""`scripts.pin`: what an environment runs is written in one folder, by digest, and only if a gateway would take it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError
from pipelines.core.files import digest
from pipelines.release.kubernetes.released import merge
from pipelines.release.pin import pin
from tests.k8s.kustomize import build, identity

ROOT = Path(__file__).parents[2]
GATEWAY = f"registry.example/team/gateway@sha256:{'a' * 64}"
CANDIDATE = f"registry.example:5000/candidate@sha256:{'b' * 64}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("k8s", "prompts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("serving.yaml", "gates.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def texts(root: Path, environment: str) -> dict[str, str]:
    folder = root / "k8s/overlays" / environment
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def change(root: Path, environment: str, patch: dict[str, Any]) -> None:
    (root / f"k8s/overlays/{environment}/serving-patch.yaml").write_text(json.dumps(patch))


def test_what_is_given_is_pinned_and_the_rest_stays(root: Path) -> None:
    pin(root, "staging", GATEWAY, {})
    pins = pin(root, "staging", None, {"candidate": CANDIDATE})
    assert (str(pins.gateway), str(pins.models["candidate"].image)) == (GATEWAY, CANDIDATE)
    resources = {identity(resource): resource for resource in build(root / "k8s/overlays/staging")}
    gateway = resources["Deployment", "gateway"]["spec"]["template"]["spec"]
    vllm = resources["Rollout", "vllm"]["spec"]["template"]["spec"]
    assert [container["image"] for container in gateway["containers"]] == [GATEWAY]
    images = {volume["name"]: volume["image"]["reference"] for volume in vllm["volumes"] if "image" in volume}
    assert images == {"candidate": CANDIDATE, "base": str(pins.models["base"].image)}


def test_cached_answers_are_bound_to_the_models_bytes(root: Path) -> None:
    pin(root, "staging", None, {"candidate": CANDIDATE})
    served = yaml.safe_load(texts(root, "staging")["released/serving.yaml"])
    assert CANDIDATE.endswith(f"@{served['upstreams']['candidate']['digest']}")
    assert served["upstreams"]["base"]["digest"] != served["upstreams"]["candidate"]["digest"]


def test_again_it_changes_nothing_and_another_environment_is_left_alone(root: Path) -> None:
    before = texts(root, "production")
    pin(root, "staging", GATEWAY, {"candidate": CANDIDATE})
    first = texts(root, "staging")
    pin(root, "staging", None, {})
    assert texts(root, "staging") == first
    assert texts(root, "production") == before


def test_what_an_image_holds_is_said_by_the_folder_that_it_was_made_of(root: Path) -> None:
    assert pin(root, "staging", None, {"candidate": CANDIDATE}).models["candidate"].digest == ""
    (root / "models/candidate").mkdir(parents=True)
    (root / "models/candidate/model.json").write_text("{}")
    sha256 = hashlib.sha256(b"{}").hexdigest()
    held = pin(root, "staging", None, {"candidate": CANDIDATE}).models["candidate"]
    assert held.digest == digest({"model.json": sha256})
    assert pin(root, "staging", GATEWAY, {}).models["candidate"] == held, "kept"


def test_main_changes_nothing_that_runs_until_it_is_pinned(root: Path) -> None:
    before = build(root / "k8s/overlays/production")
    (root / "prompts/reply.prompt.yml").write_text(
        (root / "prompts/reply.prompt.yml").read_text().replace("name:", "# a new wording\nname:", 1)
    )
    assert build(root / "k8s/overlays/production") == before
    pin(root, "production", None, {})
    changed = [one["metadata"]["name"] for one in build(root / "k8s/overlays/production") if one not in before]
    assert len(changed) == 2, "the prompts, and the pods that read them"
    assert "gateway" in changed


@pytest.mark.parametrize(
    ("environment", "gateway", "models", "said"),
    [
        ("stagin", None, {}, r"--environment 'stagin': .* \(did you mean 'staging'\?\)"),
        ("../staging", None, {}, r"--environment '\.\./staging': .*"),
        ("staging", "registry.example/gateway:1.2.0", {}, r"--gateway '.*1\.2\.0' names no digest; .*"),
        ("staging", f"gateway@sha256:{'a' * 64}", {}, r"--gateway 'gateway' is no image; .*"),
        ("staging", f"r.example/g:1@sha256:{'a' * 64}", {}, r"--gateway 'r\.example/g:1' is no image; .*"),
        ("staging", f"r.example/g@sha256:{'A' * 64}", {}, r"--gateway .* names no digest; .*"),
        ("staging", None, {"candidat": CANDIDATE}, r"--model candidat: .* \(did you mean 'candidate'\?\)"),
        ("staging", None, {"base": ""}, r"--model base: '' names no digest; .*"),
    ],
)
def test_what_is_no_image_or_no_environment_is_refused_and_nothing_is_written(
    root: Path, environment: str, gateway: str | None, models: dict[str, str], said: str
) -> None:
    before = texts(root, "staging")
    with pytest.raises(ConfigError, match=f"^{said}$"):
        pin(root, environment, gateway, models)
    assert texts(root, "staging") == before


KEY = {"name": "one", "project": "support-desk", "sha256": "0" * 64}
VLLM = {"kind": "openai", "base_url": "http://vllm-stable:8000/v1", "port": None}
SERVED = {"upstreams": {"candidate": VLLM, "base": VLLM}, "keys": [KEY]}


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({}, r".*upstreams\.candidate: is a process of one machine; .*"),
        (SERVED | {"keys": []}, r".*keys: none is declared; .*"),
        (SERVED | {"keys": [KEY | {"project": "desk"}]}, r".*unknown project 'desk'.*"),
        ({"limitz": {}}, r"serving\.yaml with k8s/overlays/staging/serving-patch\.yaml: limitz: unknown key.*"),
        ({"prices": None}, r".*prices.*"),
        ({"routes": None}, r".*routes.*"),
        (SERVED | {"routes": {"reply": {"prompt": "prompts/judges/README.md"}}}, r".*prompts/ itself.*"),
    ],
)  # fmt: skip
def test_what_a_gateway_would_refuse_is_never_pinned(root: Path, patch: dict[str, Any], said: str) -> None:
    change(root, "staging", patch)
    before = texts(root, "staging")
    with pytest.raises(ConfigError, match=f"^{said}$"):
        pin(root, "staging", None, {})
    assert texts(root, "staging") == before


def test_a_folder_that_somebody_edited_is_not_guessed_at(root: Path) -> None:
    (root / "k8s/overlays/staging/released/kustomization.yaml").write_text("images: []\n")
    with pytest.raises(ConfigError, match=r"released: is not as `scripts.pin` wrote it; restore it from Git$"):
        pin(root, "staging", None, {})


# The cases of RFC 7386, appendix A.
@pytest.mark.parametrize(
    ("value", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_applied_as_the_standard_says(value: Any, patch: Any, result: Any) -> None:
    assert merge(value, patch) == result


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_a_patch_applied_twice_is_the_patch_applied_once(value: Any, patch: Any) -> None:
    once = merge(value, patch)
    assert merge(once, patch) == once
