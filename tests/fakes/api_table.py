"""An API server for `kubectl intel-gpu` that is a table of answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nursery_apps.kube_reader import Answer

OBJECTS = ("resourceslices", "resourceclaims", "deviceclasses")
GROUP = "/apis/resource.k8s.io"


class Server:
    """A KubeReader over a table of answers; whatever is not in it is 404."""

    namespace = "default"

    def __init__(self, version: str, *served: tuple[str, tuple[str, ...]]) -> None:
        self.answers: dict[str, Any] = {"/version": {"gitVersion": version}, "/api/v1/nodes": {"items": []}}
        self.answers[GROUP] = {"versions": [{"version": each} for each, _ in served]}
        for each, plurals in served:
            self.answers[f"{GROUP}/{each}"] = {"resources": [{"name": name} for name in plurals]}
            self.answers |= {f"{GROUP}/{each}/{plural}": {"items": []} for plural in plurals}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        self.asked.append((path, dict(query or {})))
        answer = self.answers.get(path, 404)
        if callable(answer):
            answer = answer(dict(query or {}))
        if isinstance(answer, int):
            return Answer(answer, json.dumps({"kind": "Status", "message": "no"}).encode())
        return Answer(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())
