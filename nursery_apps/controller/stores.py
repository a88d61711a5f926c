"""Copies of all that allocation depends on, and who is to look again when something of it changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from dra.classic import parameters
from dra.classic.parameters import ClaimParameters, ClassParameters, Demand
from dra.errors import ClaimRefused
from dra.kube.classic import (
    GpuClaimParameters,
    GpuClassParameters,
    Lease,
    PodSchedulingContext,
    ResourceClaim,
    ResourceClass,
)
from nursery_apps.controller import kinds
from nursery_apps.mirror import Mirror
from nursery_apps.seams import KubeApi

Key = tuple[str, str]
"""Namespace, name."""


class Stores:
    """`run` is the task. What is told of a change must not wait."""

    def __init__(self, kube: KubeApi, namespace: str, random: Callable[[], float]) -> None:
        """`namespace` is the driver's own, where the states of nodes and the Leases of their plugins are."""

        def mirror(what: Any, changed: Callable[[Any, Any], None], *, where: str = "") -> Mirror[Any]:
            return Mirror(kube, what, namespace=where, random=random, on_change=changed)

        self.on_claim: Callable[[ResourceClaim | None, ResourceClaim | None], None] = _ignore
        self.on_context: Callable[[PodSchedulingContext | None, PodSchedulingContext | None], None] = _ignore
        self.on_state: Callable[[dict[str, Any] | None, dict[str, Any] | None], None] = _ignore
        self.on_lease: Callable[[Lease | None, Lease | None], None] = _ignore
        self.on_terms: Callable[[Key], None] = _ignore
        """A claim is asked for in another way now: its class or parameters came, changed or went."""
        self.claims: Mirror[ResourceClaim] = mirror(kinds.CLAIMS, self._claim_changed)
        self.contexts: Mirror[PodSchedulingContext] = mirror(kinds.CONTEXTS, self._context_changed)
        self.classes: Mirror[ResourceClass] = mirror(kinds.CLASSES, self._class_changed)
        self._class_parameters: Mirror[dict[str, Any]] = mirror(kinds.CLASS_PARAMETERS, self._class_parameters_changed)
        self._claim_parameters: Mirror[dict[str, Any]] = mirror(kinds.CLAIM_PARAMETERS, self._claim_parameters_changed)
        self.states: Mirror[dict[str, Any]] = mirror(kinds.STATES, self._state_changed, where=namespace)
        self.leases: Mirror[Lease] = mirror(kinds.LEASES, self._lease_changed, where=namespace)
        self._by_class: defaultdict[str, set[Key]] = defaultdict(set)
        self._by_parameters: defaultdict[Key, set[Key]] = defaultdict(set)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; ready when everything was read once. Claims come last: what they are about is there by then."""
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                for mirror in self._first:
                    starting.start_soon(nursery.start, mirror.run)
            await nursery.start(self.claims.run)
            await nursery.start(self.contexts.run)
            task_status.started()

    @property
    def _first(self) -> tuple[Mirror[Any], ...]:
        return self.classes, self._class_parameters, self._claim_parameters, self.states, self.leases

    @property
    def why_behind(self) -> str | None:
        """Why a copy may be behind the truth."""
        errors = (mirror.error.value for mirror in (*self._first, self.claims, self.contexts))
        return next((error for error in errors if error is not None), None)

    # --- what a claim asks for

    def demand(self, claim: ResourceClaim, of_class: ResourceClass) -> Demand:
        """
        Raises:
            ClaimRefused: parameters are missing or wrong; the sentence names object and field.
        """
        where = f"claim {claim.metadata.namespace}/{claim.metadata.name}"
        return parameters.demand(self._of_class(of_class), self._of_claim(claim, where), where)

    def _of_class(self, of_class: ResourceClass) -> ClassParameters:
        where = f"ResourceClass {of_class.metadata.name}"
        name = parameters.class_name(of_class.parameters_ref, where)
        if name is None:
            return ClassParameters()
        found = self._class_parameters.find(name)
        if found is None:
            raise _missing(where, f"{parameters.CLASS_KIND} {name}")
        return parameters.class_parameters(_decoded(found, GpuClassParameters, f"{parameters.CLASS_KIND} {name}"))

    def _of_claim(self, claim: ResourceClaim, where: str) -> ClaimParameters:
        name = parameters.claim_name(claim.spec.parameters_ref, where)
        if name is None:
            return ClaimParameters()
        what = f"{parameters.CLAIM_KIND} {claim.metadata.namespace}/{name}"
        found = self._claim_parameters.find(name, namespace=claim.metadata.namespace)
        if found is None:
            raise _missing(where, what)
        return parameters.claim_parameters(_decoded(found, GpuClaimParameters, what))

    # --- who is concerned

    def _claim_changed(self, before: ResourceClaim | None, after: ResourceClaim | None) -> None:
        if before is not None:
            for index, name in self._indexes(before):
                index[name].discard(_key(before))
                if not index[name]:
                    del index[name]
        if after is not None:
            for index, name in self._indexes(after):
                index[name].add(_key(after))
        self.on_claim(before, after)

    def _indexes(self, claim: ResourceClaim) -> list[tuple[defaultdict[Any, set[Key]], Any]]:
        """Only of claims that may still be allocated: of the others nobody asks their class again."""
        if claim.status.allocation is not None:
            return []
        found: list[tuple[defaultdict[Any, set[Key]], Any]] = [(self._by_class, claim.spec.resource_class_name)]
        if claim.spec.parameters_ref is not None:
            found.append((self._by_parameters, (claim.metadata.namespace, claim.spec.parameters_ref.name)))
        return found

    def _context_changed(self, before: PodSchedulingContext | None, after: PodSchedulingContext | None) -> None:
        self.on_context(before, after)

    def _state_changed(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        self.on_state(before, after)

    def _lease_changed(self, before: Lease | None, after: Lease | None) -> None:
        self.on_lease(before, after)

    def _class_changed(self, before: ResourceClass | None, after: ResourceClass | None) -> None:
        changed = after or before
        assert changed is not None
        for key in list(self._by_class.get(changed.metadata.name, ())):
            self.on_terms(key)

    def _class_parameters_changed(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        changed = after or before
        assert changed is not None
        for of_class in self.classes.objects.values():
            if of_class.parameters_ref is not None and of_class.parameters_ref.name == changed["metadata"]["name"]:
                self._class_changed(None, of_class)

    def _claim_parameters_changed(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        changed = after or before
        assert changed is not None
        metadata = changed["metadata"]
        for key in list(self._by_parameters.get((metadata.get("namespace", ""), metadata["name"]), ())):
            self.on_terms(key)


def _ignore(*_: object) -> None:
    return None


def _key(claim: ResourceClaim) -> Key:
    return claim.metadata.namespace, claim.metadata.name


def _missing(where: str, what: str) -> ClaimRefused:
    return ClaimRefused(f"{where} refers to {what}, which does not exist; create it, or correct parametersRef", reason="ParametersNotFound")


def _decoded(found: dict[str, Any], kind: Any, what: str) -> Any:
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise ClaimRefused(f"{what} cannot be understood: {error}", reason="InvalidParameters") from None
