"""Build an overlay as `kustomize build` does, as far as k8s/ uses it; test_overlays.py holds it against kubectl's.

Of a kustomization: resources, components, configMapGenerator (files), generatorOptions (annotations), namespace, images
(newName, digest), patches (strategic merge by path; JSON 6902 by target, inline or by path: test and replace). Anything
else is refused, so that nothing is passed over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipelines.release.kubernetes.configuration import map_name

Resource = dict[str, Any]
KNOWN = {
    "apiVersion", "kind", "resources", "components", "configMapGenerator", "generatorOptions", "namespace", "images",
    "patches",
}  # fmt: skip
MERGED_BY = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}


def build(folder: Path) -> list[Resource]:
    """Return the resources of an overlay."""
    resources = accumulate(folder, [])
    renamed = {}
    for resource in resources:
        if resource.pop("#generated", False):
            name = resource["metadata"]["name"]
            resource["metadata"]["name"] = renamed[name] = map_name(name, resource["data"])
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
        resources.append(config_map(folder, generator, declared.get("generatorOptions", {})))
    for patch in declared.get("patches", []):
        apply(folder, patch, resources)
    for image in declared.get("images", []):
        replace_image(image, resources)
    if namespace := declared.get("namespace"):
        for resource in resources:
            resource["metadata"]["name" if resource["kind"] == "Namespace" else "namespace"] = namespace
            for subject in resource.get("subjects", []):
                if "namespace" not in subject and ("ServiceAccount", subject["name"]) in map(identity, resources):
                    subject["namespace"] = namespace
    return resources


def config_map(folder: Path, declared: Resource, options: Resource) -> Resource:
    """Return a generated ConfigMap; its name gets a hash of its content at the end."""
    assert set(declared) == {"name", "files"}
    assert set(options) <= {"annotations"}
    data = {}
    for name in declared["files"]:
        path = (folder / name).resolve()
        assert path.is_relative_to(folder.resolve()), f"{path}: kustomize reads no file outside of its folder"
        data[path.name] = path.read_text()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": declared["name"], **options},
        "data": data,
        "#generated": True,
    }


def apply(folder: Path, declared: Resource, resources: list[Resource]) -> None:
    """Apply one patch in place."""
    if "target" not in declared:
        assert set(declared) == {"path"}
        patch = yaml.safe_load((folder / declared["path"]).read_text())
        (target,) = [one for one in resources if identity(one) == identity(patch)]
        target.update(merged(target, patch))
        return
    assert set(declared) in ({"target", "patch"}, {"target", "path"})
    operations = yaml.safe_load(declared["patch"] if "patch" in declared else (folder / declared["path"]).read_text())
    assert set(declared["target"]) == {"kind", "name"}
    found = [one for one in resources if identity(one) == (declared["target"]["kind"], declared["target"]["name"])]
    assert found, f"{folder}: nothing is {declared['target']}"
    for resource in found:
        for operation in operations:
            assert operation["op"] in ("test", "replace")
            parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
            *parents, last = [int(part) if part.isdigit() else part for part in parts]
            place: Any = resource
            for part in parents:
                place = place[part]
            assert not isinstance(place, dict) or last in place, f"{operation['path']} replaces nothing"
            assert operation["op"] == "replace" or place[last] == operation["value"], f"{operation['path']}: is another"
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
