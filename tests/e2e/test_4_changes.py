"""What an administrator changes, and what a machine loses and gains, while pods run."""

from __future__ import annotations

from tests.e2e.driver import Driver
from tests.e2e.pods import OPEN_ALL, STAY, Namespace, request


def at(bdf: str) -> dict:
    return request(cel=f'device.attributes["gpu.intel.com"].pciAddress == "{bdf}"')


def name(bdf: str) -> str:
    return bdf.replace(":", "-").replace(".", "-") + "-0x56c0"


def test_a_reload_shows_its_plan_and_takes_nothing_from_a_pod(driver: Driver, ns: Namespace) -> None:
    used, free = "0000:4d:00.0", "0000:5d:00.0"
    ns.template("gpu", at(used))
    ns.pod("p", template="gpu")
    ns.ready("p")
    try:
        driver.set(f"publish: {{exclude: [{{bdf: '{used}'}}]}}\n")
        driver.refresh_settings()
        driver.api.wait_event(driver.node, "SettingsRefused", text=f"{name(used)} is held by claim")
        assert name(used) in driver.devices()
        driver.set(f"publish: {{exclude: [{{bdf: '{free}'}}]}}\n")
        driver.refresh_settings()
        driver.wait_devices(lambda devices: name(free) not in devices, f"{free} withdrawn")
        assert "asked for" in driver.run("gpu-node-plugin", "reload")
    finally:
        driver.set("")
        driver.refresh_settings()
    driver.wait_devices(lambda devices: name(free) in devices, f"{free} offered again")


def test_a_free_gpu_is_unplugged_and_a_pod_waits_for_one_that_is_plugged_in(driver: Driver, ns: Namespace) -> None:
    bdf = "0000:dd:00.0"
    driver.machine("unplug", bdf)
    try:
        driver.wait_devices(lambda devices: name(bdf) not in devices, f"{bdf} withdrawn")
        ns.template("gpu", at(bdf))
        ns.pod("p", template="gpu")
        ns.api.wait_event("p", "FailedScheduling", namespace=ns.name)
    finally:
        driver.machine("plug", bdf)
    driver.offered_again(name(bdf))
    ns.ready("p")


def test_a_gpu_in_use_is_unplugged_and_its_pod_ends_cleanly(driver: Driver, ns: Namespace) -> None:
    bdf = "0000:cd:00.0"
    ns.template("gpu", at(bdf))
    ns.pod("p", template="gpu")
    ns.ready("p")
    driver.machine("unplug", bdf)
    try:
        driver.api.wait_event(driver.node, "GPUTainted", text=name(bdf))
        ns.delete("p")
        driver.nothing_prepared()
    finally:
        driver.machine("plug", bdf)
    driver.offered_again(name(bdf))


def test_a_gpu_that_loses_its_driver_is_withdrawn_until_it_is_bound_again(driver: Driver, ns: Namespace) -> None:
    bdf = "0000:bd:00.0"
    driver.machine("unbind", bdf)
    try:
        driver.wait_devices(lambda devices: name(bdf) not in devices, f"{bdf} withdrawn")
        ns.template("gpu", at(bdf))
        ns.pod("p", template="gpu", command=f"{OPEN_ALL}; {STAY}")
        ns.api.wait_event("p", "FailedScheduling", namespace=ns.name)
    finally:
        driver.machine("bind", bdf, "i915")
    driver.offered_again(name(bdf))
    ns.ready("p")


def test_the_plugin_was_never_refused_by_the_api_server(driver: Driver) -> None:
    assert "orbidden" not in driver.log()
