"""`gpu-controller cleanup`: has the node plugins clean their nodes, waits for it, and removes what is left of the driver in the API server.

Run it while the plugins and the controller still run, before the driver is removed. It holds no state: it may be killed and run again.

Rights, no more than it asks for. Structured DRA (Kubernetes from 1.31 on), cluster-wide:

    resource.k8s.io         resourceslices      list, watch, delete
    resource.k8s.io         resourceclaims      list, watch
    resource.k8s.io         devicetaintrules    list, delete
    (core)                  nodes               list, watch

Classic DRA (1.28 to 1.30), cluster-wide:

    resource.k8s.io         resourceclaims      list, watch
    (core)                  nodes               list, watch

Both, in the driver's namespace:

    (core)                  configmaps          get, patch      (resourceNames: node-plugin-settings)
    (core)                  pods                list, watch
    gpu.resource.intel.com  gpuallocationstates list, watch, delete
    coordination.k8s.io     leases              list, delete

The node plugins themselves need, with classic DRA, to delete their own GpuAllocationState and Lease.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import trio

from dra import backoff, remains, settings_text, taint_rules
from dra.classic.names import heartbeat_name
from dra.errors import DriverError
from dra.settings import NodePluginConfiguration
from dra.slices import GROUP
from nursery_apps.controller import dialect, kinds
from nursery_apps.controller.dialect import Dialect
from nursery_apps.controller.parts import LEASE
from nursery_apps.controller.remnants import Remnants
from nursery_apps.seams import ApiError, Conflict, Invalid, KubeApi, NotFound, Resource, ServedApi, Throttled, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
Json = dict[str, Any]

CONFIG_MAPS: Final[Resource[Json]] = Resource("v1", "configmaps", dict, namespaced=True)

SETTINGS_KEY: Final = "settings.yaml"
PATIENCE_SECONDS: Final = 30.0
"""For a plugin that is not Ready: it may be starting anew."""
SETTLE_SECONDS: Final = 5.0
"""A kubelet that restarts wipes slices, and the plugin puts them back: a node without any has to stay so for this long."""
LAST_SECONDS: Final = 60.0
"""For what is to be removed when the waiting is over."""
FIRST_RETRY_SECONDS: Final = 0.2
RETRY_AT_MOST_SECONDS: Final = 5.0

Decode = Callable[[str], NodePluginConfiguration]
"""Of a settings file's text; raises SettingsInvalid."""


class Cleanup:
    """`run` does it all, once."""

    def __init__(
        self,
        kube: KubeApi,
        *,
        namespace: str,
        config_map: str,
        timeout_seconds: float,
        decode: Decode,
        say: Callable[[str], None],
        random: Callable[[], float],
        patience_seconds: float = PATIENCE_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """
        Args:
            namespace: the driver's.
            config_map: has the node plugins' settings.
            timeout_seconds: for the nodes.
            say: takes a line for people.
        """
        self._kube, self._namespace, self._config_map = kube, namespace, config_map
        self._timeout_seconds, self._patience_seconds, self._settle_seconds = timeout_seconds, patience_seconds, settle_seconds
        self._decode, self._say, self._random = decode, say, random
        self._changed = trio.Event()
        self._left: list[str] = []
        """What stays behind, with the reason."""
        self._unable_since: dict[str, float] = {}
        self._given_up: set[str] = set()
        """Nodes of which this command itself removed what is in the API server."""
        self._last_lines: tuple[str, ...] = ()

    async def run(self) -> bool:
        """Whether nothing is left behind; what is, and why, is said.

        Raises:
            ApiError: the API server refuses the first question.
            trio.TooSlowError: it does not answer.
        """
        with trio.fail_after(self._timeout_seconds + 2 * LAST_SECONDS):
            served = await self._again(self._kube.served)
            is_told = await self._tell()
            spoken = dialect.of(served)
            if spoken.dialect is Dialect.OFF:
                self._say(f"{spoken.why}: there are neither slices nor claims")
            seen = Remnants(
                self._kube,
                spoken,
                namespace=self._namespace,
                random=self._random,
                on_change=lambda: self._changed.set(),  # noqa: PLW0108
            )
            async with trio.open_nursery() as nursery:
                unread = await seen.read(nursery)
                self._left += unread
                if not unread:
                    with trio.move_on_after(self._timeout_seconds) as waiting:
                        await self._drain(seen, is_told)
                    if waiting.cancelled_caught:
                        self._say(f"not done within {self._timeout_seconds:g} s")
                    with trio.move_on_after(LAST_SECONDS) as removing:
                        await self._remove(seen, served)
                    if removing.cancelled_caught:
                        self._left.append(
                            f"the API server was too slow: not all could be removed within {LAST_SECONDS:g} s; run this again"
                        )
                self._sum_up(seen)
                nursery.cancel_scope.cancel()
        return not self._left

    # --- telling the plugins ----------------------------------------------------------------------------------------------------------

    async def _tell(self) -> bool:
        """Set `decommission` in the plugins' settings; whether it is set."""
        where = f"ConfigMap {self._namespace}/{self._config_map}"
        try:
            changed = await self._again(self._set)
        except NotFound:
            self._say(f"there is no {where}: plugins that still run cannot be told (--settings-config-map names another one)")
            return False
        except (DriverError, ApiError) as refusal:
            self._say(f"{where}: {refusal}")
            self._left.append(f"{where}: `decommission: true` could not be set; set it by hand and run this again")
            return False
        self._say(f"{where}: decommission: true" + ("" if changed else ", as it was already"))
        return True

    async def _set(self) -> bool:
        found = await self._kube.get(CONFIG_MAPS, self._config_map, namespace=self._namespace)
        text = (found.get("data") or {}).get(SETTINGS_KEY)
        if text is None:
            raise Invalid(0, "NoSettings", f"ConfigMap {self._config_map} has no key {SETTINGS_KEY}")
        before = self._decode(text)
        if before.decommission:
            return False
        changed = settings_text.decommissioned(text)
        if not settings_text.means(self._decode(changed), before):
            raise settings_text.NotEditable
        body = {"metadata": {"resourceVersion": found["metadata"].get("resourceVersion", "")}, "data": {SETTINGS_KEY: changed}}
        await self._kube.patch(CONFIG_MAPS, self._config_map, body, content_type=kinds.MERGE, namespace=self._namespace)
        return True

    # --- waiting for them -------------------------------------------------------------------------------------------------------------

    async def _drain(self, seen: Remnants, is_told: bool) -> None:
        """Until no node says anything of itself any more, or none of those that do can be told to clean up."""
        quiet_since: float | None = None
        while True:
            self._changed = trio.Event()
            now = trio.current_time()
            devices, nodes, ready, held = seen.devices(), seen.nodes, seen.ready_nodes(), seen.held()
            why = {node: remains.unable(node, nodes, ready) for node in devices}
            self._unable_since = {node: self._unable_since.get(node, now) for node, reason in why.items() if reason is not None}
            self._progress(tuple(remains.line(node, count, held, why[node]) for node, count in sorted(devices.items())))
            due = math.inf
            for node, since in self._unable_since.items():
                at = since if node not in nodes else since + self._patience_seconds
                if at <= now:
                    await self._give_up(seen, node, why[node] or "")
                else:
                    due = min(due, at)
            if not is_told and not self._unable_since:
                return
            quiet_since = None if devices else quiet_since if quiet_since is not None else now
            if quiet_since is not None:
                due = quiet_since + self._settle_seconds
                if due <= now:
                    return
            with trio.move_on_at(due):
                await self._changed.wait()

    def _progress(self, lines: tuple[str, ...]) -> None:
        if lines != self._last_lines:
            self._last_lines = lines
            self._say(f"{len(lines)} nodes left" if lines else "no node says anything of its GPUs any more")
            for line in lines:
                self._say(f"  {line}")

    # --- removing ---------------------------------------------------------------------------------------------------------------------

    async def _give_up(self, seen: Remnants, node: str, why: str) -> None:
        """Remove what is in the API server of a node that cannot do it."""
        if seen.slices is not None:
            for (_, name), body in list(seen.slices.objects.items()):
                if node in (body["spec"].get("nodeName"), body["spec"]["pool"]["name"]):
                    await self._delete(seen.slice_kind, name)
                    seen.slices.forget(name)
        if seen.states is not None:
            await self._delete(kinds.STATES, node, namespace=self._namespace)
            seen.states.forget(node, namespace=self._namespace)
        await self._delete(kinds.LEASES, heartbeat_name(node), namespace=self._namespace)
        self._given_up.add(node)
        self._say(f"  {node}: {why}: what the API server had of it is deleted, the machine itself was not cleaned")
        self._left.append(f"node {node}: {why}, so it was not cleaned; {remains.BY_HAND}")

    async def _remove(self, seen: Remnants, served: ServedApi) -> None:
        versions = dict(served.resources)
        version = next((each for each in taint_rules.VERSIONS if taint_rules.PLURAL in versions.get(each, ())), None)
        if version is not None:
            rules: Resource[Json] = Resource(f"{GROUP}/{version}", taint_rules.PLURAL, dict)
            for name in await self._names(rules, label_selector=taint_rules.SELECTOR):
                await self._delete(rules, name)
        draining = seen.devices()
        for name in await self._names(kinds.STATES, namespace=self._namespace):
            if not (seen.is_classic and name in draining):
                await self._delete(kinds.STATES, name, namespace=self._namespace)
        leases = await self._names(kinds.LEASES, namespace=self._namespace)
        for name in leases:
            node = name.removeprefix(heartbeat_name(""))
            if name != node and node not in draining:
                await self._delete(kinds.LEASES, name, namespace=self._namespace)
        if LEASE in leases and not draining:
            if controllers := seen.controllers():
                text = f"Lease {LEASE} is the running controller's ({', '.join(controllers)}): delete it after that, or with the namespace"
                self._say(text)
            else:
                await self._delete(kinds.LEASES, LEASE, namespace=self._namespace)

    async def _names(self, what: Resource[Any], *, namespace: str = "", label_selector: str = "") -> list[str]:
        async def read() -> list[str]:
            try:
                found = (await self._kube.list(what, namespace=namespace, label_selector=label_selector)).items
            except NotFound:
                return []
            return [one["metadata"]["name"] if isinstance(one, dict) else one.metadata.name for one in found]

        try:
            return await self._again(read)
        except ApiError as error:
            self._left.append(f"{what.plural} cannot be read: {error}")
            return []

    async def _delete(self, what: Resource[Any], name: str, *, namespace: str = "") -> None:
        async def delete() -> bool:
            try:
                await self._kube.delete(what, name, namespace=namespace)
            except NotFound:
                return False
            return True

        try:
            if await self._again(delete):
                self._say(f"deleted {what.plural} {name}")
        except ApiError as error:
            self._left.append(f"{what.plural} {name}: {error}")

    # --- the end ----------------------------------------------------------------------------------------------------------------------

    def _sum_up(self, seen: Remnants) -> None:
        held, nodes, ready, devices = seen.held(), seen.nodes, seen.ready_nodes(), seen.devices()
        for node, count in sorted(devices.items()):
            self._left.append(f"node {remains.line(node, count, held, remains.unable(node, nodes, ready))}")
        for node in sorted(seen.unready_nodes() - self._given_up - devices.keys()):
            self._left.append(f"node {node}: its plugin is not Ready, so nobody knows whether it is clean; {remains.BY_HAND}")
        self._left += [f"{one}: it belongs to its user; delete it, or the pods that use it" for one in held]
        if not self._left:
            self._say("clean: nothing of the driver is left in the cluster but what was installed with it")
            return
        self._say("left behind:")
        for line in self._left:
            self._say(f"  {line}")

    async def _again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Ask until the API server answers: the caller has a deadline."""
        delays = backoff.delays(self._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS)
        while True:
            try:
                return await attempt()
            except (Conflict, Throttled, Unavailable) as error:
                log.warning("%s; trying again", error)
                await trio.sleep(max(next(delays), error.retry_after_seconds or 0))
