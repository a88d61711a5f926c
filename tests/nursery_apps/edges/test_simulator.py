"""The control socket as its client sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from dra.sim_kernel.kernel import SimKernel
from nursery_apps.edges.simulator import serve_control
from tests.fakes import machines

GPU = "0000:03:00.0"
MACHINE = "workstation-2xb580"


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream, self._pending = stream, b""

    async def send(self, line: str) -> None:
        await self._stream.send_all(f"{line}\n".encode())

    async def answer(self) -> Any:
        with trio.fail_after(5):
            while b"\n" not in self._pending:
                self._pending += await self._stream.receive_some()
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)

    async def ask(self, op: str, **fields: object) -> Any:
        await self.send(json.dumps({"op": op, **fields}))
        return await self.answer()


@asynccontextmanager
async def served(kernel: SimKernel, path: Path) -> AsyncIterator[Client]:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, kernel, str(path))
        async with await trio.open_unix_socket(str(path)) as stream:
            yield Client(stream)
        nursery.cancel_scope.cancel()


@pytest.fixture
def kernel() -> SimKernel:
    return machines.kernel(MACHINE)


async def test_a_card_is_pulled_and_put_back(kernel: SimKernel, tmp_path: Path) -> None:
    async with served(kernel, tmp_path / "sim.sock") as client:
        assert await client.ask("unplug", bdf=GPU) == {"ok": None}
        assert (await client.ask("state"))["ok"][GPU]["on_bus"] is False
        assert await client.ask("plug", bdf=GPU) == {"ok": None}
        assert (await client.ask("read", path=f"sys/bus/pci/devices/{GPU}/device")) == {"ok": "0xe20b\n"}
        assert "renderD128" in (await client.ask("list", path="dev/dri"))["ok"]
    assert not (tmp_path / "sim.sock").exists()


async def test_the_one_that_goes_leaves_its_successors_socket(kernel: SimKernel, nursery: trio.Nursery, tmp_path: Path) -> None:
    path, life = tmp_path / "sim.sock", trio.CancelScope()

    async def serve_old(*, task_status: trio.TaskStatus[None]) -> None:
        with life:
            await serve_control(kernel, str(path), task_status=task_status)

    await nursery.start(serve_old)
    async with served(machines.kernel(MACHINE), path) as successor:
        life.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert await successor.ask("unplug", bdf=GPU) == {"ok": None}
        assert path.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "malformed"),
        ('{"op": "explode"}', "explode"),
        ("[]", "object"),
        ('{"op": "unplug"}', "bdf"),
        ('{"op": "unplug", "bdf": "0000:ff:00.0"}', "ever on this machine"),
        ('{"op": "unplug", "bdf": "0000:03:00.0", "when": "now"}', "when"),
        ('{"op": "fail", "path": "*", "operation": "read", "errno": "EWHAT"}', "EWHAT"),
        ('{"op": "fail", "path": "*", "operation": "reed", "errno": "EIO"}', "reed"),
        ('{"op": "reboot", "boot_id": "yes"}', "boot id"),
        ('{"op": "survivability", "bdf": "0000:03:00.0", "mode": "Sometimes"}', "Sometimes"),
    ],
)
async def test_bad_input_is_answered_and_the_connection_stays(kernel: SimKernel, tmp_path: Path, line: str, words: str) -> None:
    async with served(kernel, tmp_path / "sim.sock") as client:
        await client.send(line)
        assert words in (await client.answer())["error"]
        assert "ok" in await client.ask("state")


async def test_the_kernels_refusal_carries_its_errno(kernel: SimKernel, tmp_path: Path) -> None:
    async with served(kernel, tmp_path / "sim.sock") as client:
        answer = await client.ask("bind", bdf=GPU, driver="xe")
        assert answer["errno"] == "EBUSY"
        assert "busy" in answer["error"]


async def test_a_hang_blocks_one_caller_until_released(kernel: SimKernel, tmp_path: Path) -> None:
    async with served(kernel, tmp_path / "sim.sock") as client, await trio.open_unix_socket(str(tmp_path / "sim.sock")) as second:
        other = Client(second)
        await client.ask("hang", path=GPU, operation="unbind")
        await client.send(json.dumps({"op": "unbind", "bdf": GPU}))
        assert (await other.ask("state"))["ok"][GPU]["driver"] == "xe"
        assert await other.ask("release", path=GPU, operation="unbind") == {"ok": None}
        assert await client.answer() == {"ok": None}


async def test_the_server_ends_although_something_hangs(kernel: SimKernel, tmp_path: Path) -> None:
    with trio.fail_after(5):
        async with served(kernel, tmp_path / "sim.sock") as client:
            await client.ask("hang", path=GPU, operation="unbind")
            await client.send(json.dumps({"op": "unbind", "bdf": GPU}))
            await client.send(json.dumps({"op": "state"}))


async def test_the_command_line_client(kernel: SimKernel, tmp_path: Path) -> None:
    path = tmp_path / "sim.sock"
    tool = str(Path(__file__).parents[3] / "tools" / "sim")

    async def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        with trio.fail_after(20):
            return await trio.run_process([sys.executable, tool, *words], capture_stdout=True, capture_stderr=True, check=False)

    async with served(kernel, path):
        assert (await run(str(path), "wedge", GPU)).returncode == 0
        state = json.loads((await run(str(path), "state")).stdout)
        assert state[GPU]["wedged"] is True
        assert (await run(str(path), "fail", "*/vendor", "read", "EIO", "times=1")).returncode == 0
        failed = await run(str(path), "read", f"sys/bus/pci/devices/{GPU}/vendor")
        assert (failed.returncode, b"Input/output error" in failed.stderr) == (1, True)
        assert (await run(str(path), "read", f"sys/bus/pci/devices/{GPU}/vendor")).stdout == b"0x8086\n"
        assert (await run(str(path), "aer", GPU, "fatal", "3")).returncode == 0
        assert (await run(str(path), "read", f"sys/bus/pci/devices/{GPU}/aer_dev_fatal")).stdout.endswith(b"TOTAL_ERR_FATAL 3\n")
        assert (await run(str(path), "off-bus", GPU)).returncode == 0
        assert b"no operation 'explode'" in (await run(str(path), "explode")).stderr
        assert (await run(str(path), "reboot")).returncode == 0
    assert not kernel.state()[GPU]["wedged"]
    assert b"sim: " in (await run(str(path), "state")).stderr


FLEX, CUT = "server-8x-flex170", "0000:4d:00.0"


async def test_a_virtual_machine_holds_a_card_until_it_is_released(tmp_path: Path) -> None:
    kernel = machines.kernel(FLEX)
    kernel.modprobe("vfio-pci")
    kernel.write(f"sys/bus/pci/devices/{CUT}/driver_override", "vfio-pci")
    kernel.unbind(CUT)
    kernel.write("sys/bus/pci/drivers_probe", CUT)
    async with served(kernel, tmp_path / "sim.sock") as client, await trio.open_unix_socket(str(tmp_path / "sim.sock")) as second:
        other = Client(second)
        assert await client.ask("hold_vfio", bdf=CUT) == {"ok": None}
        await client.send(json.dumps({"op": "unbind", "bdf": CUT}))
        assert (await other.ask("state"))["ok"][CUT]["driver"] == "vfio-pci"
        assert await other.ask("release_vfio", bdf=CUT) == {"ok": None}
        assert await client.answer() == {"ok": None}
        assert (await other.ask("state"))["ok"][CUT]["driver"] is None
        assert "no virtual machine" in (await other.ask("hold_vfio", bdf=CUT))["error"]
        assert await other.ask("limit_vfs", bdf=CUT, at_most=3) == {"ok": None}
