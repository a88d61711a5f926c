"""A GPU goes to a virtual machine's claim and comes back, whatever happens in between; on a simulated kernel."""

from __future__ import annotations

import errno
import json
from typing import Any

from trio.testing import MockClock

from dra import discovery
from dra.devices import Gpu
from dra.names import Bdf
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines
from tests.fakes.claim_node import ClaimNode, Disks
from tests.fakes.claim_server import ClaimServer, claim

B60, OTHER = Bdf("0000:18:00.0"), Bdf("0000:3a:00.0")


def wants(driver: str = "vfio-pci") -> list[dict[str, Any]]:
    parameters = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", "driver": driver}
    return [{"source": "FromClass", "opaque": {"driver": "gpu.intel.com", "parameters": parameters}}]


def vm(uid: str, *bdfs: Bdf) -> dict[str, Any]:
    return claim(uid, *(f"{bdf.replace(':', '-').replace('.', '-')}-0xe211" for bdf in bdfs), config=wants())


def machine() -> SimKernel:
    kernel = machines.kernel("server-4x-b60")
    kernel.modprobe("vfio-pci")
    return kernel


def gpu(kernel: SimKernel, bdf: Bdf) -> Gpu:
    return discovery.scan(kernel).by_bdf()[bdf]


def override(kernel: SimKernel, bdf: Bdf) -> str:
    return kernel.read(f"sys/bus/pci/devices/{bdf}/driver_override").strip()


async def test_a_gpu_goes_to_a_virtual_machine_and_comes_back(autojump_clock: MockClock) -> None:
    kernel = machine()
    before = gpu(kernel, B60)
    async with ClaimNode(ClaimServer(vm("a", B60)), kernel=kernel).running() as node:
        reply = await node.prepare("a")
        assert not isinstance(reply, str)
        assert gpu(kernel, B60).driver == "vfio-pci"
        [device] = json.loads(next(iter(node.disks.cdi.values())))["devices"]
        group = gpu(kernel, B60).iommu_group
        assert f"/dev/vfio/{group}" in [each["path"] for each in device["containerEdits"]["deviceNodes"]]
        assert not any("dri" in each["path"] for each in device["containerEdits"]["deviceNodes"])
        [(name, data)] = node.disks.metadata.items()
        assert device["containerEdits"]["mounts"][0]["hostPath"] == f"/plugin/dra-device-metadata/{name}"
        assert B60 in data.decode()
        assert await node.prepare("a") == reply
        assert await node.unprepare("a") is None
        assert (node.disks.cdi, node.disks.metadata) == ({}, {})
    after = gpu(kernel, B60)
    assert (after.driver, after.state, after.memory_bytes) == (before.driver, before.state, before.memory_bytes)
    assert override(kernel, B60) == "(null)"


async def test_while_it_is_lent_it_is_published_as_it_was_and_tainted_by_nobody(autojump_clock: MockClock) -> None:
    kernel = machine()
    async with ClaimNode(ClaimServer(vm("a", B60)), kernel=kernel).running() as node:
        before = node.offering.desired.value
        await node.prepare("a")
        assert node.offering.desired.value == before


async def test_a_plugin_that_dies_on_the_way_finishes_in_its_next_life(autojump_clock: MockClock) -> None:
    kernel, disks = machine(), Disks()
    kernel.fail("*/bind", "bind", errno.EIO)
    kernel.fail("sys/bus/pci/drivers_probe", "bind", errno.EIO)
    server = ClaimServer(vm("a", B60))
    async with ClaimNode(server, kernel=kernel, disks=disks).running() as node:
        assert isinstance(await node.prepare("a"), str)
    async with ClaimNode(server, kernel=kernel, disks=disks).running() as node:
        assert not isinstance(await node.prepare("a"), str)
        assert gpu(kernel, B60).driver == "vfio-pci"
    async with ClaimNode(server, kernel=kernel, disks=disks).running() as node:
        assert gpu(kernel, B60).driver == "vfio-pci", "a restart changes nothing"
        assert await node.unprepare("a") is None
    assert gpu(kernel, B60).driver == "xe"


async def test_a_claim_of_several_is_answered_only_when_all_are_there(autojump_clock: MockClock) -> None:
    kernel = machine()
    kernel.fail(f"*{OTHER}*", "probe", errno.EIO)
    async with ClaimNode(ClaimServer(vm("a", B60, OTHER)), kernel=kernel).running() as node:
        text = await node.prepare("a")
        assert isinstance(text, str) and OTHER in text
        assert node.disks.cdi == {}
        reply = await node.prepare("a")
        assert not isinstance(reply, str) and len(reply) == 2
        assert await node.unprepare("a") is None
    assert {gpu(kernel, bdf).driver for bdf in (B60, OTHER)} == {"xe"}


async def test_a_gpu_that_somebody_else_gave_to_a_virtual_machine_is_left_there(autojump_clock: MockClock) -> None:
    kernel = machine()
    kernel.write(f"sys/bus/pci/devices/{B60}/driver_override", "vfio-pci")
    kernel.unbind(B60)
    kernel.write("sys/bus/pci/drivers_probe", B60)
    async with ClaimNode(ClaimServer(vm("a", OTHER)), kernel=kernel).running() as node:
        await node.prepare("a")
        await node.unprepare("a")
    assert (gpu(kernel, B60).driver, gpu(kernel, OTHER).driver) == ("vfio-pci", "xe")


async def test_without_the_kernels_module_it_stays_and_the_event_says_what_to_do(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("server-4x-b60")
    async with ClaimNode(ClaimServer(vm("a", B60)), kernel=kernel).running() as node:
        assert "run `modprobe vfio-pci` on the node" in str(await node.prepare("a"))
        assert gpu(kernel, B60).driver == "xe"
        assert await node.unprepare("a") is None


async def test_the_gpu_of_the_console_stays(autojump_clock: MockClock) -> None:
    kernel = machines.kernel("desktop-a770")
    kernel.modprobe("vfio-pci")
    console = next(found for found in discovery.scan(kernel).gpus if found.boot_vga)
    server = ClaimServer(claim("a", console.name, config=wants()))
    async with ClaimNode(server, kernel=kernel).running() as node:
        assert "console" in str(await node.prepare("a"))
        assert gpu(kernel, console.bdf).driver == console.driver
        assert await node.unprepare("a") is None
