"""Build an overlay as `kustomize build` does, as far as k8s/ uses it; test_overlays.py holds it against kubectl's.

Of a kustomization: resources, components, configMapGenerator (files), namespace, images (newName, digest), patches
(strategic merge by path, JSON 6902 by target and inline). Anything else is refused, so that nothing is passed over.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]
KNOWN = {"apiVersion", "kind", "resources", "components", "configMapGenerator", "namespace", "images", "patches"}
MERGED_BY = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}


def build(folder: Path) -> list[Resource]:
    """Return the resources of an overlay."""
    resources = accumulate(folder, [])
    renamed = {}
    for resource in resources:
        if resource.pop("#generated", False):
            name = resource["metadata"]["name"]
            resource["metadata"]["name"] = renamed[name] = f"{name}-{content_hash(resource)}"
    for resource in resources:
        for volume in resource.get("spec", {}).get("template", {}).get("spec", {}).get("volumes", []):
            if "configMap" in volume:
                volume["configMap"]["name"] = renamed.get(volume["configMap"]["name"], volume["configMap"]["name"])
    return resources


def accumulate(folder: Path, given: list[Resource]) -> list[Resource]:
    """Return what a kustomization makes of what is given to it (a component) and of what it names."""
    declared = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(declared) <= KNOWN, f"{folder}: {set(declared) - KNOWN} is not built here"
    resources = list(given)
    for name in declared.get("resources", []):
        path = (folder / name).resolve()
        resources += (
            accumulate(path, []) if path.is_dir() else [one for one in yaml.safe_load_all(path.read_text()) if one]
        )
    for name in declared.get("components", []):
        resources = accumulate((folder / name).resolve(), resources)
    for generator in declared.get("configMapGenerator", []):
        resources.append(config_map(folder, generator))
    for patch in declared.get("patches", []):
        apply(folder, patch, resources)
    for image in declared.get("images", []):
        replace_image(image, resources)
    if namespace := declared.get("namespace"):
        for resource in resources:
            resource["metadata"]["name" if resource["kind"] == "Namespace" else "namespace"] = namespace
    return resources


def config_map(folder: Path, declared: Resource) -> Resource:
    """Return a generated ConfigMap; its name gets a hash of its content at the end."""
    assert set(declared) == {"name", "files"}
    data = {}
    for name in declared["files"]:
        path = (folder / name).resolve()
        assert path.is_relative_to(folder.resolve()), f"{path}: kustomize reads no file outside of its folder"
        data[path.name] = path.read_text()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": declared["name"]},
        "data": data,
        "#generated": True,
    }


def content_hash(resource: Resource) -> str:
    """Return the suffix of a ConfigMap: SHA-256 of its JSON as Go writes it, its letters chosen to spell no words."""
    value = {"kind": "ConfigMap", "name": "", "data": resource["data"]}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return digest.translate(str.maketrans("013ae", "ghkmt"))


def apply(folder: Path, declared: Resource, resources: list[Resource]) -> None:
    """Apply one patch in place."""
    if "path" in declared:
        assert set(declared) == {"path"}
        patch = yaml.safe_load((folder / declared["path"]).read_text())
        (target,) = [one for one in resources if identity(one) == identity(patch)]
        target.update(merged(target, patch))
        return
    assert set(declared) == {"target", "patch"}
    assert set(declared["target"]) == {"kind", "name"}
    found = [one for one in resources if identity(one) == (declared["target"]["kind"], declared["target"]["name"])]
    assert found, f"{folder}: nothing is {declared['target']}"
    for resource in found:
        for operation in yaml.safe_load(declared["patch"]):
            assert operation["op"] == "replace"
            *parents, last = [int(part) if part.isdigit() else part for part in operation["path"].split("/")[1:]]
            place: Any = resource
            for part in parents:
                place = place[part]
            assert not isinstance(place, dict) or last in place, f"{operation['path']} replaces nothing"
            place[last] = operation["value"]


def identity(resource: Resource) -> tuple[str, str]:
    return resource["kind"], resource["metadata"]["name"]


def merged(value: Any, patch: Any, name: str = "") -> Any:
    """Return a strategic merge: keys by key, the lists of MERGED_BY by their key, other lists replaced."""
    if isinstance(value, dict) and isinstance(patch, dict):
        return {**value, **{key: merged(value.get(key), part, key) for key, part in patch.items()}}
    if isinstance(value, list) and isinstance(patch, list) and name in MERGED_BY:
        key = MERGED_BY[name]
        parts = {part[key]: part for part in patch}
        assert set(parts) <= {one[key] for one in value}, f"{name}: {set(parts)} is not all there"
        return [merged(one, parts[one[key]]) if one[key] in parts else one for one in value]
    return patch


def replace_image(declared: Resource, resources: list[Resource]) -> None:
    """Name an image by digest wherever it is run."""
    assert set(declared) == {"name", "newName", "digest"}
    for resource in resources:
        for container in resource.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            if container["image"] == declared["name"]:
                container["image"] = f"{declared['newName']}@{declared['digest']}"
