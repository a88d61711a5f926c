"""What Intel's own driver had allocated and prepared goes on. The cluster is made to look as after it."""

from __future__ import annotations

from tests.e2e.api import Doc
from tests.e2e.classic.driver import FINALIZER, ClassicDriver, finalizers
from tests.e2e.classic.users import COUNT, ClassicNamespace
from tests.e2e.own_node import OwnNode


def held(driver: ClassicDriver, uid: str) -> Doc:
    """A GPU as the original noted that a claim has it."""
    device = driver.inventory()[uid]
    return {"uid": uid, "memory": device["memory"], "millicores": 1000, "type": "gpu", "parentuid": "", "vfindex": 0, "profile": ""}


def note(driver: ClassicDriver, where: str, claim: str, value: object) -> None:
    driver.api.patch("GpuAllocationState", driver.node, {"spec": {where: {claim: value}}}, driver.namespace)


def test_claims_that_it_had_allocated_keep_their_gpus(driver: ClassicDriver, ns: ClassicNamespace) -> None:
    card = sorted(driver.cards())[-1]
    driver.scale(0)
    try:
        ns.ask("old", mode="Immediate", as_template=False)
        ns.api.patch("ResourceClaim", "old", {"metadata": {"finalizers": [FINALIZER]}}, ns.name)
        terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [driver.node]}]}]
        allocation = {"availableOnNodes": {"nodeSelectorTerms": terms}, "shareable": False}  # no handle: it made none
        status = {"driverName": "gpu.resource.intel.com", "allocation": allocation}
        claim = ns.api.patch("ResourceClaim", "old", {"status": status}, ns.name, subresource="status")["metadata"]["uid"]
        note(driver, "allocatedClaims", claim, {"gpus": [held(driver, card)]})
    finally:
        driver.scale(2)
    driver.wait_ready()
    assert driver.leads("claims_with_devices") == 1
    ns.pod("p", claim="old", command=COUNT)
    ns.ask("rest", count=len(driver.cards()) - 1)
    ns.pod("rest", template="rest", command=COUNT)
    ns.ready("p", "rest")
    assert ns.counted("p") == 1
    assert card not in {part["uid"] for part in ns.parts()}
    ns.delete("p", "rest")
    ns.api.delete("ResourceClaim", "old", ns.name)
    ns.api.wait_gone("ResourceClaim", "old", ns.name)
    assert not driver.state()["spec"].get("allocatedClaims")


def test_claims_that_it_had_prepared_are_taken_over(driver: ClassicDriver, node: OwnNode, ns: ClassicNamespace) -> None:
    ns.ask("one")
    ns.pod("p", template="one", command=COUNT)
    ns.ready("p")
    [part] = ns.parts()
    [claim] = ns.api.list("ResourceClaim", ns.name)
    assert FINALIZER in finalizers(claim)
    with driver.away():
        for file in node.state.glob("journal*"):
            file.unlink()
        note(driver, "preparedClaims", claim["metadata"]["uid"], [held(driver, part["uid"])])
    driver.wait_ready()
    assert driver.metric("claims") == 1
    assert not driver.state()["spec"].get("preparedClaims")
    ns.ready("p")
    ns.delete("p")
