"""What the kernel tells whoever listens: uevents with their properties, in kernel order (lib/kobject_uevent.c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dra.sim_kernel.tree import Directory, File

Listener = Callable[[str, str, str, dict[str, str]], None]
"""Called with action, subsystem, devpath (`/devices/...`) and all properties; must be quick and must not call back into the kernel."""


class Uevents:
    def __init__(self) -> None:
        self._listeners: list[tuple[Listener, Callable[[str], None]]] = []

    def subscribe(self, on_event: Listener, on_overflow: Callable[[str], None] = lambda _why: None) -> Callable[[], None]:
        """Listen from now on; the result ends it. `on_overflow` is called with a reason where a real listener would see ENOBUFS."""
        entry = (on_event, on_overflow)
        self._listeners.append(entry)

        def leave() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return leave

    def emit(self, action: str, subsystem: str, path: str, properties: Mapping[str, str]) -> None:
        """Tell of one event of the device at `path` (`sys/devices/...`)."""
        devpath = path.removeprefix("sys")
        full = {"ACTION": action, "DEVPATH": devpath, "SUBSYSTEM": subsystem, **properties}
        for on_event, _ in tuple(self._listeners):
            on_event(action, subsystem, devpath, dict(full))

    def overflow(self, why: str) -> None:
        """Tell every listener that events were lost."""
        for _, on_overflow in tuple(self._listeners):
            on_overflow(why)


def properties(directory: Directory) -> dict[str, str]:
    """What the device's own `uevent` file says."""
    lines = (directory.text("uevent") or "").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def pci_properties(directory: Directory, action: str) -> dict[str, str]:
    """Properties of a PCI function's event: `unbind` is sent without DRIVER and MODALIAS, `add` and `remove` without DRIVER."""
    hidden = {"unbind": {"DRIVER", "MODALIAS"}, "add": {"DRIVER"}, "remove": {"DRIVER"}}.get(action, set())
    return {key: value for key, value in properties(directory).items() if key not in hidden}


def set_properties(directory: Directory, values: Mapping[str, str]) -> None:
    """Rewrite the `uevent` file."""
    entry = directory.entries.setdefault("uevent", File("", 0o644))
    assert isinstance(entry, File)
    entry.text = "".join(f"{key}={value}\n" for key, value in values.items())
