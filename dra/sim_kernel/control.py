"""Carries out requests on a fake machine."""

from __future__ import annotations

from collections.abc import Callable

from dra.sim_kernel import requests
from dra.sim_kernel.kernel import SimKernel


def perform(kernel: SimKernel, request: requests.Request, *, gate: Callable[[str, str], Callable[[], None]]) -> object:
    """Do what is asked; the result is JSON's to write, None where there is nothing to say.

    `gate(path, operation)` makes what a `hang` blocks on; for `hold_vfio` the address and `vfio` are given. May block: delays and hangs
    of the machine apply to requests too.

    Raises:
        OSError: the kernel's answer.
        ValueError: this cannot be done to this machine.
    """
    match request:
        case requests.Unplug(bdf):
            kernel.unplug(bdf)
        case requests.Plug(bdf, like):
            kernel.plug(bdf, like)
        case requests.PlugFragment(bdf, parent, directory, ioctl):
            kernel.plug_fragment(bdf, parent, directory, ioctl)
        case requests.Bind(bdf, driver):
            kernel.bind(bdf, driver)
        case requests.Unbind(bdf):
            kernel.unbind(bdf)
        case requests.Modprobe(driver):
            kernel.modprobe(driver)
        case requests.Rescan():
            kernel.write("sys/bus/pci/rescan", "1")
        case requests.HoldMinor(bdf):
            kernel.hold_minor(bdf)
        case requests.ReleaseMinors():
            kernel.release_minors()
        case requests.Wedge(bdf, methods):
            kernel.wedge(bdf, methods)
        case requests.Unwedge(bdf):
            kernel.unwedge(bdf)
        case requests.Survivability(bdf, mode):
            kernel.survivability(bdf, mode)
        case requests.ResetCycle(bdf):
            kernel.reset_cycle(bdf)
        case requests.PcieError(bdf, recovered):
            kernel.pcie_error(bdf, recovered=recovered)
        case requests.DisplayNoise(bdf):
            kernel.display_noise(bdf)
        case _ if isinstance(request, requests.Symptom):
            kernel.show(request)
        case requests.Fail(path, operation, name, times):
            kernel.fail(path, operation, requests.errno_of(name), times)
        case requests.Delay(operation, seconds, path):
            kernel.delay(operation, seconds, path)
        case requests.Hang(path, operation):
            kernel.hang(path, operation, gate(path, operation))
        case requests.Release(path, operation):
            kernel.release(path, operation)
        case requests.HoldVfio(bdf):
            kernel.hold_vfio(bdf, gate(bdf, "vfio"))
        case requests.ReleaseVfio(bdf):
            kernel.release_vfio(bdf)
        case requests.LimitVfs(bdf, at_most):
            kernel.limit_vfs(bdf, at_most)
        case requests.Begin(number, change):
            kernel.begin(number, change)
        case requests.Step(number):
            kernel.step(number)
        case requests.Overflow():
            kernel.overflow()
        case requests.Write(path, text):
            kernel.write(path, text)
        case requests.Read(path):
            return kernel.read(path)
        case requests.List(path):
            return kernel.list(path)
        case requests.GetState():
            return kernel.state()
        case requests.Reboot(boot_id):
            kernel.reboot(boot_id)
    return None
