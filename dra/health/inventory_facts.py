"""What the inventory says of GPUs' health: the states in which nobody can use one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from dra.devices import Gpu, Inventory, Kind, State
from dra.health.facts import Fact, Facts, Severity
from dra.ledger import Ledger
from dra.names import Bdf

_ALWAYS: Final = {State.WEDGED: "wedged", State.SURVIVABILITY: "survivability"}
_UNBOUND: Final = {State.NO_DRIVER: "no-driver", State.NO_NODES: "no-nodes"}


def facts(inventory: Inventory, ledger: Ledger, planned: Collection[Bdf]) -> Mapping[Bdf, Facts]:
    """By address, of all GPUs that are there, and of those that are gone and held.

    A GPU without its driver is ill if a claim holds it, or if it is a card: VFs without a driver are usual, they wait for a virtual
    machine. One that a claim has bound to another driver, or somebody to vfio, is as it should be.

    Args:
        planned: VFs that are made when they are needed, so nobody misses them.
    """
    holders: dict[Bdf, str] = {}
    lent: set[Bdf] = set()
    made_for_claims: set[Bdf] = set()
    for record in ledger.records():
        for grant in record.grants:
            if not grant.admin:
                holders.setdefault(grant.bdf, record.uid)
                if grant.driver:
                    lent.add(grant.bdf)
                if grant.layout:
                    made_for_claims.add(grant.bdf)
    there = inventory.by_bdf()
    found = {bdf: _of(gpu, holders, lent) for bdf, gpu in there.items()}
    for bdf, uid in holders.items():
        if bdf not in there and bdf not in planned and bdf not in made_for_claims:
            found[bdf] = {"absent": Fact("absent", Severity.FAILED, f"it is not on the bus, and claim {uid} holds it")}
    return found


def _of(gpu: Gpu, holders: Collection[Bdf], lent: Collection[Bdf]) -> Facts:
    condition = _ALWAYS.get(gpu.state)
    if condition is None and gpu.bdf not in lent and (gpu.bdf in holders or gpu.kind is Kind.PF):
        condition = _UNBOUND.get(gpu.state)
    return {condition: Fact(condition, Severity.FAILED, (gpu.why or "").removeprefix(f"{condition}: "))} if condition is not None else {}
