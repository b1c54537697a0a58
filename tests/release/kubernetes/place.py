"""A repository with the shipped overlays, and a cluster that Argo CD keeps at its main branch."""

from __future__ import annotations

import copy
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.files import digest
from pipelines.core.inputs import input_digest_at
from pipelines.core.records import Output
from pipelines.release import machine
from pipelines.release.kubernetes.access import Access
from pipelines.release.kubernetes.api import Api
from pipelines.release.kubernetes.cluster import HOLDS, MODEL, Versions
from pipelines.release.kubernetes.target import KubernetesTarget
from pipelines.release.targets import CountersUnavailable, Smoked
from pipelines.release.world import World
from tests.k8s.kustomize import build
from tests.release.kubernetes.cluster import KINDS, TOKEN, Cluster, Resource, serve
from tests.release.scripted import ScriptedClock, ScriptedRegistry
from tests.release.site import Site, git

ROOT = Path(__file__).parents[3]
BUILT: dict[tuple[str, str], list[Resource]] = {}
NAMESPACES = {"production": "gatehouse-production", "staging": "gatehouse-staging"}
CANARY = {
    "kubernetes": {
        "requests_per_minute": 1200,
        "gates": {"error_rate": {"ceiling": 0.05}},
        "stages": [
            {"weight": 10, "require": "no_harm", "min_requests": 10, "max_duration_s": 120},
            {"weight": 100, "require": "no_harm", "min_requests": 10, "max_duration_s": 120},
        ],
    }
}


class Place:
    """A site whose target is the stand-in of a cluster."""

    def __init__(self, folder: Path) -> None:
        self.site = Site.make(folder / "site", has_remote=False)
        self.cluster = Cluster()
        self.server = serve(self.cluster)
        self.is_counting = True
        self.images: dict[str, str] = {}
        self.said: list[str] = []
        gates = yaml.safe_load((ROOT / "gates.yaml").read_text())
        test = gates["ab_test"] | {"kubernetes": {"n_opt": 200, "window_s": 5, "max_duration_s": 120}}
        files = {
            "gates.yaml": yaml.safe_dump({**gates, "canary": CANARY, "ab_test": test}),
            "serving.yaml": (ROOT / "serving.yaml").read_text(),
        }
        for path in (*(ROOT / "k8s").rglob("*"), *(ROOT / "prompts").glob("*.yml")):
            if path.is_file() and "runners" not in path.parts:
                files[str(path.relative_to(ROOT))] = path.read_text()
        self.site.commit(files, "Bring what a cluster runs")
        self.decide()

    def decide(self) -> None:
        """Decide about the tip; both models are told by it."""
        commit = git(self.site.root, "rev-parse", "HEAD")
        sha256 = input_digest_at(commit, self.site.root)
        output = Output(sha256=sha256, size=3, md5="1" * 32)
        self.site.decide(
            commit, manifest={f"models/{name}/model.safetensors": output for name in ("base", "candidate")}
        )
        holds = digest({"model.safetensors": sha256})
        self.images = {"gateway": f"registry.example/gateway@sha256:{sha256}"}
        for name in ("base", "candidate"):
            self.images |= {
                f"{MODEL}{name}": f"registry.example/{name}@sha256:{sha256}",
                f"{MODEL}{name}{HOLDS}": holds,
            }

    def next(self, tag: str, prompt: str = "") -> None:
        """Commit another wording, decide, and tag it."""
        path = "prompts/triage.prompt.yml"
        text = (
            (ROOT / path).read_text().replace("Label the customer's message", f"For {prompt or tag}: label the message")
        )
        self.site.commit({path: text}, f"Word it for {tag}")
        self.decide()
        self.site.tag(tag)

    def target(self, **changes: Any) -> KubernetesTarget:
        port = self.server.server_address[1]
        api = Api(lambda: Access(f"http://127.0.0.1:{port}", token=TOKEN), nap=lambda seconds: None)
        values: dict[str, Any] = {
            "api": api, "namespaces": NAMESPACES, "environment": "production",
            "release_of": Versions(self.site.root).release, "counted": self.counted,
            "asked": lambda environment, slot, version: Smoked(True, f"{len(version.prompts)} of 2 answered"),
            "nap": lambda seconds: None, **changes,
        }  # fmt: skip
        return KubernetesTarget(**values)

    def counted(self, rollout: str, since: float, unit: str) -> Mapping[str, Any]:
        world = self.site.file.read()
        if not self.is_counting:
            raise CountersUnavailable("Prometheus at http://prometheus: has nothing of this rollout")
        n = int((world["now"] - since) * world["script"]["per_second"])
        return {"n": n, "errors": int(n * world["script"]["errors"]), "rollout": rollout}

    def world(self, **changes: Any) -> World:
        def say(line: str) -> None:
            self.said.append(line)
            self.sync()

        return self.site.world(
            target=self.target(), clock=ScriptedClock(self.site.file), registry=ScriptedRegistry(self.site.file),
            images=self.images, say=say, **changes,
        )  # fmt: skip

    def sync(self) -> None:
        """Let Argo CD bring the cluster to the tip of main, as far as its Applications say."""
        for environment in NAMESPACES:
            released = git(self.site.root, "rev-parse", f"main:k8s/overlays/{environment}/released")
            if (environment, released) not in BUILT:
                BUILT[environment, released] = self._built(environment)
            self.cluster.sync(BUILT[environment, released])
        self.cluster.go_on()

    def _built(self, environment: str) -> list[Resource]:
        with tempfile.TemporaryDirectory() as folder:
            archive = subprocess.run(
                ["git", "archive", "main", "k8s"], cwd=self.site.root, capture_output=True, check=True
            )
            subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
            return build(Path(folder) / "k8s/overlays" / environment)

    def release(self, tag: str, **options: Any) -> machine.Outcome:
        return machine.release(self.world(), tag, **options)

    def get(self, kind: str, name: str = "vllm", environment: str = "production") -> Resource:
        return self.cluster.held[f"{KINDS[kind].format(NAMESPACES[environment])}/{name}"]

    def weights(self) -> list[int]:
        (rule,) = self.get("HTTPRoute")["spec"]["rules"]
        return [backend["weight"] for backend in rule["backendRefs"]]

    def served(self, environment: str = "production") -> tuple[Resource, dict[str, str]]:
        """Return serving.yaml and prompts that the gateway mounts."""
        volumes = self.get("Deployment", "gateway", environment)["spec"]["template"]["spec"]["volumes"]
        names = {one["name"]: one["configMap"]["name"] for one in volumes if "configMap" in one}
        data = {volume: self.get("ConfigMap", name, environment)["data"] for volume, name in names.items()}
        return yaml.safe_load(data["serving"]["serving.yaml"]), data["prompts"]

    def copy(self, folder: Path) -> Place:
        """Return the same place elsewhere."""
        made = Place.__new__(Place)
        made.site, made.cluster = self.site.copy(folder), Cluster()
        made.cluster.held, made.cluster.sets = copy.deepcopy((self.cluster.held, self.cluster.sets))
        made.server, made.is_counting = serve(made.cluster), True
        made.images, made.said = dict(self.images), []
        return made

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
