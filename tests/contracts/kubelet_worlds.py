"""Two kubelets for one suite: simcluster's, and the real one of a cluster that tools/cluster made."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import trio

from tests.e2e.api import Api
from tests.e2e.pods import Namespace
from tests.fakes.tiny_plugin import TinyPlugin
from tools.realcluster import components
from tools.realcluster.cluster import Cluster
from tools.realcluster.faults import Faults
from tools.realcluster.site import Site
from tools.simcluster import kinds
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kubelet import Timing

DRIVER = "contract.example.com"
CLASS = "contract"
ENV = "DEVICE"


def edits(name: str) -> dict[str, Any]:
    return {"env": [f"{ENV}={name}"]}


Health = Mapping[str, list[tuple[str, str, str]]]
"""Container -> (name of the claim's status, health, message) for each device."""


def health_of(pod: dict[str, Any]) -> Health:
    return {
        container["name"]: [
            (status["name"], each["health"], each.get("message", ""))
            for status in container.get("allocatedResourcesStatus") or ()
            for each in status["resources"]
        ]
        for container in pod["status"].get("containerStatuses") or ()
    }


class World(Protocol):
    """One node, and what is asked of its kubelet. Pods of a container `main`, or of containers that name a request or None for all."""

    seconds: float
    """How long its kubelet may take for what it does again by itself."""

    tells_health: bool
    """Whether it watches the health of devices: by default from 1.36 on."""

    def plugin(self, *, versions: list[str] | None = None) -> TinyPlugin: ...

    async def offer(self, *devices: str) -> None: ...

    async def claim(self, name: str, *, template: bool = False) -> None: ...

    async def pod(self, name: str, *, claim: str = "", template: str = "", containers: Mapping[str, str | None] | None = None) -> None: ...

    async def running(self, name: str) -> None: ...

    async def finish(self, name: str) -> None: ...

    async def delete(self, name: str) -> None: ...

    async def gone(self, name: str) -> None: ...

    async def no_pods(self) -> None: ...

    async def no_claims(self) -> None: ...

    async def no_slices(self) -> None: ...

    async def event(self, pod: str, reason: str) -> str: ...

    async def given(self, pod: str) -> dict[str, str]: ...

    async def health(self, pod: str, expected: Health) -> None:
        """Until the pod's status says so of its containers."""
        ...

    async def restart_kubelet(self) -> None: ...


class Simulated:
    seconds = 5.0
    tells_health = True

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster

    def plugin(self, *, versions: list[str] | None = None) -> TinyPlugin:
        layout = self._cluster.layout
        registry = self._cluster.kubelet.registry_directory
        return TinyPlugin(f"{layout.kubelet}/plugins", registry, layout.cdi, name=DRIVER, versions=versions, edits=edits)

    async def offer(self, *devices: str) -> None:
        await self._cluster.wait_plugin(DRIVER)
        self._cluster.create(kinds.SLICE, slice_of(self._cluster.node, *({"name": device} for device in devices)))

    async def claim(self, name: str, *, template: bool = False) -> None:
        self._cluster.create_claim(name, device_class=CLASS, template=template)

    async def pod(self, name: str, *, claim: str = "", template: str = "", containers: Mapping[str, str | None] | None = None) -> None:
        uses = {key: [_use(request)] for key, request in (containers or {"main": None}).items()}
        claims, templates = {"gpu": claim} if claim else {}, {"gpu": template} if template else {}
        self._cluster.create_pod(name, claims=claims, templates=templates, containers=uses)

    async def running(self, name: str) -> None:
        await self._cluster.wait_pod(name)

    async def finish(self, name: str) -> None:
        self._cluster.finish_pod(name)
        await self._cluster.wait_pod(name, "Succeeded")

    async def delete(self, name: str) -> None:
        self._cluster.delete_pod(name)

    async def gone(self, name: str) -> None:
        await self._cluster.wait_pod_gone(name)

    async def no_pods(self) -> None:
        """They go with the cluster."""

    async def no_claims(self) -> None:
        await self._cluster.wait(kinds.CLAIM, lambda claims: not claims, "no claim")

    async def no_slices(self) -> None:
        await self._cluster.wait(kinds.SLICE, lambda slices: not slices, "no slice")

    async def event(self, pod: str, reason: str) -> str:
        return await self._cluster.wait_event(pod, reason)

    async def given(self, pod: str) -> dict[str, str]:
        return {name: "".join(got.env).removeprefix(f"{ENV}=") for name, got in self._cluster.injected(pod).items()}

    async def health(self, pod: str, expected: Health) -> None:
        def said(pods: list[dict[str, Any]]) -> bool:
            return any(each["metadata"]["name"] == pod and health_of(each) == expected for each in pods)

        await self._cluster.wait(kinds.POD, said, f"pod {pod} with {expected}")

    async def restart_kubelet(self) -> None:
        await self._cluster.kubelet.restart()


QUICK = Timing(reconcile=0.02, prepare_again=0.1, unprepare_again=0.05, start_again=0.1, wipe_after=0.3, health_again=0.05)


@contextlib.asynccontextmanager
async def simulated() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="sim", dir="/tmp") as short:
        async with SimCluster(short, kubernetes="1.36", timing=QUICK).running() as cluster:
            cluster.create_class(CLASS, f'device.driver == "{DRIVER}"')
            yield Simulated(cluster)


class Real:
    seconds = 180.0

    def __init__(self, api: Api, ns: Namespace, cluster: Cluster) -> None:
        self._api, self._ns, self._cluster = api, ns, cluster
        [self._node] = api.ready_nodes()
        self.tells_health = api.version >= (1, 36)

    def plugin(self, *, versions: list[str] | None = None) -> TinyPlugin:
        # A socket is found by its file, so that this process can serve what the node sees under another name.
        kubelet = self._cluster.site.root / "kubelet"
        cdi = f"/proc/{self._cluster.node.pid()}/root/run/cdi"
        seen = "/var/lib/kubelet/plugins"
        return TinyPlugin(
            f"{kubelet}/plugins", f"{kubelet}/plugins_registry", cdi, name=DRIVER, versions=versions, seen_directory=seen, edits=edits
        )

    async def offer(self, *devices: str) -> None:
        plain = self._api.dra in ("v1", "v1beta2")
        body = slice_of(self._node, *({"name": device} if plain else {"name": device, "basic": {}} for device in devices))
        await _thread(self._api.create, {"apiVersion": f"resource.k8s.io/{self._api.dra}", "kind": "ResourceSlice", **body})

    async def claim(self, name: str, *, template: bool = False) -> None:
        asked = {"name": "gpu", "exactly": {"deviceClassName": CLASS}}
        await _thread(self._ns.template if template else self._ns.claim, name, asked)

    async def pod(self, name: str, *, claim: str = "", template: str = "", containers: Mapping[str, str | None] | None = None) -> None:
        uses = {key: _use(request) for key, request in (containers or {"main": None}).items()}
        command = f"echo ${ENV}; while [ ! -e /tmp/end ]; do sleep 0.1; done"
        # Without a second of grace the API server would let go of the pod before the kubelet does.
        make = partial(self._ns.pod, claim=claim or None, template=template or None, containers=uses, command=command, grace=1)
        await _thread(make, name)

    async def running(self, name: str) -> None:
        await _thread(partial(self._ns.ready, name, seconds=self.seconds))

    async def finish(self, name: str) -> None:
        await _thread(self._cluster.kubectl, "-n", self._ns.name, "exec", name, "--", "sh", "-c", ": > /tmp/end")
        assert await _thread(self._ns.ended, name) == "Succeeded"

    async def delete(self, name: str) -> None:
        await _thread(self._api.delete, "Pod", name, self._ns.name)

    async def gone(self, name: str) -> None:
        await _thread(self._api.wait_gone, "Pod", name, self._ns.name)

    async def no_pods(self) -> None:
        names = [pod["metadata"]["name"] for pod in await _thread(self._api.list, "Pod", self._ns.name)]
        await _thread(self._ns.delete, *names)

    async def no_claims(self) -> None:
        await _thread(self._ns.claims_gone)

    async def no_slices(self) -> None:
        await _thread(partial(self._api.wait_gone, "ResourceSlice", SLICE, seconds=self.seconds))

    async def event(self, pod: str, reason: str) -> str:
        return await _thread(partial(self._api.wait_event, pod, reason, namespace=self._ns.name))

    async def given(self, pod: str) -> dict[str, str]:
        found = await _thread(self._api.get, "Pod", pod, self._ns.name)
        names = [container["name"] for container in found["spec"]["containers"]]
        return {name: (await _thread(self._ns.logs, pod, name)).strip() for name in names}

    async def health(self, pod: str, expected: Health) -> None:
        with trio.fail_after(self.seconds):
            while (said := health_of(await _thread(self._api.get, "Pod", pod, self._ns.name))) != expected:
                print(f"pod {pod}: {said}")
                await trio.sleep(1)

    async def restart_kubelet(self) -> None:
        await _thread(Faults(self._cluster).restart, components.KUBELET)


@contextlib.asynccontextmanager
async def real() -> AsyncIterator[World]:
    api = Api(os.environ["KUBECONFIG"])
    ns = Namespace(api, f"contract-{uuid.uuid4().hex[:8]}")
    group = f"resource.k8s.io/{api.dra}"
    spec = {"selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns.name}})
    if api.get("DeviceClass", CLASS) is None:
        api.create({"apiVersion": group, "kind": "DeviceClass", "metadata": {"name": CLASS}, "spec": spec})
    try:
        yield Real(api, ns, Cluster(Site(), print))
    finally:
        ns.empty()
        api.delete("ResourceSlice", SLICE)
        api.delete("Namespace", ns.name)


WORLDS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[World]]] = {"simulated": simulated}
if "CLUSTER_E2E" in os.environ:
    WORLDS = {"real": real} if "CLUSTER_DIR" in os.environ else {}  # it has to be on this machine

SLICE = "contract-slice"


def slice_of(node: str, *devices: dict[str, Any]) -> dict[str, Any]:
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": list(devices)}
    return {"metadata": {"name": SLICE}, "spec": spec}


def _use(request: str | None) -> dict[str, str]:
    return {"name": "gpu"} if request is None else {"name": "gpu", "request": request}


async def _thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await trio.to_thread.run_sync(partial(call, *arguments))
