"""`gpu-node-plugin`: flags to edges to parts to tasks. Nothing here decides anything; what a subcommand alone needs is imported there."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from dra import claim_metadata, discovery, journal, layout_plan, settings, settings_plan
from dra.decommissioning import Stage
from dra.errors import DriverError
from dra.kernel_tree import KernelTree
from dra.names import DRIVER_NAME, BootId, NodeName
from dra.settings import NodePluginConfiguration, SettingsInvalid
from nursery_apps import lifecycle, log, reload
from nursery_apps.credentials import Credentials
from nursery_apps.edges import in_cluster, kernel_call
from nursery_apps.edges.file_watch import InotifyWatch
from nursery_apps.edges.grpc_on_trio.client import RpcClient
from nursery_apps.edges.grpc_on_trio.server import RpcServer
from nursery_apps.edges.kernel_tree import RealKernelTree
from nursery_apps.edges.kube_api import HttpKubeApi
from nursery_apps.edges.settings_file import SettingsFile, decode_text
from nursery_apps.edges.state_dir import RealStateDir
from nursery_apps.node import app, discover, dra_kind, flags
from nursery_apps.node.dra_kind import DraKind
from nursery_apps.node.dra_side import SideKind
from nursery_apps.node.parts import Parts
from nursery_apps.seams import DeviceEvents, RunBlocking
from nursery_apps.version import VERSION

T = TypeVar("T")

WORKERS = 4
"""Threads for files: more of them only take turns on the interpreter, and each costs memory."""
KERNEL_THREADS = 72
"""Threads that change cards or look at them: one a card on the largest machines (64 GPUs), and some for scans. None is there before it is
needed, and those that the kernel holds do not hold up other cards."""
SIMULATOR_SOCKET = "simulator.sock"
BOOT_ID = "proc/sys/kernel/random/boot_id"


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 after a clean stop, 1 after a crash, 2 for wrong flags or settings."""
    options = flags.parser(os.environ, run=_run, discover=_discover, plan=_plan, reload=_reload, record=_record).parse_args(argv)
    try:
        code: int = options.command(options)
    except DriverError as refusal:
        print(f"gpu-node-plugin: {refusal}", file=sys.stderr)
        return lifecycle.MISUSED
    return code


# --- discover and plan -------------------------------------------------------------------------------------------------------------------


def _discover(options: argparse.Namespace) -> int:
    inventory = discovery.scan(_tree(options))
    if options.json:
        print(discover.render_json(inventory))
    else:
        discover.print_table(inventory)
    return lifecycle.OK


def _tree(options: argparse.Namespace) -> KernelTree:
    if options.simulate:
        from dra.sim_kernel.kernel import SimKernel

        document, machine = _document(options.simulate)
        return _or_refuse(options.simulate, lambda: SimKernel.load(document, machine))
    tree = RealKernelTree(options.sysfs_root, options.dev_root)
    if not tree.exists(discovery.PCI_DEVICES):
        raise SettingsInvalid(f"{options.sysfs_root}/bus/pci/devices does not exist: is --sysfs-root right?")
    return tree


def _plan(options: argparse.Namespace) -> int:
    if options.settings is not None:
        wanted = decode_text(options.settings.encode(), "--settings", settings.decode_node)
    elif options.config is not None:
        wanted = SettingsFile(options.config, settings.decode_node).read()
    else:
        raise SettingsInvalid("plan: which file? Give --config FILE")
    state = Path(options.kubelet_root) / "plugins" / DRIVER_NAME
    applied = state / reload.APPLIED_FILE
    current = NodePluginConfiguration()
    if applied.exists():
        current = settings.decode_node(json.loads(applied.read_bytes()), str(applied))
    else:
        print(f"({applied} does not exist: comparing with the defaults)", file=sys.stderr)
    records = state / journal.FILE
    ledger = journal.read(records.read_bytes() if records.exists() else b"").ledger
    tree = _tree(options)
    gpus = discovery.scan(tree).gpus
    made = settings_plan.plan(current, wanted, in_use=ledger.in_use(), gpus=gpus)
    layouts = layout_plan.lines(tree, gpus, ledger, wanted.sriov, BootId(tree.read(BOOT_ID).strip()))
    print("\n".join((*settings_plan.render(made), *layouts)))
    return lifecycle.OK


def _reload(options: argparse.Namespace) -> int:  # noqa: ARG001  (it has no flags)
    """In a container of its own the daemon is process 1."""
    words = Path("/proc/1/cmdline").read_bytes().split(b"\0")
    if not any(word.rpartition(b"/")[2] == b"gpu-node-plugin" for word in words):
        raise SettingsInvalid(
            "reload: process 1 is not the plugin; run this in the plugin's container, or send SIGHUP to the plugin yourself"
        )
    os.kill(1, signal.SIGHUP)
    print("asked for; what changes and what does not is in the plugin's log and in an Event on the Node")
    return lifecycle.OK


def _record(options: argparse.Namespace) -> int:
    from dra import recording
    from nursery_apps.edges.patient_tree import PatientTree

    made = recording.record(PatientTree(_tree(options)))
    if not made.gpus:
        raise SettingsInvalid("record: this machine has no Intel GPU on its PCI bus (`discover` says what there is): nothing is recorded")
    data = msgspec.json.format(msgspec.json.encode(made.document), indent=1) + b"\n"
    if options.output is None:
        sys.stdout.buffer.write(data)
    else:
        try:
            Path(options.output).write_bytes(data)
        except OSError as error:
            raise SettingsInvalid(f"record: cannot write {options.output}: {error.strerror}") from None
    said = [
        f"recorded {made.gpus} GPUs and VFs, {len(data) // 1024} KiB" + (f", in {options.output}" if options.output else ""),
        "left out: serial numbers, UUIDs, MAC addresses, the boot id, all of the kernel's command line but for GPUs and the IOMMU",
        *(f"blanked: {path}" for path in made.blanked),
        *(f"not readable: {text}" for text in made.unread),
        "look through it before you send it; `gpu-node-plugin discover --simulate FILE` shows what it is to the driver",
    ]
    print("\n".join(said), file=sys.stderr)
    return lifecycle.OK


# --- the daemon --------------------------------------------------------------------------------------------------------------------------


def _in_threads(most: int) -> RunBlocking:
    limit = trio.CapacityLimiter(most)

    async def run(work: Callable[[], T], /) -> T:
        return await trio.to_thread.run_sync(work, limiter=limit)

    return run


def _run(options: argparse.Namespace) -> int:
    log.set_up(options.log_format, "info")
    if not options.node_name:
        raise SettingsInvalid("--node-name (or NODE_NAME) is required: in a DaemonSet take it from the downward API, spec.nodeName")
    source = SettingsFile(options.config, settings.decode_node) if options.config else None
    wanted = source.read() if source is not None else NodePluginConfiguration()
    log.set_level(wanted.logging.level)
    document = _document(options.simulate) if options.simulate else None
    return lifecycle.run(lambda stop, on_hang_up: _daemon(options, wanted, source, document, stop, on_hang_up))


async def _daemon(
    options: argparse.Namespace,
    wanted: NodePluginConfiguration,
    source: SettingsFile[NodePluginConfiguration] | None,
    document: tuple[object, str | None] | None,
    stop: trio.Event,
    on_hang_up: Callable[[Callable[[], None]], None],
) -> None:
    state_path = Path(options.kubelet_root) / "plugins" / DRIVER_NAME
    state, cdi_dir = _directory(str(state_path), 0o750, "--kubelet-root"), _directory(options.cdi_root, 0o755, "--cdi-root")
    metadata_path = str(state_path / claim_metadata.DIRECTORY)
    metadata_dir = _directory(metadata_path, 0o755, "--kubelet-root")
    real = RealKernelTree(options.sysfs_root, options.dev_root)
    kube = HttpKubeApi(_credentials(options), user_agent=f"intel-gpu-dra/{VERSION}", random=random.random)
    node, run_blocking = NodeName(options.node_name), _in_threads(WORKERS)
    kind = await _kind(options, kube, node, state, run_blocking, stop)
    if kind is None:
        return
    checkpoint = state if kind.driver == DRIVER_NAME else _directory(str(state_path.with_name(kind.driver)), 0o750, "--kubelet-root")
    async with trio.open_nursery() as nursery:
        tree, events = await _machine(options, wanted, document, state_path, real, nursery)
        parts = Parts(
            kind=kind,
            node=node,
            boot_id=BootId(tree.read(BOOT_ID).strip()),
            kubelet_root=options.kubelet_root,
            pod_uid=os.environ.get("POD_UID"),
            settings=wanted,
            source=source,
            tree=tree,
            events=events,
            kube=kube,
            # The grace itself is the claims' deadline (app.run): calls end when the claims they wait for do.
            listener=RpcServer(grace_seconds=settings.BOUNDS["gracePeriod"][1]),
            caller=RpcClient(),
            directory_watch=InotifyWatch(),
            state=state,
            checkpoint=checkpoint,
            cdi_dir=cdi_dir,
            metadata_dir=metadata_dir,
            metadata_path=metadata_path,
            run_blocking=run_blocking,
            kernel_call=kernel_call.caller(KERNEL_THREADS),
            clock=time.time,
            random=random.random,
        )
        on_hang_up(parts.reloader.hang_up)
        try:
            await app.run(parts, stop=stop)
        finally:
            with trio.move_on_after(1, shield=True):
                await kube.aclose()
            cdi_dir.close()
            for directory in (metadata_dir, state):  # the first is in the second
                if parts.stage.value is Stage.CLEAN:
                    directory.vanish()
                else:
                    directory.close()
        nursery.cancel_scope.cancel()


async def _kind(
    options: argparse.Namespace, kube: HttpKubeApi, node: NodeName, state: RealStateDir, run_blocking: RunBlocking, stop: trio.Event
) -> SideKind | None:
    """Which DRA; None if the program is to stop before that is known. Each start imports only its own."""
    chosen: list[DraKind] = []
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await stop.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(give_up)
        chosen.append(await dra_kind.choose(kube, node, state, run_blocking=run_blocking, random=random.random))
        nursery.cancel_scope.cancel()
    if not chosen:
        return None
    if chosen == [DraKind.STRUCTURED]:
        from nursery_apps.node.structured import StructuredKind

        return StructuredKind(options.pod_namespace)
    from nursery_apps.node.classic.side import ClassicKind

    return ClassicKind(options.pod_namespace, holder=os.environ.get("POD_NAME") or f"{node}-{os.getpid()}")


async def _machine(
    options: argparse.Namespace,
    wanted: NodePluginConfiguration,
    document: tuple[object, str | None] | None,
    state_path: Path,
    real: RealKernelTree,
    nursery: trio.Nursery,
) -> tuple[KernelTree, DeviceEvents]:
    """This machine, or the fake one with its control socket. Each start imports only its own."""
    if document is None:
        from nursery_apps.edges.udev import UdevEvents

        return real, UdevEvents(wanted.device_events.source)
    from nursery_apps.edges.machine_log import MachineLog
    from nursery_apps.edges.simulator import SimDeviceEvents, serve_control

    machine = MachineLog(str(state_path))
    try:
        kernel = machine.load(
            *document,
            host_boot_id=real.read(BOOT_ID).strip(),
            fresh_boot_id=lambda: str(uuid.uuid4()),
            sleep=time.sleep,
        )
    except ValueError as error:
        raise SettingsInvalid(f"--simulate {options.simulate}: {error}") from None
    await nursery.start(InotifyWatch().appended, str(machine.path), machine.look)
    await nursery.start(serve_control, kernel, str(state_path / SIMULATOR_SOCKET))
    return kernel, SimDeviceEvents(kernel)


def _directory(path: str, mode: int, flag: str) -> RealStateDir:
    try:
        return RealStateDir(path, mode=mode)
    except OSError as error:
        raise SettingsInvalid(f"cannot use the directory {path}: {error.strerror}; is {flag} right, and mounted writable?") from None


def _credentials(options: argparse.Namespace) -> Credentials:
    if options.kubeconfig is None and in_cluster.available(os.environ):
        return in_cluster.InClusterCredentials(os.environ)
    from nursery_apps.edges.kubeconfig import KubeconfigCredentials, default_path

    return KubeconfigCredentials(options.kubeconfig or default_path(os.environ))


def _document(argument: str) -> tuple[object, str | None]:
    """FILE[:MACHINE] -> the parsed file and the machine's name."""
    path, machine = argument, None
    if not Path(path).exists() and ":" in argument:
        path, _, machine = argument.rpartition(":")
    try:
        return msgspec.json.decode(Path(path).read_bytes()), machine
    except OSError as error:
        raise SettingsInvalid(f"--simulate {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise SettingsInvalid(f"--simulate {path}: not JSON ({error})") from None


def _or_refuse(argument: str, load: Callable[[], T]) -> T:
    try:
        return load()
    except ValueError as error:
        raise SettingsInvalid(f"--simulate {argument}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
