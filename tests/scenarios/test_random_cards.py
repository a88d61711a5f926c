"""Random histories of cards: claims, administrators, hotplug, a kernel that refuses, the program's death, and what must always hold."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from dra import discovery
from dra.devices import Kind
from dra.names import Bdf
from dra.sim_kernel.kernel import SimKernel
from dra.sriov_settings import Sriov
from tests.fakes import machines
from tests.fakes.claim_node import ClaimNode, Disks
from tests.fakes.claim_server import ClaimServer, claim

ONE, TWO = Bdf("0000:4d:00.0"), Bdf("0000:5d:00.0")
WANTS_VFIO = [
    {
        "opaque": {
            "driver": "gpu.intel.com",
            "parameters": {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "driver": "vfio-pci"},
        }
    }
]
EXAMPLES = int(os.environ.get("RANDOM_CARDS", "60"))
"""More for a long look: RANDOM_CARDS=3000 tools/test tests/scenarios/test_random_cards.py -n 0"""
LAYOUTS = ("flex170_m2", "flex170_m4", [{"profile": "fair-share", "count": 3}])


def name(pf: Bdf, index: int) -> str:
    return f"{pf[:7].replace(':', '-')}-00-{index}-0x56c0"


CLAIMS: dict[str, dict[str, Any]] = {
    **{f"one-{index}": claim(f"one-{index}", name(ONE, index)) for index in (0, 1, 2)},
    **{f"two-{index}": claim(f"two-{index}", name(TWO, index)) for index in (0, 1)},
    "both": claim("both", name(ONE, 1), name(TWO, 1)),
    "vm": claim("vm", name(TWO, 0), config=WANTS_VFIO),
    "vm-of-vf": claim("vm-of-vf", name(ONE, 2), config=WANTS_VFIO),
}

uids, pfs = st.sampled_from(sorted(CLAIMS)), st.sampled_from([ONE, TWO])
actions = st.one_of(
    st.tuples(st.just("prepare"), uids),
    st.tuples(st.just("prepare"), uids),
    st.tuples(st.just("unprepare"), uids),
    st.tuples(
        st.just("settings"), st.sampled_from(range(len(LAYOUTS))), st.sampled_from(["lazy", "eager"]), st.sampled_from(["remove", "keep"])
    ),
    st.tuples(st.just("off")),
    st.tuples(st.just("refuse"), pfs, st.sampled_from([16, 28, 5, 11, 125])),
    st.tuples(st.just("refuse-quota"), pfs, st.sampled_from([122, 28, 7])),
    st.tuples(st.just("refuse-probe"), pfs),
    st.tuples(st.just("unplug"), pfs),
    st.tuples(st.just("plug"), pfs),
    st.tuples(st.just("die")),
)


def machine() -> SimKernel:
    kernel = machines.kernel("server-8x-flex170")
    for gpu in discovery.scan(kernel).gpus:
        if gpu.kind is Kind.PF and gpu.bdf not in (ONE, TWO):
            kernel.unplug(gpu.bdf)
    kernel.modprobe("vfio-pci")
    return kernel


def wanted(layout: int, make: str = "lazy", keep: str = "remove") -> Sriov:
    cut = {"select": {"pciId": "0x56c0"}, "vfs": LAYOUTS[layout]}
    return msgspec.convert({"mode": "fixed", "make": make, "keep": keep, "layouts": [cut]}, Sriov)


async def live(kernel: SimKernel, disks: Disks, sriov: Sriov, history: list[tuple[Any, ...]]) -> Sriov:
    """Act until the history ends or the program dies; what the settings are by then."""
    node = ClaimNode(ClaimServer(*CLAIMS.values()), kernel=kernel, sriov=sriov, disks=disks)
    with trio.CancelScope() as life:
        async with node.running():
            while history:
                match history.pop(0):
                    case ("prepare", uid):
                        await node.prepare(uid, deadline_seconds=40)
                    case ("unprepare", uid):
                        await node.unprepare(uid, deadline_seconds=40)
                    case ("settings", layout, make, keep):
                        node.sriov.set(wanted(layout, make, keep))
                    case ("off",):
                        node.sriov.set(Sriov())
                    case ("refuse", pf, number):
                        kernel.fail(f"*/{pf}/sriov_numvfs", "sriov", number)
                    case ("refuse-quota", pf, number):
                        kernel.fail(f"*/{pf}/drm/*/lmem_quota", "write", number)
                    case ("refuse-probe", pf):
                        kernel.fail(f"{pf[:-1]}*", "probe", 5)
                    case ("unplug", pf):
                        if pf in discovery.scan(kernel).by_bdf():
                            kernel.unplug(pf)
                    case ("plug", pf):
                        if pf not in discovery.scan(kernel).by_bdf():
                            kernel.plug(pf)
                    case ("die",):
                        life.cancel()
                held = [
                    (grant.device, grant.parent)
                    for record in node.journal.ledger.value.records()
                    for grant in record.grants
                    if not grant.admin
                ]
                assert len({device for device, _ in held}) == len(held), "a device has two owners"
                assert not {device for device, _ in held} & {name(parent, 0) for _, parent in held if parent}, "a card and its VF are held"
    return node.sriov.value


async def tell(history: list[tuple[Any, ...]]) -> None:
    kernel, disks, sriov = machine(), Disks(), wanted(1)
    while history:
        sriov = await live(kernel, disks, sriov, history)
    kernel.faults.clear()
    for pf in (ONE, TWO):
        if pf not in discovery.scan(kernel).by_bdf():
            kernel.plug(pf)
        elif discovery.scan(kernel).by_bdf()[pf].driver is None:
            kernel.write("sys/bus/pci/drivers_probe", pf)  # a probe that failed for somebody else: an administrator's to repeat
    async with ClaimNode(ClaimServer(*CLAIMS.values()), kernel=kernel, disks=disks).running() as node:
        for uid in CLAIMS:
            assert await node.unprepare(uid) is None, uid
        with trio.fail_after(600):
            while node.journal.ledger.value.carvings:
                await node.journal.ledger.wait_newer(node.journal.ledger.version)
    found = discovery.scan(kernel)
    assert [(gpu.bdf, gpu.driver, gpu.vfs_now) for gpu in found.gpus] == [(ONE, "i915", 0), (TWO, "i915", 0)]
    assert not any(gpu.state == "dirty" for gpu in found.gpus), "a quota is left"
    assert (disks.cdi, disks.metadata, dict(node.journal.ledger.value.claims)) == ({}, {}, {})


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(st.lists(actions, min_size=1, max_size=12))
def test_whatever_happens_nothing_is_left_and_nobody_shares(history: list[tuple[Any, ...]]) -> None:
    trio.run(partial(tell, list(history)), clock=trio.testing.MockClock(autojump_threshold=0))
