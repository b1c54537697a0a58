"""What a gateway is given while two versions serve, and what is read back from it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core.errors import ConfigError
from pipelines.core.gates import Gates
from pipelines.release.kubernetes import cluster, smoke
from pipelines.release.kubernetes.cluster import HOLDS, MODEL, images_of, pins_of
from pipelines.release.kubernetes.configuration import Version, alone, beside, map_name
from pipelines.release.kubernetes.released import Held, Pins
from pipelines.release.kubernetes.rollout import ladder
from pipelines.release.manifest import Decided, Manifest, Model
from pipelines.release.reference import Reference
from tests.release.kubernetes.place import CANARY, ROOT

VLLM = {"kind": "openai", "base_url": "http://vllm-stable:8000/v1"}
SERVING: dict[str, Any] = {
    "upstreams": {
        "candidate": {**VLLM, "model": "candidate", "digest": "sha256:a"},
        "base": {**VLLM, "model": "base", "digest": "sha256:b"},
        "elsewhere": {"kind": "openai", "base_url": "https://api.example/v1", "model": "large"},
    },
    "routes": {
        "triage": {
            "salt": "s", "prompt": "prompts/triage.prompt.yml",
            "variants": {"stable": {"upstream": "candidate", "weight": 100, "users": ["rita"]}},
        },
        "reply": {"tiers": [{"upstream": "base"}], "prompt": "prompts/reply.prompt.yml"},
        "large": {"tiers": [{"upstream": "elsewhere"}]},
        "ladder": {"tiers": [{"upstream": "base", "escalate": {"tools": True}}, {"upstream": "elsewhere"}]},
        "split": {"salt": "t", "variants": {"a": {"upstream": "base"}, "b": {"upstream": "elsewhere"}}},
    },
}  # fmt: skip
PROMPTS = {"prompts/triage.prompt.yml": "triage", "prompts/reply.prompt.yml": "reply"}
STABLE = Version(SERVING, PROMPTS, "gates")


def changed(prompts: dict[str, str] | None = None, **digests: str) -> Version:
    serving = copy.deepcopy(SERVING)
    for name, digest in digests.items():
        serving["upstreams"][name]["digest"] = digest
    return Version(serving, {**PROMPTS, **(prompts or {})}, "new gates")


def split(version: Version) -> set[str]:
    return {
        name
        for name, route in beside(STABLE, version).serving["routes"].items()
        if "candidate" in route.get("variants", {})
    }


def test_a_route_takes_part_if_its_model_is_the_released_one_or_it_differs() -> None:
    assert split(STABLE) == {"triage"}
    assert split(changed(candidate="sha256:c")) == {"triage"}
    assert split(changed({"prompts/reply.prompt.yml": "warmer"})) == {"triage", "reply"}
    assert split(changed(base="sha256:d")) == {"triage", "reply"}


def test_each_side_has_its_own_upstream_prompt_and_identity() -> None:
    found = beside(STABLE, changed({"prompts/triage.prompt.yml": "sharper"}, candidate="sha256:c"))
    sides = found.serving["routes"]["triage"]["variants"]
    assert sides["stable"] == {"upstream": "candidate", "weight": 100, "users": ["rita", "gatehouse-smoke-stable"]}
    assert sides["candidate"] == {
        "upstream": "candidate-next", "weight": 0, "users": ["gatehouse-smoke-candidate"],
        "prompt": "prompts/next.triage.prompt.yml",
    }  # fmt: skip
    assert found.prompts["prompts/next.triage.prompt.yml"] == "sharper"
    twin = found.serving["upstreams"]["candidate-next"]
    assert (twin["base_url"], twin["digest"]) == ("http://vllm-candidate:8000/v1", "sha256:c")
    assert found.gates == "new gates", "the candidate is judged by its own"
    assert "elsewhere-next" not in found.serving["upstreams"]


def test_stable_is_read_back_as_it_was_and_again_the_same() -> None:
    once = beside(STABLE, STABLE)
    back = alone(once)
    assert (back.serving, back.prompts, back.gates) == (SERVING, PROMPTS, "gates")
    assert beside(back, back).maps() == once.maps()
    assert STABLE.serving == SERVING, "nothing is changed in place"


def test_a_map_is_named_as_kustomize_names_it() -> None:
    # kubectl kustomize of a configMapGenerator {name: x, files: [a.txt]}, a.txt holding: <&> \u2028 é and a line's end
    assert map_name("x", {"a.txt": "<&> \u2028 é\n"}) == NAMED


NAMED = "x-254cdf9ckk"


def test_a_ladder_takes_whole_percents_only() -> None:
    value = yaml.safe_load((ROOT / "gates.yaml").read_text()) | {"canary": copy.deepcopy(CANARY)}
    value["canary"]["kubernetes"]["stages"][0]["weight"] = 2.5
    with pytest.raises(
        ConfigError, match=r"^gates\.yaml: canary-1: weight 2\.5: Argo Rollouts knows whole percents only$"
    ):
        ladder(Gates.model_validate(value))
    del value["canary"]["kubernetes"]
    value["canary"]["local"] = CANARY["kubernetes"]
    with pytest.raises(ConfigError, match=r"^gates\.yaml: canary: declares nothing for kubernetes"):
        ladder(Gates.model_validate(value))


# --- images ---------------------------------------------------------------------------------------------------

IMAGE = "registry.example/x@sha256:" + "a" * 64


def manifest(images: dict[str, str]) -> Manifest:
    decided = Decided(verdict="pass", commit="", created="", run_url="", pull_request=None, approval=None)
    return Manifest(
        version="1.0.0", tag="v1.0.0", tag_object="", commit="", tree="", input_digest="", model_digest="",
        content_digest="", models={"candidate": Model(digest="d1", files={})}, prompts={}, data={}, gates_sha256="",
        params_sha256="", serving_sha256="", locks={}, dvc_lock_sha256="", images=images, decision=decided, created="",
    )  # fmt: skip


def test_an_image_that_holds_another_model_than_the_tags_is_refused() -> None:
    images = {"gateway": IMAGE, f"{MODEL}candidate": IMAGE, f"{MODEL}candidate{HOLDS}": "d1"}
    assert str(pins_of(manifest(images)).models["candidate"].image) == IMAGE
    with pytest.raises(
        ConfigError, match=r"^manifest of v1\.0\.0: images\.model-candidate: holds model d2, the tag's is d1"
    ):
        pins_of(manifest(images | {f"{MODEL}candidate{HOLDS}": "d2"}))
    with pytest.raises(ConfigError, match=r"names no gateway or no model; it was not made for Kubernetes$"):
        pins_of(manifest({}))


def test_what_nobody_pinned_or_knows_is_not_released() -> None:
    image = Reference("registry.example/x", "sha256:" + "a" * 64)
    never = image._replace(digest="sha256:" + "0" * 64)
    assert images_of(Pins(image, {"base": Held(image, "d")}))["model-base-holds"] == "d"
    with pytest.raises(ConfigError, match=r"^k8s/overlays/staging/released: no images are pinned; "):
        images_of(Pins(image, {"base": Held(never, "d")}))
    with pytest.raises(ConfigError, match=r"models\.yaml: base: nobody knows which model its image holds; "):
        images_of(Pins(image, {"base": Held(image)}))


# --- smoke ----------------------------------------------------------------------------------------------------


def shipped() -> Version:
    texts = {f"prompts/{path.name}": path.read_text() for path in (ROOT / "prompts").glob("*.yml")}
    return Version(yaml.safe_load((ROOT / "serving.yaml").read_text()), texts, "")


def test_every_route_is_asked_by_the_test_data_of_its_prompt() -> None:
    assert set(smoke.prompts_of(shipped())) == {"triage", "reply"}
    assert all(prompt.test_data for prompt in smoke.prompts_of(shipped()).values())


def test_a_gateway_that_is_away_passes_no_smoke_test() -> None:
    assert smoke.test("http://127.0.0.1:1", "", "stable", shipped()) == (
        False, "0 of 2 questions answered well; triage: no answer"
    )  # fmt: skip


def test_without_a_question_nothing_is_passed() -> None:
    with pytest.raises(ConfigError, match=r"^prompts/: none that serving\.yaml names has testData"):
        smoke.test("http://127.0.0.1:1", "", "stable", Version({"routes": {}}, {}, ""))


@pytest.mark.parametrize(
    ("status", "value", "wrong"),
    [
        (200, {"output": {"intent": "fault", "product": "hub", "urgency": "low"}}, ""),
        (200, {"output": {"intent": "fault"}}, "an answer that does not fit its schema"),
        (200, {"output": ""}, "an empty answer"),
        (200, ["x"], "200 "),
        (429, {"error": {"message": "spent\n::set-env"}}, "429 spent\\n::set-env"),
        (0, None, "no answer"),
    ],
)
def test_an_answer_is_held_against_its_prompts_schema(status: int, value: Any, wrong: str) -> None:
    assert smoke._wrong(status, value, smoke.prompts_of(shipped())["triage"]) == wrong


def test_overlays_name_their_namespaces(tmp_path: Path) -> None:
    from pipelines.release.kubernetes.cluster import namespace_of

    assert namespace_of(ROOT, "production") == "gatehouse-production"
    overlay = tmp_path / "k8s/overlays/production"
    overlay.mkdir(parents=True)
    (overlay / "kustomization.yaml").write_text("resources: []\n")
    with pytest.raises(ConfigError, match=r"^k8s/overlays/production/kustomization\.yaml: namespace: is missing"):
        namespace_of(tmp_path, "production")


def test_a_way_back_needs_no_pin_of_staging() -> None:
    built = cluster.build(ROOT)  # where nothing was ever pinned
    with pytest.raises(ConfigError, match="no images are pinned"):
        dict(built.images)
