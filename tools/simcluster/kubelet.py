"""One node: its kubelet with the part a DRA driver meets, and containers that are lists of what was put into them."""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import msgspec
import trio

from tools.simcluster import cdi_reader, events
from tools.simcluster.cdi_reader import Injection
from tools.simcluster.claim_calls import ClaimCalls, NotPrepared
from tools.simcluster.claim_memory import ClaimMemory
from tools.simcluster.classic.calls import ClassicCalls
from tools.simcluster.device_health import DeviceHealth
from tools.simcluster.health_streams import AGAIN_SECONDS, HealthStreams
from tools.simcluster.kinds import NODE, POD, SLICE, Json
from tools.simcluster.refusals import Refused
from tools.simcluster.registrar import RECONCILE_SECONDS, Registrar
from tools.simcluster.registry import Registry

INJECTED: Final = "simcluster/injected"
"""Annotation of a running pod: container -> what CDI put into it, as JSON."""
FINAL: Final = ("Succeeded", "Failed")


class Timing(msgspec.Struct, frozen=True):
    """Waits of a real kubelet, in seconds; tests shorten them."""

    reconcile: float = RECONCILE_SECONDS
    prepare_again: float = 80.0
    """After a prepare that failed (79.5 s measured on 1.37)."""
    unprepare_again: float = 2.0
    start_again: float = 10.0
    """A container whose devices the runtime did not find."""
    wipe_after: float = 30.0
    """Slices of a driver without an instance."""
    call: float = 45.0
    health_again: float = AGAIN_SECONDS
    """Before a health stream that has ended is opened anew."""
    health_timeout: float = 30.0
    """Of devices whose driver names none."""


class Kubelet:
    """`run` is the task. Everything below `root` is laid out as below a kubelet's root directory."""

    def __init__(
        self,
        registry: Registry,
        root: str,
        node: str,
        *,
        cdi_directories: Sequence[str],
        timing: Timing | None = None,
        log: Callable[[str], None] = lambda _line: None,
        kubelet_version: str = "",
        on_reboot: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """
        Args:
            cdi_directories: static first; the last is the one that a reboot empties.
            on_reboot: called with the new boot id while nothing of the node runs.
        """
        self._registry, self.root, self.node = registry, root, node
        self._cdi_directories, self._timing = list(cdi_directories), timing or Timing()
        self._log, self._on_reboot = log, on_reboot
        self._version = kubelet_version or registry.release.git_version
        self._minor = int(self._version.split(".")[1])
        self.boot_id = str(uuid.uuid4())
        self.running: dict[str, dict[str, Injection]] = {}
        """Pod UID -> container -> what it got: what runs on the node, whether there is a kubelet or not."""
        self._stop_session = trio.CancelScope()
        self._sessions = 0
        self._session_began = trio.Event()
        self._wipe_at: dict[str, float] = {}
        self._drivers_changed = trio.Event()
        self.registrar = self._new_registrar()
        self.memory = ClaimMemory(f"{root}/dra_manager_state")
        self.health: DeviceHealth | None = None
        """None where the kubelet does not watch it."""

    @property
    def registry_directory(self) -> str:
        return f"{self.root}/plugins_registry"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """`started` when the node is there and plugins may register."""
        for directory in (f"{self.root}/plugins", self.registry_directory, *self._cdi_directories):
            os.makedirs(directory, exist_ok=True)
        while True:
            with trio.CancelScope() as self._stop_session:
                await self._session(task_status if self._sessions == 0 else trio.TASK_STATUS_IGNORED)
            self._sessions += 1

    async def restart(self, kubelet_version: str = "") -> None:
        """The kubelet ends and begins anew, as another version if one is named; containers keep running. Returns when it is there."""
        if kubelet_version:
            self._version = kubelet_version
            self._minor = int(kubelet_version.split(".")[1])
        self._session_began = trio.Event()
        self._stop_session.cancel()
        await self._session_began.wait()

    async def reboot(self) -> None:
        """The node goes down and comes up: no containers, an empty dynamic CDI directory, another boot id."""
        self.running.clear()
        # What is in it, not the directory: it may be somebody's mount.
        for found in os.scandir(self._cdi_directories[-1]):
            shutil.rmtree(found.path) if found.is_dir(follow_symlinks=False) else os.unlink(found.path)
        self.boot_id = str(uuid.uuid4())
        for pod in [pod for pod in self._registry.store.each(POD) if pod["spec"].get("nodeName") == self.node]:
            if pod["status"].get("phase") == "Running":
                self._registry.amend(POD, pod, _lost_sandbox, subresource="status")
        if self._on_reboot is not None:
            await self._on_reboot(self.boot_id)
        await self.restart()

    def serves(self, driver: str) -> bool:
        """Whether a plugin of the driver is registered, and from 1.34 on also connected."""
        best = self.registrar.best(driver)
        return best is not None and (best.connected or self._minor < 34)

    async def until_serves(self, driver: str, *, serves: bool = True) -> None:
        """Wait until the driver's plugin can be called, or until it cannot any more."""
        while self.serves(driver) != serves:
            await self._drivers_changed.wait()

    # --- one life of the kubelet -------------------------------------------------------------------------------------------------

    async def _session(self, task_status: trio.TaskStatus[None]) -> None:
        self.memory = ClaimMemory(f"{self.root}/dra_manager_state")
        self.registrar = self._new_registrar()
        speaks = ClassicCalls if self._minor <= 30 else ClaimCalls
        calls = speaks(self._registry, self.registrar, self.memory, self._minor, call_seconds=self._timing.call)
        self._register_node()
        self._wipe_at.clear()
        self._wipe(lambda _spec: True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.registrar.run)
            nursery.start_soon(self._wiper)
            if self._watches_health:
                nursery.start_soon(self._watch_health)
            task_status.started()
            self._session_began.set()
            await self._pods(calls, nursery)

    def _new_registrar(self) -> Registrar:
        return Registrar(
            self.registry_directory,
            self._minor,
            on_change=self._driver_changed,
            log=self._log,
            reconcile_seconds=self._timing.reconcile,
        )

    # --- how the devices of pods are ---------------------------------------------------------------------------------------------

    @property
    def _watches_health(self) -> bool:
        return self._minor >= 34 and self._registry.release.has("ResourceHealthStatus")

    async def _watch_health(self) -> None:
        timing = self._timing
        self.health = DeviceHealth(self._minor, timeout_seconds=timing.health_timeout, on_change=self._tell_health)
        streams = HealthStreams(self.registrar, self._minor, self.health, log=self._log, again_seconds=timing.health_again)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.health.age)
                nursery.start_soon(streams.run)
                while True:
                    await self._drivers_changed.wait()
                    streams.look()
        finally:
            self.health = None

    def _tell_health(self) -> None:
        for pod in [pod for pod in self._registry.store.each(POD) if pod["metadata"]["uid"] in self.running]:
            self._registry.amend(POD, pod, self.say_health, subresource="status")

    def say_health(self, pod: Json) -> None:
        """Write into a pod's status how the devices of its containers are."""
        for container in pod["status"].get("containerStatuses") or ():
            container.pop("allocatedResourcesStatus", None)
            if self.health is not None and (said := self.health.statuses(pod, container["name"], self.memory)):
                container["allocatedResourcesStatus"] = said

    def _register_node(self) -> None:
        labels = {"kubernetes.io/hostname": self.node, "kubernetes.io/os": "linux"}
        if self._registry.store.get(NODE, "", self.node) is None:
            self._registry.create(NODE, {"metadata": {"name": self.node, "labels": labels}, "spec": {}})
        node = self._registry.get(NODE, self.node)
        now = self._registry.timestamp()
        status = {
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now, "lastTransitionTime": now}
            ],
            "addresses": [{"type": "Hostname", "address": self.node}],
            "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"},
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"},
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": self.boot_id,
                "kernelVersion": "6.8.0",
                "osImage": "simcluster",
                "containerRuntimeVersion": "simcluster://1.0",
                "kubeletVersion": self._version,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
        }
        self._registry.amend(NODE, node, lambda body: body.update(status=status), subresource="status")

    # --- slices of drivers that are gone -----------------------------------------------------------------------------------------

    def _driver_changed(self, driver: str) -> None:
        found = self.registrar.instances(driver)
        alive = any(instance.connected for instance in found) if self._minor >= 34 else bool(found)
        if alive:
            self._wipe_at.pop(driver, None)
        elif driver not in self._wipe_at:
            # Up to 1.32 at once.
            self._wipe_at[driver] = trio.current_time() + (self._timing.wipe_after if self._minor >= 33 else 0.0)
        changed, self._drivers_changed = self._drivers_changed, trio.Event()
        changed.set()

    async def _wiper(self) -> None:
        while True:
            with trio.move_on_at(min(self._wipe_at.values(), default=math.inf)):
                await self._drivers_changed.wait()
            for driver in [driver for driver, at in self._wipe_at.items() if at <= trio.current_time()]:
                del self._wipe_at[driver]
                self._wipe(partial(_is_of, driver))

    def _wipe(self, selects: Callable[[Json], bool]) -> None:
        store = self._registry.store
        for found in [each for each in store.each(SLICE) if each["spec"].get("nodeName") == self.node and selects(each["spec"])]:
            self._log(f"kubelet deletes slice {found['metadata']['name']}")
            self._registry.delete(SLICE, found["metadata"]["name"])

    # --- pods --------------------------------------------------------------------------------------------------------------------

    async def _pods(self, calls: ClaimCalls | ClassicCalls, nursery: trio.Nursery) -> None:
        """One task a pod, from when it is bound to this node until nothing of it is left."""
        store, known = self._registry.store, set[str]()

        async def one(uid: str, name: str, namespace: str) -> None:
            await _PodWorker(self, calls, uid, name, namespace).run()
            known.discard(uid)

        while True:
            for pod in [pod for pod in store.each(POD) if pod["spec"].get("nodeName") == self.node]:
                metadata = pod["metadata"]
                if metadata["uid"] not in known and (pod["status"].get("phase") not in FINAL or metadata.get("deletionTimestamp")):
                    known.add(metadata["uid"])
                    nursery.start_soon(one, metadata["uid"], metadata["name"], metadata["namespace"])
            # Pods of the checkpoint that are gone or ended while there was no kubelet. Up to 1.30 nobody looks for those.
            left = {uid for claim in self.memory.claims.values() for uid in claim.pods} - known if self._minor >= 31 else set()
            for uid in left:
                known.add(uid)
                nursery.start_soon(one, uid, "", "")
            await store.changed(POD)


class _PodWorker:
    def __init__(self, kubelet: Kubelet, calls: ClaimCalls | ClassicCalls, uid: str, name: str, namespace: str) -> None:
        self._kubelet, self._calls, self._uid, self._name, self._namespace = kubelet, calls, uid, name, namespace
        self._registry, self._timing = kubelet._registry, kubelet._timing

    def _pod(self) -> Json | None:
        pod = self._registry.store.get(POD, self._namespace, self._name)
        return pod if pod is not None and pod["metadata"]["uid"] == self._uid else None

    def _wanted(self) -> bool:
        """Whether the pod is to run."""
        pod = self._pod()
        if pod is None or pod["metadata"].get("deletionTimestamp") or pod["status"].get("phase") in FINAL:
            return False
        return not (pod["metadata"].get("annotations") or {}).get("simcluster/finish")

    async def run(self) -> None:
        store = self._registry.store
        while self._wanted():
            again = math.inf if self._uid in self._kubelet.running else await self._start()
            with trio.move_on_after(again):
                await store.until(lambda: not self._wanted(), POD)
        self._kubelet.running.pop(self._uid, None)
        while True:
            try:
                await self._calls.unprepare(self._uid)
                break
            except NotPrepared as failed:
                self._kubelet._log(f"unprepare for pod {self._name or self._uid}: {failed}")
                await trio.sleep(self._timing.unprepare_again)
        self._end()

    async def _start(self) -> float:
        """One attempt; how long to wait before the next, for ever if it runs."""
        pod = self._pod()
        assert pod is not None
        try:
            claims = await self._calls.prepare(pod)
        except NotPrepared as failed:
            text = f"Failed to prepare dynamic resources: prepare dynamic resources: {failed}"
            events.say(self._registry, pod, "Warning", "FailedPrepareDynamicResources", text, "kubelet")
            return self._timing.prepare_again
        devices = cdi_reader.Devices(self._kubelet._cdi_directories)
        containers: dict[str, Injection] = {}
        for container in (*(pod["spec"].get("initContainers") or ()), *(pod["spec"].get("containers") or ())):
            try:
                containers[container["name"]] = devices.inject(self._calls.cdi_ids(container, claims))
            except cdi_reader.Refused as refused:
                why = "; ".join(f"{path}: {error}" for path, error in devices.errors.items())
                text = f"Error: failed to create containerd container: {refused}" + (f" ({why})" if why else "")
                events.say(self._registry, pod, "Warning", "Failed", text, "kubelet")
                return self._timing.start_again
        if not self._wanted():
            return 0.0
        self._kubelet.running[self._uid] = containers
        self._run_status(containers)
        return math.inf

    def _run_status(self, containers: dict[str, Injection]) -> None:
        pod = self._pod()
        assert pod is not None
        now = self._registry.timestamp()
        injected = msgspec.json.encode(containers).decode()
        init = {container["name"] for container in pod["spec"].get("initContainers") or ()}

        def change(body: Json) -> None:
            body["metadata"].setdefault("annotations", {})[INJECTED] = injected
            body["status"] |= {"phase": "Running", "startTime": body["status"].get("startTime", now), "podIP": "10.0.0.1"}
            body["status"]["containerStatuses"] = [
                {
                    "name": name,
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "image": "",
                    "imageID": "",
                    "state": {"running": {"startedAt": now}},
                }
                for name in containers
                if name not in init
            ]
            self._kubelet.say_health(body)
            others = [each for each in body["status"].get("conditions") or () if each["type"] != "Ready"]
            body["status"]["conditions"] = [*others, {"type": "Ready", "status": "True", "lastTransitionTime": now}]

        self._registry.amend(POD, pod, change, subresource="status")
        self._kubelet._log(f"pod {self._namespace}/{self._name} runs")

    def _end(self) -> None:
        """Nothing runs and nothing is prepared: the pod may go, or come to its final phase."""
        pod = self._pod()
        if pod is None:
            return
        if pod["metadata"].get("deletionTimestamp"):
            try:
                self._registry.delete(POD, self._name, self._namespace, uid=self._uid, grace_seconds=0)
            except Refused as refused:
                self._kubelet._log(f"pod {self._name} was gone already: {refused.message}")
            return
        if pod["status"].get("phase") not in FINAL:
            phase = pod["metadata"]["annotations"]["simcluster/finish"]
            self._registry.amend(POD, pod, lambda body: body["status"].update(phase=phase), subresource="status")


def _lost_sandbox(body: Json) -> None:
    body["status"].pop("containerStatuses", None)
    body["status"]["conditions"] = [
        {**each, "status": "False"} if each["type"] == "Ready" else each for each in body["status"].get("conditions") or ()
    ]


def _is_of(driver: str, spec: Json) -> bool:
    return bool(spec["driver"] == driver)
