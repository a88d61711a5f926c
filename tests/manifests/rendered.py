"""What `kubectl kustomize` makes of a directory of manifests, and `helm template` of the chart."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
import subprocess
from typing import Any, Final, TypeAlias

import pytest
import yaml

from tools.realcluster import programs

Doc: TypeAlias = dict[str, Any]

MANIFESTS: Final = pathlib.Path(__file__).parents[2] / "manifests"
KUSTOMIZE: Final = MANIFESTS / "kustomize"
CHART: Final = MANIFESTS / "helm" / "intel-gpu-dra"


def kubectl() -> str | None:
    """Of the environment, of the path, or one that tools/cluster has built."""
    built = sorted(programs.CACHE.glob("kubernetes-*/kubectl"))
    return os.environ.get("KUBECTL") or shutil.which("kubectl") or (str(built[-1]) if built else None)


def helm() -> str | None:
    """As `kubectl()`."""
    built = programs.helm().directory / "helm"
    return os.environ.get("HELM") or shutil.which("helm") or (str(built) if built.exists() else None)


@functools.cache
def render(directory: str) -> list[Doc]:
    """Below `manifests/kustomize`. Skips where there is no kubectl."""
    return _kustomize(KUSTOMIZE / directory)


def render_directory(directory: pathlib.Path) -> list[Doc]:
    """Any directory with a kustomization. Skips where there is no kubectl."""
    return _kustomize(directory)


def render_overlay(directory: pathlib.Path, resources: str, *components: str, namespace: str = "") -> list[Doc]:
    """An overlay of those, made in an empty `directory`, as somebody else's would be."""
    above = os.path.relpath(KUSTOMIZE, directory)
    body = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{above}/{resources}"],
        "components": [f"{above}/components/{name}" for name in components],
    }
    if namespace:
        body["namespace"] = namespace
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(body))
    return _kustomize(directory)


@functools.cache
def template(
    kubernetes: str, values: str = "{}", namespace: str = "intel-gpu-dra", *, served: tuple[str, ...] = (), release: str = "test"
) -> list[Doc]:
    """What the chart brings to a Kubernetes of that release.

    Args:
        values: JSON.
        served: API versions that the cluster has beside its own, like cert-manager.io/v1.
    """
    done = helm_template(kubernetes, json.loads(values), namespace, served=served, release=release)
    assert done.returncode == 0, done.stderr
    return [doc for doc in yaml.safe_load_all(done.stdout) if doc]


def helm_template(
    kubernetes: str, values: Doc, namespace: str = "intel-gpu-dra", *, served: tuple[str, ...] = (), release: str = "test"
) -> subprocess.CompletedProcess[str]:
    """Skips where there is no helm."""
    found = helm()
    if found is None:
        pytest.skip("there is no helm: `tools/cluster build` makes one")
    versions = [word for each in served for word in ("--api-versions", each)]
    command = [found, "template", release, CHART, "--namespace", namespace, "--kube-version", kubernetes, "--values", "-", *versions]
    return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=60)


def _kustomize(directory: pathlib.Path) -> list[Doc]:
    found = kubectl()
    if found is None:
        pytest.skip("there is no kubectl: `tools/cluster build` makes one")
    done = subprocess.run([found, "kustomize", directory], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def read(*directories: str) -> list[Doc]:
    """The files as they are, for what needs no kubectl."""
    paths = [path for directory in directories for path in sorted((KUSTOMIZE / directory).glob("*.yaml"))]
    return [doc for path in paths for doc in yaml.safe_load_all(path.read_text())]


def one(docs: list[Doc], kind: str, name: str | None = None) -> Any:
    [found] = [doc for doc in docs if doc.get("kind") == kind and name in (None, doc["metadata"]["name"])]
    return found


def rights(role: Doc) -> set[tuple[str, str]]:
    """{(resource, verb)}"""
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
