"""Reasons of tainted devices, kept in the API server: whichever replica hears that an alert has ended can take back what another has done.

Where the server has DeviceTaintRules they are rules; elsewhere they are in the GpuAllocationState of the node, which the allocator reads
with classic DRA and the node's plugin with structured DRA.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import trio

from dra import alerts, backoff, semver, slices, taint_rules
from dra.alerts import Alert, Reasons
from dra.classic import tainting
from dra.classic.inventory import GpuAllocationState
from dra.kube.node import Node, owner_of
from dra.names import DRIVER_NAME, DeviceName
from dra.pool import Effect
from dra.taint_rules import Change, Create, Delete, Published
from nursery_apps.controller import dialect, kinds
from nursery_apps.controller.dialect import Dialect
from nursery_apps.seams import ApiError, Conflict, Invalid, KubeApi, NotFound, Resource, ServedApi

log = logging.getLogger(__name__)

TRIES: Final = 6
"""Against somebody else who writes the same: the other replica, which has heard the same alert."""
FIRST_RETRY_SECONDS: Final = 0.05
RETRY_AT_MOST_SECONDS: Final = 1.0

RULES_SINCE: Final = (1, 37)
"""From this release on DeviceTaintRules act unless an administrator has switched them off."""

NODES: Final[Resource[Node]] = Resource("v1", "nodes", Node)

Devices = Mapping[DeviceName, Sequence[DeviceName]]
"""Devices of a node -> those that are tainted for them."""
Decide = Callable[[Reasons, Devices], Reasons]
"""What the reasons shall be, from what they are; perhaps asked again, when somebody else was faster."""


class Tainter:
    def __init__(self, kube: KubeApi, *, namespace: str, effect: Callable[[], Effect], random: Callable[[], float]) -> None:
        """
        Args:
            namespace: the driver's, where the GpuAllocationStates are.
            effect: of the rules, one of `taint_rules.EFFECTS`.
        """
        self._kube = kube
        self._namespace = namespace
        self._effect = effect
        self._random = random
        self._one_at_a_time = trio.Lock()

    async def apply(self, heard: Collection[Alert]) -> list[str]:
        """Do what alerts ask for; returns a word about each that was ignored. Repeating it is harmless.

        Raises:
            ApiError: something could not be written; what could be, was.
        """
        by_node: dict[str, list[Alert]] = {}
        for alert in heard:
            by_node.setdefault(alert.node, []).append(alert)
        ignored: dict[str, tuple[str, ...]] = {}

        def decide(node: str, now: Reasons, devices: Devices) -> Reasons:
            wanted, ignored[node] = alerts.after(now, by_node[node], devices)
            return wanted

        failure: ApiError | None = None
        async with self._one_at_a_time:
            served = await self._kube.served()
            for node, theirs in by_node.items():
                try:
                    await self._on_node(served, node, partial(decide, node), adds=any(one.firing for one in theirs))
                except ApiError as error:  # one node's trouble is no other's
                    log.error("the alerts about node %s cannot be acted upon: %s", node, error)
                    failure = error
        if failure is not None:
            raise failure
        return [text for texts in ignored.values() for text in texts]

    async def change(self, node: str, decide: Decide) -> Reasons:
        """Make the reasons of a node what `decide` says, and return them.

        Raises:
            ApiError: they could not be read or written.
        """
        async with self._one_at_a_time:
            return await self._on_node(await self._kube.served(), node, decide, adds=True)

    async def _on_node(self, served: ServedApi, node: str, decide: Decide, *, adds: bool) -> Reasons:
        rules = _newest(served, taint_rules.PLURAL, taint_rules.VERSIONS)
        sliced = _newest(served, "resourceslices", slices.VERSIONS)
        if rules is not None and sliced is not None:
            wanted = await self._again(lambda: self._by_rules(rules, sliced, node, decide))
            if (semver.release(served.server_version) or RULES_SINCE) < RULES_SINCE:
                # Served or not, the scheduler heeds rules only with a feature gate, which nobody can see: the node's plugin is told too.
                try:
                    await self._again(lambda: self._by_state(sliced, node, decide, adds=adds))
                except NotFound as error:
                    log.warning("only DeviceTaintRules say what is tainted, which need the feature gate DRADeviceTaints: %s", error)
            return wanted
        if dialect.of(served).dialect is Dialect.CLASSIC or sliced is None:
            return await self._again(lambda: self._by_classic_state(node, decide))
        return await self._again(lambda: self._by_state(sliced, node, decide, adds=adds))

    async def _again(self, attempt: Callable[[], Awaitable[Reasons]]) -> Reasons:
        """Read, decide and write until nobody writes in between."""
        delays = backoff.delays(self._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS)
        for left in reversed(range(TRIES)):
            try:
                return await attempt()
            except Conflict:
                if not left:
                    raise
            await trio.sleep(next(delays))
        raise AssertionError

    # --- DeviceTaintRules

    async def _by_rules(self, what: Resource[Any], sliced: Resource[Any], node: str, decide: Decide) -> Reasons:
        listed = await self._kube.list(what, label_selector=taint_rules.SELECTOR)
        ours = taint_rules.rules(listed.items, node)
        wanted = decide(taint_rules.current(ours), taint_rules.whole_cards(await self._published(sliced, node)))
        owner = await self._owner(node) if wanted.keys() - ours.keys() else None
        for write in taint_rules.writes(ours, wanted, node=node, effect=self._effect(), owner=owner):
            match write:
                case Create(body):
                    await self._create_rule(what, body)
                case Change(rule, body):
                    await self._patch(what, rule.name, body)
                    log.info("%s on node %s is tainted: %s", rule.device, node, ", ".join(sorted(wanted[rule.device])))
                case Delete(rule):
                    await self._delete_rule(what, rule)
        return wanted

    async def _create_rule(self, what: Resource[Any], body: dict[str, Any]) -> None:
        selector = body["spec"]["deviceSelector"]
        name = body["metadata"]["name"]
        taken: Conflict | None = None
        try:
            await self._kube.create(what, {"apiVersion": what.group_version, **body})
        except Conflict as conflict:
            taken = conflict
        if taken is None:
            log.warning("%s on node %s is tainted from now on", selector["device"], selector["pool"])
            return
        try:
            found = await self._kube.get(what, name)
        except NotFound:
            raise taken from None
        if taint_rules.rules([found], selector["pool"]):
            raise taken  # the other replica was faster
        # Somebody's rule under our name: it stays as it is, and nothing is gained by trying again.
        log.error("DeviceTaintRule %s is there and not ours: %s stays untainted", name, selector["device"])

    async def _delete_rule(self, what: Resource[Any], rule: taint_rules.Rule) -> None:
        try:
            await self._kube.delete(what, rule.name, uid=rule.uid, resource_version=rule.version)
        except NotFound:
            return
        log.warning("%s on node %s is tainted no more", rule.device, rule.node)

    # --- GpuAllocationState

    async def _by_classic_state(self, node: str, decide: Decide) -> Reasons:
        try:
            state = await self._state(node)
        except NotFound:
            return decide({}, {})
        return await self._patch_state(state, decide(tainting.current(state), tainting.cards(state)))

    async def _by_state(self, sliced: Resource[Any], node: str, decide: Decide, *, adds: bool) -> Reasons:
        """For structured DRA without rules: the devices are in slices, the object holds nothing but taints."""
        try:
            state = await self._state(node)
        except NotFound:
            if not adds:
                return {}
            state = GpuAllocationState.empty(node)
        devices = taint_rules.only_cards(await self._published(sliced, node))
        wanted = decide(tainting.current(state), devices)
        if wanted and not state.metadata.uid:
            state = await self._create_state(node)
        return await self._patch_state(state, wanted)

    async def _state(self, node: str) -> GpuAllocationState:
        return _decoded(await self._kube.get(kinds.STATES, node, namespace=self._namespace))

    async def _create_state(self, node: str) -> GpuAllocationState:
        owner = await self._owner(node)
        body = {
            "apiVersion": kinds.STATES.group_version,
            "kind": "GpuAllocationState",
            "metadata": {"name": node, "namespace": self._namespace, **({"ownerReferences": [owner]} if owner else {})},
            "spec": {"allocatableDevices": {}},
        }
        try:
            return _decoded(await self._kube.create(kinds.STATES, body, namespace=self._namespace))
        except NotFound as error:
            why = f"neither DeviceTaintRule nor GpuAllocationState is served, or there is no namespace {self._namespace}"
            raise NotFound(error.status, error.reason, f"there is nowhere to note taints: {why}") from error

    async def _patch_state(self, state: GpuAllocationState, wanted: Reasons) -> Reasons:
        body = tainting.patch(state, wanted)
        if body is not None:
            name = state.metadata.name
            await self._patch(kinds.STATES, name, body, namespace=self._namespace)
            log.warning("tainted on node %s are now: %s", name, ", ".join(sorted(wanted)) or "none")
        return wanted

    async def _patch(self, what: Resource[Any], name: str, body: dict[str, Any], *, namespace: str = "") -> None:
        try:
            await self._kube.patch(what, name, body, content_type=kinds.MERGE, namespace=namespace)
        except NotFound as error:  # it was there a moment ago
            raise Conflict(error.status, error.reason, error.message) from error

    # --- what there is

    async def _published(self, sliced: Resource[Any], node: str) -> list[Published]:
        found = await self._kube.list(sliced, field_selector=f"spec.driver={DRIVER_NAME},spec.nodeName={node}")
        return taint_rules.published(found.items, node)

    async def _owner(self, node: str) -> dict[str, Any] | None:
        """None for a node that has just gone: its devices' slices go too."""
        try:
            uid = (await self._kube.get(NODES, node)).metadata.uid
        except NotFound:
            return None
        owner = msgspec.to_builtins(owner_of(node, uid))
        owner.pop("controller")  # the plugin's other objects have that; of rules nobody is
        return dict(owner)


def _newest(served: ServedApi, plural: str, versions: Iterable[str]) -> Resource[dict[str, Any]] | None:
    has = dict(served.resources)
    found = next((version for version in versions if plural in has.get(version, ())), None)
    return Resource(f"{slices.GROUP}/{found}", plural, dict) if found is not None else None


def _decoded(found: dict[str, Any]) -> GpuAllocationState:
    try:
        return msgspec.convert(found, GpuAllocationState)
    except msgspec.ValidationError as error:
        raise Invalid(0, "Undecodable", f"the GpuAllocationState {found['metadata']['name']} is not as expected: {error}") from error
