"""Prepare and unprepare as the kubelets of 1.28 to 1.30 do them (kk 1.28.15 pkg/kubelet/cm/dra/manager.go, claiminfo.go).

What is odd in here is odd there: claims are remembered by name, whatever their UID; nothing is remembered of a prepare that failed; the
first driver of several that says yes makes the whole claim prepared; two handles of one driver are two entries with one UID, which no
answer can satisfy.
"""

from __future__ import annotations

from tools.simcluster import pod_claims
from tools.simcluster.claim_calls import NotPrepared
from tools.simcluster.claim_memory import ClaimMemory, Handle, Prepared, Remembered
from tools.simcluster.classic import annotations, plugin
from tools.simcluster.classic.plugin import Asked
from tools.simcluster.kinds import CLAIM, Json
from tools.simcluster.plugin_calls import CallFailed
from tools.simcluster.refusals import Refused
from tools.simcluster.registrar import Instance, Registrar
from tools.simcluster.registry import Registry


class ClassicCalls:
    """As `claim_calls.ClaimCalls`."""

    def __init__(self, registry: Registry, registrar: Registrar, memory: ClaimMemory, minor: int, *, call_seconds: float) -> None:
        self._registry, self._registrar, self.memory = registry, registrar, memory
        self._minor, self._call_seconds = minor, call_seconds

    async def prepare(self, pod: Json) -> dict[str, Json]:
        """All claims of the pod that a container uses; those that are prepared already take no call.

        Raises:
            NotPrepared
        """
        memory, uid = self.memory, pod["metadata"]["uid"]
        claims: dict[str, Json] = {}
        infos: dict[str, Remembered] = {}
        by_driver: dict[str, list[Asked]] = {}
        for entry, claim in self._claims_of(pod):
            metadata = claim["metadata"]
            claims[entry] = claim
            info = self._remembered(metadata["namespace"], metadata["name"]) or _info(claim)
            if uid not in info.pods:
                info.pods.append(uid)
            if info.uid in memory.prepared:
                continue
            for handle in info.handles:
                driver = handle.driver or claim["status"].get("driverName", "")
                asked = Asked(metadata["namespace"], metadata["uid"], metadata["name"], handle.data)
                by_driver.setdefault(driver, []).append(asked)
            infos[metadata["uid"]] = info
        for driver, wanted in by_driver.items():
            await self._prepare(driver, wanted, infos)
        memory.save()
        return claims

    async def _prepare(self, driver: str, wanted: list[Asked], infos: dict[str, Remembered]) -> None:
        instance = self._instance(driver)
        try:
            answer = await plugin.prepare(instance, wanted, self._minor, self._call_seconds)
        except CallFailed as failed:
            raise NotPrepared(f"NodePrepareResources failed: {failed}") from failed
        by_uid = {asked.uid: asked for asked in wanted}
        for uid, result in answer.items():
            asked_or_none = by_uid.get(uid)
            if asked_or_none is None:
                raise NotPrepared(f"NodePrepareResources returned result for unknown claim UID {uid}")
            if result.error:
                where = f"{asked_or_none.namespace}/{asked_or_none.name}"
                raise NotPrepared(f"NodePrepareResources failed for claim {where}: {result.error}")
            info = infos[uid]
            try:
                annotations.made(info.drivers[0] if info.drivers else "", info.uid, result.cdi_devices)
            except ValueError as error:
                raise NotPrepared(f"failed to add CDIDevices to claimInfo {info.namespace}/{info.name}: {error}") from error
            info.devices[driver] = [Prepared("", "", [], result.cdi_devices)]
            # Also if another driver of the claim fails after this one.
            self.memory.prepared.add(info.uid)
            self.memory.claims[info.uid] = info
        if (left := len(wanted) - len(answer)) != 0:
            raise NotPrepared(f"NodePrepareResources left out {left} claims")

    async def unprepare(self, pod_uid: str) -> None:
        """Those claims of the pod that no other pod uses here; for others the pod is only forgotten.

        Raises:
            NotPrepared: ask again later.
        """
        memory = self.memory
        by_driver: dict[str, list[Asked]] = {}
        for info in memory.of_pod(pod_uid):
            if len(info.pods) > 1:
                info.pods.remove(pod_uid)
                continue
            for handle in info.handles:
                driver = handle.driver or (info.drivers[0] if info.drivers else "")
                by_driver.setdefault(driver, []).append(Asked(info.namespace, info.uid, info.name, handle.data))
        for driver, wanted in by_driver.items():
            instance = self._instance(driver)
            try:
                answer = await plugin.unprepare(instance, wanted, self._minor, self._call_seconds)
            except CallFailed as failed:
                raise NotPrepared(f"NodeUnprepareResources failed: {failed}") from failed
            by_uid = {asked.uid: asked for asked in wanted}
            for uid, error in answer.items():
                if uid not in by_uid:
                    raise NotPrepared(f"NodeUnprepareResources returned result for unknown claim UID {uid}")
                if error:
                    raise NotPrepared(f"NodeUnprepareResources failed for claim {by_uid[uid].namespace}/{by_uid[uid].name}: {error}")
                memory.claims.pop(uid, None)
                memory.prepared.discard(uid)
            if (left := len(wanted) - len(answer)) != 0:
                raise NotPrepared(f"NodeUnprepareResources left out {left} claims")
        memory.save()

    def cdi_ids(self, container: Json, claims: dict[str, Json]) -> list[str]:
        """All CDI names of each claim that the container names."""
        found: list[str] = []
        for use in (container.get("resources") or {}).get("claims") or ():
            claim = claims.get(use["name"])
            info = self._remembered(claim["metadata"]["namespace"], claim["metadata"]["name"]) if claim is not None else None
            for devices in info.devices.values() if info is not None else ():
                found += [name for device in devices for name in device.cdi_ids]
        return found

    def _claims_of(self, pod: Json) -> list[tuple[str, Json]]:
        """(entry, claim) of those that a container uses.

        Raises:
            NotPrepared: one is not there, or not reserved for the pod.
        """
        if not self._registry.release.is_classic:
            raise NotPrepared("failed to fetch ResourceClaim: the server could not find the requested resource")
        metadata = pod["metadata"]
        containers = (*(pod["spec"].get("initContainers") or ()), *(pod["spec"].get("containers") or ()))
        used = {use["name"] for each in containers for use in (each.get("resources") or {}).get("claims") or ()}
        found = []
        for entry, name in pod_claims.claim_names(pod):
            if not name:
                raise NotPrepared("prepare resource claim: pod claim name has no generated ResourceClaim yet")
            try:
                claim = self._registry.get(CLAIM, name, metadata["namespace"])
            except Refused as refused:
                text = f"failed to fetch ResourceClaim {name} referenced by pod {metadata['name']}: {refused.message}"
                raise NotPrepared(text) from refused
            status = claim.get("status") or {}
            if metadata["uid"] not in {consumer["uid"] for consumer in status.get("reservedFor") or ()}:
                who, what = f"{metadata['name']}({metadata['uid']})", f"{name}({claim['metadata']['uid']})"
                raise NotPrepared(f"pod {who} is not allowed to use resource claim {what}")
            if entry in used:
                found.append((entry, claim))
        return found

    def _remembered(self, namespace: str, name: str) -> Remembered | None:
        return next((info for info in self.memory.claims.values() if (info.namespace, info.name) == (namespace, name)), None)

    def _instance(self, driver: str) -> Instance:
        found = self._registrar.best(driver)
        if found is None:
            text = f"plugin name {driver} not found in the list of registered DRA plugins"
            raise NotPrepared(f"failed to get DRA Plugin client for plugin name {driver}: {text}")
        return found


def _info(claim: Json) -> Remembered:
    metadata, status = claim["metadata"], claim["status"]
    # An allocation without handles still means one call, with empty data.
    listed = status["allocation"].get("resourceHandles") or [{}]
    handles = [Handle(handle.get("driverName", ""), handle.get("data", "")) for handle in listed]
    return Remembered(metadata["uid"], metadata["namespace"], metadata["name"], [status.get("driverName", "")], [], handles=handles)
