"""The whole of it: API server, controllers, scheduler and nodes, over one directory.

async with SimCluster(str(tmp_path), kubernetes="1.34").running() as cluster:
    cluster.create_claim("gpu", device_class="gpu.intel.com")
    cluster.create_pod("p", claims={"gpu": "gpu"})
    pod = await cluster.wait_pod("p", "Running")
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
import yaml

from tools.simcluster import api_server, controllers, kinds, kubeconfig, pod_claims, releases, shapes
from tools.simcluster.cdi_reader import Injection
from tools.simcluster.faults import Faults
from tools.simcluster.http_api import HttpApi
from tools.simcluster.kinds import CLAIM, DEVICE_CLASS, NAMESPACE, POD, SLICE, TEMPLATE, Json, Kind
from tools.simcluster.kubelet import INJECTED, Kubelet, Timing
from tools.simcluster.registry import Registry
from tools.simcluster.store import Store

CLASSES: Final = Path(__file__).parents[2] / "manifests" / "kustomize" / "base" / "deviceclasses.yaml"
DEADLINE_SECONDS: Final = 10.0
"""Of the waits, where nothing else is said."""


class Layout(msgspec.Struct, frozen=True):
    """Where things are below the cluster's directory."""

    root: str

    @property
    def kubelet(self) -> str:
        """Stands for /var/lib/kubelet."""
        return f"{self.root}/kubelet"

    @property
    def cdi(self) -> str:
        """Stands for /var/run/cdi."""
        return f"{self.root}/run/cdi"

    @property
    def static_cdi(self) -> str:
        return f"{self.root}/etc/cdi"

    @property
    def kubeconfig(self) -> str:
        return f"{self.root}/kubeconfig"


class SimCluster:
    """`run` is the task; the helpers below act on what is stored, at once, without a client."""

    def __init__(
        self,
        root: str,
        *,
        kubernetes: str = "1.34",
        kubelet_version: str = "",
        node: str = "node1",
        more_nodes: Sequence[str] = (),
        gates: Mapping[str, bool] | None = None,
        runtime_config: tuple[str, ...] = (),
        port: int = 0,
        tls: bool = False,
        timing: Timing | None = None,
        with_kubelet: bool = True,
        schedules: bool = True,
        classes: str | None = str(CLASSES),
        log: Callable[[str], None] = lambda _line: None,
        on_reboot: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """
        Args:
            root: a directory; socket paths below it must stay under 108 bytes.
            more_nodes: further nodes with a kubelet each, in directories of their own (`layout_of`).
            kubelet_version: `v1.33.2` where the node lags behind the server.
            gates, runtime_config: what differs from the release's defaults.
            classes: YAML file of classes to begin with, None for none; those of the manifests from 1.31 on, if nothing is said.
            on_reboot: see Kubelet.

        Raises:
            ValueError: no such release, gate or API version.
        """
        self.layout = Layout(os.path.abspath(root))
        self.store = Store()
        self.registry = Registry(self.store, releases.release(kubernetes, gates=gates, runtime_config=runtime_config))
        self.faults = Faults()
        self.http = HttpApi(self.registry, self.faults)
        self.node = node
        self.api_url = ""
        """Known when `run` has started."""
        self._port, self._tls, self._schedules, self._with_kubelet, self._log = port, tls, schedules, with_kubelet, log
        self.kubelets = {
            name: Kubelet(
                self.registry,
                self.layout_of(name).kubelet,
                name,
                cdi_directories=(self.layout_of(name).static_cdi, self.layout_of(name).cdi),
                timing=timing,
                log=log,
                kubelet_version=kubelet_version,
                on_reboot=on_reboot,
            )
            for name in (node, *more_nodes)
        }
        """By node."""
        if classes is not None and not (self.release.is_classic and classes == str(CLASSES)):
            self.apply_file(classes)

    @property
    def kubelet(self) -> Kubelet:
        """The first node's, mostly the only one."""
        return self.kubelets[self.node]

    def layout_of(self, node: str) -> Layout:
        """Where things of a node are: the first has the cluster's directory, others `nodes/<name>` below it."""
        return self.layout if node == self.node else Layout(f"{self.layout.root}/nodes/{node}")

    @property
    def release(self) -> releases.Release:
        return self.registry.release

    def upgrade(self, kubernetes: str, *, gates: Mapping[str, bool] | None = None, runtime_config: tuple[str, ...] = ()) -> None:
        """Another API server over the same objects, from now on: another release, or the same with other gates. The kubelet stays.
        Claims and classes do not survive the step from 1.30 to 1.31, as in life.

        Raises:
            ValueError: as the constructor.
        """
        self.registry.upgrade(releases.release(kubernetes, gates=gates, runtime_config=runtime_config))
        self.faults.cut_watches()

    @property
    def kubeconfig_path(self) -> str:
        return self.layout.kubeconfig

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; `started` with the API server's address, when the kubeconfig is written and the node is there."""
        os.makedirs(self.layout.root, exist_ok=True)
        certificates = api_server.Certificates(self.layout.root) if self._tls else None
        async with trio.open_nursery() as nursery:
            serve = partial(api_server.serve, self.http, port=self._port, certificates=certificates)
            self.api_url = await nursery.start(serve)
            kubeconfig.write(self.kubeconfig_path, self.api_url, certificates.authority_pem if certificates is not None else None)
            nursery.start_soon(partial(controllers.run, self.registry, self._log, schedules=self._schedules))
            for kubelet in self.kubelets.values() if self._with_kubelet else ():
                await nursery.start(kubelet.run)
            self._log(f"Kubernetes {self.release.git_version} at {self.api_url}")
            task_status.started(self.api_url)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SimCluster]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.run)
            yield self
            nursery.cancel_scope.cancel()

    # --- writing -----------------------------------------------------------------------------------------------------------------

    def create(self, kind: Kind, body: Json, namespace: str = "default") -> Json:
        """An object in the newest shape (v1).

        Raises:
            Refused: as the API server would.
        """
        if kind.namespaced and self.store.get(NAMESPACE, "", namespace) is None:
            self.registry.create(NAMESPACE, {"metadata": {"name": namespace}})
        return self.registry.create(kind, shapes.to_held(kind, "v1", body), namespace if kind.namespaced else "")

    def apply_file(self, path: str) -> None:
        """Create every object of a YAML file, custom resources after their definitions.

        Raises:
            Refused: as the API server would, also for kinds that it does not serve.
        """
        for body in yaml.safe_load_all(Path(path).read_text(encoding="utf-8")):
            if body:
                kind = self.registry.kind(body["apiVersion"], body["kind"])
                self.create(kind, body, body["metadata"].get("namespace", "default"))

    def create_class(self, name: str, expression: str, *, config: Sequence[Json] = ()) -> Json:
        spec: Json = {"selectors": [{"cel": {"expression": expression}}], "config": list(config)}
        return self.create(DEVICE_CLASS, {"metadata": {"name": name}, "spec": spec})

    def create_claim(
        self,
        name: str,
        *,
        device_class: str = "gpu.intel.com",
        namespace: str = "default",
        template: bool = False,
        config: Sequence[Json] = (),
        requests: Sequence[Json] | None = None,
        constraints: Sequence[Json] = (),
        **request: Any,
    ) -> Json:
        """A claim (or a template) with one request `gpu`, or with `requests`; `count=2`, `selectors=[...]` and so on go into the one."""
        asked = list(requests) if requests is not None else [{"name": "gpu", "exactly": {"deviceClassName": device_class, **request}}]
        devices: Json = {"requests": asked}
        if config:
            devices["config"] = list(config)
        if constraints:
            devices["constraints"] = list(constraints)
        spec: Json = {"devices": devices}
        if template:
            return self.create(TEMPLATE, {"metadata": {"name": name}, "spec": {"spec": spec}}, namespace)
        return self.create(CLAIM, {"metadata": {"name": name}, "spec": spec}, namespace)

    def create_pod(
        self,
        name: str,
        *,
        claims: Mapping[str, str] | None = None,
        templates: Mapping[str, str] | None = None,
        containers: Mapping[str, Sequence[Json]] | None = None,
        namespace: str = "default",
        **spec: Any,
    ) -> Json:
        """
        Args:
            claims: name in the pod -> ResourceClaim.
            templates: name in the pod -> ResourceClaimTemplate.
            containers: container -> its `resources.claims`, `{"name": "gpu", "request": "gpu"}`; left out, one container `main` uses all.
        """
        is_classic = self.release.is_classic
        entries = [pod_claims.spelled(key, claim=claim, is_classic=is_classic) for key, claim in (claims or {}).items()]
        entries += [pod_claims.spelled(key, template=template, is_classic=is_classic) for key, template in (templates or {}).items()]
        if containers is None:
            containers = {"main": [{"name": entry["name"]} for entry in entries]}
        listed = [{"name": each, "image": "none", "resources": {"claims": list(uses)}} for each, uses in containers.items()]
        body = {"metadata": {"name": name}, "spec": {"containers": listed, "resourceClaims": entries, **spec}}
        return self.create(POD, body, namespace)

    def delete_pod(self, name: str, *, namespace: str = "default", grace_seconds: int | None = None) -> None:
        """`grace_seconds=0` is a forced deletion: the object is gone at once, the kubelet finds out afterwards."""
        self.registry.delete(POD, name, namespace, grace_seconds=grace_seconds)

    def finish_pod(self, name: str, *, namespace: str = "default", phase: str = "Succeeded") -> None:
        """Its containers end by themselves: unprepare follows, then the phase."""
        pod = self.registry.get(POD, name, namespace)

        def mark(body: Json) -> None:
            body["metadata"].setdefault("annotations", {})["simcluster/finish"] = phase

        self.registry.amend(POD, pod, mark)

    # --- reading and waiting -----------------------------------------------------------------------------------------------------

    async def wait(
        self, kind: Kind, predicate: Callable[[list[Json]], Any], what: str = "", *, deadline: float = DEADLINE_SECONDS
    ) -> list[Json]:
        """Until the predicate holds for all objects of a kind; these.

        Raises:
            AssertionError: not within `deadline` seconds; says what there is instead.
        """
        with trio.move_on_after(deadline):
            await self.store.until(lambda: bool(predicate(self.store.all(kind))), kind)
            return self.store.all(kind)
        raise AssertionError(f"not within {deadline} s: {what or kind.plural}; there is {self._shown(kind)}")

    async def wait_pod(self, name: str, phase: str = "Running", *, namespace: str = "default", deadline: float = DEADLINE_SECONDS) -> Json:
        """
        Raises:
            AssertionError: with the pod's events.
        """

        def reached(pods: list[Json]) -> bool:
            return any(
                (pod["metadata"]["name"], pod["metadata"]["namespace"], pod["status"]["phase"]) == (name, namespace, phase) for pod in pods
            )

        try:
            await self.wait(POD, reached, f"pod {name} {phase}", deadline=deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; events: {self.events(name)}") from None
        return self.registry.get(POD, name, namespace)

    async def wait_pod_gone(self, name: str, *, namespace: str = "default", deadline: float = DEADLINE_SECONDS) -> None:
        def gone(pods: list[Json]) -> bool:
            return all((pod["metadata"]["name"], pod["metadata"]["namespace"]) != (name, namespace) for pod in pods)

        await self.wait(POD, gone, f"pod {name} gone", deadline=deadline)

    async def wait_plugin(self, driver: str = "gpu.intel.com", *, node: str = "", deadline: float = DEADLINE_SECONDS) -> None:
        """Until the kubelet (the first node's, if none is named) can call the driver.

        Raises:
            AssertionError: with what the kubelet told plugins that it refused.
        """
        kubelet = self.kubelets[node or self.node]
        with trio.move_on_after(deadline):
            await kubelet.until_serves(driver)
            return
        raise AssertionError(f"no plugin {driver} within {deadline} s; refused: {kubelet.registrar.refusals}")

    async def wait_event(self, name: str, reason: str, *, deadline: float = DEADLINE_SECONDS) -> str:
        """The message of an event about a pod."""
        with trio.move_on_after(deadline):
            await self.store.until(lambda: any(each[0] == reason for each in self.events(name)), kinds.EVENT)
            return next(message for each, message in self.events(name) if each == reason)
        raise AssertionError(f"no event {reason} about {name} within {deadline} s; there are {self.events(name)}")

    def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) about an object."""
        found = [event for event in self.store.each(kinds.EVENT) if event["involvedObject"].get("name") == name]
        return [(event.get("reason", ""), event.get("message", "")) for event in found]

    def slices(self) -> list[Json]:
        return self.store.all(SLICE)

    def devices(self) -> dict[str, Json]:
        """All devices in slices, by name."""
        return {device["name"]: device for each in self.slices() for device in each["spec"].get("devices") or ()}

    def claim(self, name: str, *, namespace: str = "default") -> Json:
        return self.registry.get(CLAIM, name, namespace)

    def claims_of_pod(self, name: str, *, namespace: str = "default") -> list[Json]:
        uid = self.registry.get(POD, name, namespace)["metadata"]["uid"]
        return [
            claim
            for claim in self.store.all(CLAIM, namespace)
            if uid in {consumer["uid"] for consumer in (claim.get("status") or {}).get("reservedFor") or ()}
        ]

    def injected(self, name: str, *, namespace: str = "default") -> dict[str, Injection]:
        """What each container of a running pod got."""
        pod = self.registry.get(POD, name, namespace)
        return msgspec.json.decode(pod["metadata"]["annotations"][INJECTED], type=dict[str, Injection])

    def _shown(self, kind: Kind) -> str:
        def one(body: Json) -> str:
            # A custom resource may have anything for a status.
            status = body.get("status") or {}
            said = status.get("phase", "") if isinstance(status, dict) else status
            return f"{body['metadata']['name']} {said}".strip()

        return ", ".join(one(body) for body in self.store.all(kind)) or "nothing"
