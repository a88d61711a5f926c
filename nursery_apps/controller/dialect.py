"""Who allocates in this cluster: the scheduler, or this controller. Asked again and again, since clusters are upgraded under it."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from dra import backoff, kubernetes_releases
from nursery_apps.latest import Latest
from nursery_apps.seams import ApiError, KubeApi, ServedApi

log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS: Final = 300.0
"""An API server is upgraded in minutes; its watches break then, which is noticed sooner."""
OFF_SECONDS: Final = 30.0
"""The same while DRA is switched off."""


STRUCTURED_VERSIONS: Final = ("v1", "v1beta2", "v1beta1", "v1alpha3")
"""Of resource.k8s.io, the best first. v1alpha2's slices (1.30) are of another model."""


class Dialect(enum.StrEnum):
    CLASSIC = "classic"
    """resource.k8s.io/v1alpha2, Kubernetes 1.28 to 1.30: this controller allocates."""
    STRUCTURED = "structured"
    """1.31 and later: the scheduler does."""
    OFF = "off"


class Spoken(msgspec.Struct, frozen=True):
    dialect: Dialect
    server_version: str
    version: str = ""
    """Of resource.k8s.io, to be spoken with structured DRA."""
    why: str | None = None
    """Why nothing can be done, for people."""


def of(served: ServedApi) -> Spoken:
    """What an API server's offer means."""
    versions = dict(served.resources)
    for version in STRUCTURED_VERSIONS:
        if "resourceslices" in versions.get(version, ()):
            return Spoken(Dialect.STRUCTURED, served.server_version, version)
    if "podschedulingcontexts" in versions.get("v1alpha2", ()):
        return Spoken(Dialect.CLASSIC, served.server_version)
    why = (
        f"the API server ({served.server_version}) serves no resource.k8s.io: switch on the feature gate DynamicResourceAllocation and, "
        "where it is alpha, the API version (--runtime-config)"
    )
    return Spoken(Dialect.OFF, served.server_version, why=why)


class DialectKeeper:
    """Owns `spoken`: None until the API server has answered once."""

    def __init__(self, kube: KubeApi, random: Callable[[], float]) -> None:
        self._kube = kube
        self._random = random
        self.spoken: Latest[Spoken | None] = Latest(None)
        self.error: str | None = "the API server was not asked yet"

    async def run(self) -> None:
        """Ask until cancelled.

        Raises:
            UnsupportedRelease: the API server is older than any that the driver is for.
        """
        delays = backoff.delays(self._random, first_seconds=0.5, cap_seconds=30)
        while True:
            try:
                now = of(await self._kube.served())
            except ApiError as error:
                self.error = f"the API server cannot be asked: {error}"
                log.warning("%s", self.error)
                await trio.sleep(max(next(delays), error.retry_after_seconds or 0))
                continue
            delays = backoff.delays(self._random, first_seconds=0.5, cap_seconds=30)
            kubernetes_releases.demand("the API server", now.server_version)
            before, self.error = self.spoken.value, now.why
            if kubernetes_releases.is_newer(now.server_version) and (before is None or before.server_version != now.server_version):
                log.warning("%s", kubernetes_releases.remark("the API server", now.server_version))
            if self.spoken.set(now):
                log.info("Kubernetes %s: %s", now.server_version, now.why or _SAID[now.dialect])
            await trio.sleep(OFF_SECONDS if now.dialect is Dialect.OFF else ASK_AGAIN_SECONDS)


_SAID: Final = {
    Dialect.CLASSIC: "classic DRA, this controller allocates",
    Dialect.STRUCTURED: "the scheduler allocates, this controller watches over slices and claims",
}
