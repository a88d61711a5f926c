"""What the running programs expose is what their metrics are described as: rules, dashboard and reference rely on it."""

from __future__ import annotations

import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes import classic_programs, plugin_process
from tests.manifests import queries


async def free_port() -> int:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        return int(listener.socket.getsockname()[1])


async def scraped(port: int) -> str:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join([chunk async for chunk in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    return body.decode()


async def until_it_shows(port: int, *names: str) -> str:
    """The exposition, as soon as there is a series of each of these."""
    with trio.fail_after(40):
        while True:
            try:
                text = await scraped(port)
            except OSError:
                text = ""  # it does not listen yet
            if all(f"\nintel_gpu_dra_{name}" in text for name in names):
                return text
            await trio.sleep(0.1)


def strangers(text: str) -> list[str]:
    """Series that are not described as they are."""
    known, found = queries.exported(), []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            ours = sample.name.startswith("intel_gpu_dra_")
            if ours and known.get(sample.name) != sample.labels.keys():
                found.append(f"{sample.name}{sorted(sample.labels)}")
    return found


async def test_the_node_plugin() -> None:
    async with plugin_process.node() as node:
        port = await free_port()
        node.settings.write_text(plugin_process.SETTINGS.replace("{port: 0}", f"{{port: {port}, address: 127.0.0.1}}"))
        await node.start()
        await node.simulate(op="heat", bdf="0000:18:00.0", celsius=61)
        shown = ("gpu_temperature_celsius{", "gpu_health{", "gpu_info{", "registered 1.0", "slices_in_sync 1.0", "watches_behind 0.0")
        assert strangers(await until_it_shows(port, *shown, 'ready{check="ResourceSlices"} 1.0')) == []


async def test_the_controller() -> None:
    async with classic_programs.programs() as programs:
        port = await free_port()
        settings = classic_programs.CONTROLLER_SETTINGS.replace("{port: 0}", f"{{port: {port}, address: 127.0.0.1}}")
        programs.controller_settings.write_text(settings)
        await programs.start_controller("c1")
        checks = (f'ready{{check="{check}"}} 1.0' for check in ("API server", "Lease", "watches"))
        assert strangers(await until_it_shows(port, "leading 1.0", "watches_behind 0.0", *checks)) == []
