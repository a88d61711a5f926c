"""Prepare and unprepare as the kubelet's DRA code does them: which claims are sent, what an answer must hold, what is kept."""

from __future__ import annotations

from typing import Any

from tools.simcluster import plugin_calls, pod_claims
from tools.simcluster.claim_memory import ClaimMemory, Prepared, Remembered
from tools.simcluster.kinds import CLAIM, Json
from tools.simcluster.plugin_calls import CallFailed, Reference
from tools.simcluster.refusals import Refused
from tools.simcluster.registrar import Registrar
from tools.simcluster.registry import Registry


class NotPrepared(Exception):
    """What ends up in the pod's event FailedPrepareDynamicResources."""


def usable_claims(registry: Registry, pod: Json) -> dict[str, Json]:
    """Pod claim name -> ResourceClaim, those left out that the pod turned out not to need.

    Raises:
        NotPrepared: one is not there, not allocated, or not reserved for the pod.
    """
    found: dict[str, Json] = {}
    namespace, uid = pod["metadata"]["namespace"], pod["metadata"]["uid"]
    for entry, name in pod_claims.claim_names(pod):
        if not name:
            raise NotPrepared(f'pod "{namespace}/{pod["metadata"]["name"]}": ResourceClaim not created yet')
        try:
            claim = registry.get(CLAIM, name, namespace)
        except Refused as refused:
            raise NotPrepared(f"fetch ResourceClaim {namespace}/{name}: {refused.message}") from refused
        status = claim.get("status") or {}
        if uid not in {consumer["uid"] for consumer in status.get("reservedFor") or ()}:
            raise NotPrepared(f"pod {pod['metadata']['name']} ({uid}) is not allowed to use ResourceClaim {name}")
        if not status.get("allocation"):
            raise NotPrepared(f"ResourceClaim {name}: not allocated")
        found[entry] = claim
    return found


class ClaimCalls:
    def __init__(self, registry: Registry, registrar: Registrar, memory: ClaimMemory, minor: int, *, call_seconds: float) -> None:
        """
        Args:
            minor: the kubelet's.
        """
        self._registry, self._registrar, self.memory = registry, registrar, memory
        self._minor, self._call_seconds = minor, call_seconds

    async def prepare(self, pod: Json) -> dict[str, Json]:
        """All claims of the pod; those that are prepared already take no call.

        Raises:
            NotPrepared
        """
        memory, uid = self.memory, pod["metadata"]["uid"]
        claims = usable_claims(self._registry, pod)
        by_driver: dict[str, list[Remembered]] = {}
        for claim in claims.values():
            metadata = claim["metadata"]
            drivers = sorted({result["driver"] for result in claim["status"]["allocation"]["devices"].get("results") or ()})
            for driver in drivers:
                if self._registrar.best(driver) is None:
                    raise NotPrepared(f"DRA driver {driver} is not registered")
            other = next(
                (old for old in memory.claims.values() if (old.namespace, old.name) == (metadata["namespace"], metadata["name"])), None
            )
            if other is not None and other.uid != metadata["uid"] and self._minor >= 34:
                raise NotPrepared(f"old ResourceClaim with same name {other.name} and different UID {other.uid} still exists")
            if metadata["uid"] in memory.leaving and self._minor >= 37:
                raise NotPrepared(f"ResourceClaim {metadata['name']} is being unprepared")
            remembered = memory.claims.setdefault(
                metadata["uid"], Remembered(metadata["uid"], metadata["namespace"], metadata["name"], drivers, [])
            )
            if uid not in remembered.pods:
                remembered.pods.append(uid)
            if metadata["uid"] not in memory.prepared:
                for driver in drivers:
                    by_driver.setdefault(driver, []).append(remembered)
        # Before the call, so that a prepare that fails is still followed by an unprepare.
        memory.save()
        for driver, wanted in by_driver.items():
            await self._prepare(driver, wanted)
        memory.prepared.update(claim["metadata"]["uid"] for claim in claims.values())
        memory.save()
        return claims

    async def _prepare(self, driver: str, wanted: list[Remembered]) -> None:
        instance = self._registrar.best(driver)
        if instance is None:
            raise NotPrepared(f"DRA driver {driver} is not registered")
        try:
            answer = await plugin_calls.prepare(instance.connection, instance.service, _references(wanted), self._call_seconds)
        except CallFailed as failed:
            raise NotPrepared(f"NodePrepareResources failed: {failed}") from failed
        by_uid = {claim.uid: claim for claim in wanted}
        for uid, result in answer.items():
            if uid not in by_uid:
                raise NotPrepared(f"NodePrepareResources returned unknown claim UID {uid}")
            if result.error:
                raise NotPrepared(f"NodePrepareResources failed for ResourceClaim {by_uid[uid].name}: {result.error}")
            devices = [self._prepared(device, instance.service) for device in result.devices]
            self.memory.store_devices(by_uid[uid], driver, devices, appends=31 <= self._minor <= 36)
        if left := len(by_uid.keys() - answer.keys()):
            raise NotPrepared(f"NodePrepareResources skipped {left} ResourceClaims")

    def _prepared(self, device: Any, service: str) -> Prepared:
        """The share ID is a field of v1 alone, which kubelets know from 1.35 on."""
        share = device.share_id if self._minor >= 35 and service == "v1.DRAPlugin" else ""
        return Prepared(device.pool_name, device.device_name, list(device.request_names), list(device.cdi_device_ids), share)

    async def unprepare(self, pod_uid: str) -> None:
        """Those claims of the pod that no other pod uses here; for others the pod is only forgotten.

        Raises:
            NotPrepared: ask again later.
        """
        memory = self.memory
        by_driver: dict[str, list[Remembered]] = {}
        last: list[Remembered] = []
        for claim in memory.of_pod(pod_uid):
            if len(claim.pods) > 1:
                claim.pods.remove(pod_uid)
                continue
            last.append(claim)
            memory.leaving.add(claim.uid)
            memory.prepared.discard(claim.uid)
            for driver in claim.drivers:
                by_driver.setdefault(driver, []).append(claim)
        for driver, wanted in by_driver.items():
            instance = self._registrar.best(driver)
            if instance is None:
                raise NotPrepared(f"DRA driver {driver} is not registered")
            try:
                answer = await plugin_calls.unprepare(instance.connection, instance.service, _references(wanted), self._call_seconds)
            except CallFailed as failed:
                raise NotPrepared(f"NodeUnprepareResources failed: {failed}") from failed
            for claim in wanted:
                if claim.uid not in answer:
                    raise NotPrepared("NodeUnprepareResources skipped a ResourceClaim")
                if error := answer[claim.uid].error:
                    raise NotPrepared(f"NodeUnprepareResources failed for ResourceClaim {claim.name}: {error}")
        for claim in last:
            memory.claims.pop(claim.uid, None)
            memory.leaving.discard(claim.uid)
        memory.save()

    def cdi_ids(self, container: Json, claims: dict[str, Json]) -> list[str]:
        """CDI ids of one container: of each claim it names, for the request it names or for all."""
        found: list[str] = []
        for use in (container.get("resources") or {}).get("claims") or ():
            claim = claims.get(use["name"])
            remembered = self.memory.claims.get(claim["metadata"]["uid"]) if claim is not None else None
            for devices in remembered.devices.values() if remembered is not None else ():
                for device in devices:
                    if not use.get("request") or not device.requests or use["request"] in device.requests:
                        found += device.cdi_ids
        return found


def _references(claims: list[Remembered]) -> list[Reference]:
    return [(claim.namespace, claim.uid, claim.name) for claim in claims]
