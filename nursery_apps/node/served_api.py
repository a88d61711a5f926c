"""Which version of resource.k8s.io to speak, found out again and again: clusters are upgraded under a running DaemonSet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from dra import backoff, kubernetes_releases, slices
from dra.kube.claims import ResourceClaim
from dra.slices import SliceApi
from nursery_apps.latest import Latest
from nursery_apps.seams import ApiError, KubeApi, Resource, ServedApi

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS: Final = 180.0
"""An upgraded API server is noticed within this time even if nothing fails meanwhile; two small requests, nothing for it."""
POKES_APART_SECONDS: Final = 5.0
"""A kubelet that registers us in a loop, or a kind that stays 404, does not make us ask more often."""
FIRST_RETRY_SECONDS: Final = 0.5
RETRY_AT_MOST_SECONDS: Final = 15.0


class Offer(msgspec.Struct, frozen=True):
    """What the API server offers us."""

    server_version: str = ""
    slices: Resource[dict[str, Any]] | None = None
    slice_api: SliceApi | None = None
    """Set together with `slices`."""
    claims: Resource[ResourceClaim] | None = None
    why: str | None = "the API server has not been asked yet"
    """Why slices or claims are None, for people; None if both are there."""


def choose(served: ServedApi) -> Offer:
    """The newest version that serves each kind. Decided by the lists of kinds: 1.34 and newer serve v1alpha3 without slices."""
    has = dict(served.resources)
    sliced = next((version for version in slices.VERSIONS if "resourceslices" in has.get(version, ())), None)
    claimed = next((version for version in slices.VERSIONS if "resourceclaims" in has.get(version, ())), None)
    why = None
    if sliced is None or claimed is None:
        asked = f"the API server ({served.server_version or 'unknown version'})"
        if kubernetes_releases.is_newer(served.server_version) and has:
            known = ", ".join(slices.VERSIONS)
            why = f"{asked} serves resource.k8s.io as {', '.join(has)}; this version of the driver knows {known}: upgrade the driver"
        elif "v1alpha2" in has:
            why = f"{asked} has classic DRA only (resource.k8s.io/v1alpha2): there are no ResourceSlices to publish"
        else:
            why = f"{asked} serves no ResourceSlices: switch on the feature gate DynamicResourceAllocation and resource.k8s.io"
    return Offer(
        served.server_version,
        slices=Resource(f"{slices.GROUP}/{sliced}", "resourceslices", dict) if sliced else None,
        slice_api=SliceApi.of(sliced, served.server_version) if sliced else None,
        claims=Resource(f"{slices.GROUP}/{claimed}", "resourceclaims", ResourceClaim, namespaced=True) if claimed else None,
        why=why,
    )


class ServedApiKeeper:
    """Owns `offer`."""

    def __init__(self, kube: KubeApi, random: Callable[[], float]) -> None:
        self._kube = kube
        self._random = random
        self._poked = trio.Event()
        self.offer: Latest[Offer] = Latest(Offer())

    def poke(self) -> None:
        """Something made us doubt: the kubelet asked who we are, or a kind was answered 404."""
        self._poked.set()

    def claims(self) -> Resource[ResourceClaim] | None:
        return self.offer.value.claims

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask until cancelled; ready after the first answer, be it that DRA is off."""
        started = False
        while True:
            await self._ask()
            if not started:
                started = True
                task_status.started()
            asked_at = trio.current_time()
            with trio.move_on_after(LOOK_AGAIN_SECONDS):
                await self._poked.wait()
                await trio.sleep_until(asked_at + POKES_APART_SECONDS)
            self._poked = trio.Event()

    async def _ask(self) -> None:
        for delay in backoff.delays(self._random, first_seconds=FIRST_RETRY_SECONDS, cap_seconds=RETRY_AT_MOST_SECONDS):
            try:
                offer = choose(await self._kube.served())
            except ApiError as error:
                wait = max(delay, error.retry_after_seconds or 0)
                log.warning("cannot ask the API server what it serves, again in %.1f s: %s", wait, error)
                # What was offered before stays: an API server that is away has not changed its mind.
                if not self.offer.value.server_version:
                    self.offer.set(Offer(why=f"the API server does not answer: {error}"))
                await trio.sleep(wait)
                continue
            before = self.offer.value
            if offer.server_version != before.server_version and kubernetes_releases.is_newer(offer.server_version):
                log.warning("%s", kubernetes_releases.remark("the API server", offer.server_version))
            if self.offer.set(offer):
                if offer.why is not None:
                    log.warning("%s", offer.why)
                elif (before.slices, before.claims) != (offer.slices, offer.claims) and offer.slices and offer.claims:
                    log.info("API server %s: %s, %s", offer.server_version, offer.slices.group_version, offer.claims.group_version)
            return
