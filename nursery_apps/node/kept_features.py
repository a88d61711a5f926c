"""What the API server keeps of a slice, of the fields that a feature gate may take away: asked before anything that matters is sent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import trio

from dra import slice_contents, slice_features, slices
from dra.kube.event_reasons import Reason
from dra.pool import Pool
from dra.slice_features import Feature
from dra.slices import SliceApi
from nursery_apps.seams import Forbidden, Invalid, KubeApi, Resource

log = logging.getLogger(__name__)

PROBE_AGAIN_SECONDS: Final = 3600.0
"""A server that drops taints, counters or shares is asked again after so long: feature gates are switched without a new version."""


class KeptFeatures:
    """Of one server, in one API version."""

    def __init__(self, kube: KubeApi, what: Resource[dict[str, Any]], api: SliceApi, *, on_missed: Callable[[Reason, str], None]) -> None:
        """`on_missed`: (reason, sentence) about a feature to be done without."""
        self._kube, self._what, self._api, self._on_missed = kube, what, api, on_missed
        self._keeps: dict[str, bool] = {}
        self._asked_at: dict[str, float] = {}

    def publishable(self, pool: Pool) -> Pool:
        """Without what the server was seen to drop."""
        for feature in slice_features.ALL:
            if not self._keeps.get(feature.gate, True):
                pool = feature.without(pool)
        return pool

    async def ask(self, pool: Pool) -> None:
        """Would the server keep what this pool needs? A dry run stores nothing, so nothing overlaps or shows up as sound meanwhile."""
        for feature in slice_features.ALL:
            await self._ask(feature, pool)

    def do_without(self, feature: Feature, why: str) -> None:
        """Until it is time to ask again."""
        self._keeps[feature.gate] = False
        self._asked_at[feature.gate] = trio.current_time()
        self._on_missed(feature.reason, f"{why}: {feature.then}")

    async def _ask(self, feature: Feature, pool: Pool) -> None:
        sample = feature.sample(pool)
        since = trio.current_time() - self._asked_at.get(feature.gate, -PROBE_AGAIN_SECONDS)
        if sample is None or self._keeps.get(feature.gate, False) or since < PROBE_AGAIN_SECONDS:
            return
        if not feature.known(self._api):
            self.do_without(feature, f"this Kubernetes is too old for {feature.what} ({feature.gate})")
            return
        try:
            for body in slices.render(sample, self._api, generation=1, owner=None):
                stored = await self._kube.create(self._what, body, dry_run=True)
                if feature.missed(slice_contents.dropped_fields(body, stored)):
                    self.do_without(feature, f"the API server does not keep {feature.what} ({feature.gate} is off)")
                    return
            self._keeps[feature.gate] = True
        except (Invalid, Forbidden) as error:
            if feature.trusted:
                log.info("cannot ask for %s by a dry run, reading them back instead: %s", feature.what, error)
                self._asked_at[feature.gate] = trio.current_time()
                self._keeps.pop(feature.gate, None)
            else:
                self.do_without(feature, f"no dry run can tell whether the API server keeps {feature.what}: {error}")
