"""`gpu-controller`: flags to edges to parts to tasks. Nothing here decides anything; what a subcommand alone needs is imported there."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from dra import controller_settings, settings_plan
from dra.controller_settings import ControllerConfiguration
from dra.errors import DriverError
from dra.settings import SettingsInvalid
from nursery_apps import lifecycle, log
from nursery_apps.controller import app, flags
from nursery_apps.controller.parts import Parts
from nursery_apps.credentials import Credentials
from nursery_apps.edges import in_cluster
from nursery_apps.edges.file_watch import InotifyWatch
from nursery_apps.edges.kube_api import HttpKubeApi
from nursery_apps.edges.settings_file import SettingsFile
from nursery_apps.edges.text_files import TextFiles
from nursery_apps.seams import ApiError
from nursery_apps.version import VERSION

T = TypeVar("T")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 after a clean stop, 1 after a crash, 2 for wrong flags or settings."""
    options = flags.parser(os.environ, run=_run, plan=_plan, taint=_taint, cleanup=_cleanup).parse_args(argv)
    try:
        code: int = options.command(options)
    except DriverError as refusal:
        print(f"gpu-controller: {refusal}", file=sys.stderr)
        return lifecycle.MISUSED
    return code


def _plan(options: argparse.Namespace) -> int:
    if options.config is None:
        raise SettingsInvalid("plan: which file? Give --config FILE")
    wanted = SettingsFile(options.config, controller_settings.decode_controller).read()
    print("\n".join(settings_plan.render(controller_settings.plan(ControllerConfiguration(), wanted))))
    return lifecycle.OK


def _taint(options: argparse.Namespace) -> int:
    from dra.pool import Effect
    from nursery_apps.controller.taint_command import taint
    from nursery_apps.controller.tainter import Tainter

    async def run() -> list[str]:
        kube = HttpKubeApi(_credentials(options), user_agent=f"intel-gpu-controller/{VERSION}", random=random.random)
        try:
            tainter = Tainter(kube, namespace=options.pod_namespace, effect=lambda: Effect(options.effect), random=random.random)
            return await taint(tainter, options.node, reason=options.reason, clear=options.clear, device=options.device)
        finally:
            with trio.move_on_after(1, shield=True):
                await kube.aclose()

    try:
        lines = trio.run(run)
    except ApiError as error:
        print(f"gpu-controller: taint: {error}", file=sys.stderr)
        return lifecycle.CRASHED
    print("\n".join(lines))
    return lifecycle.OK


def _cleanup(options: argparse.Namespace) -> int:
    from dra.durations import seconds
    from dra.settings import NodePluginConfiguration, decode_node
    from nursery_apps.controller.cleanup_command import SETTINGS_KEY, Cleanup
    from nursery_apps.edges import yaml_text

    # Killed, it is not clean: a Job must not take it for done. (Process 1 dies of no signal without a handler.)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(lifecycle.CRASHED))
    try:
        timeout = seconds(options.timeout)
    except ValueError as error:
        raise SettingsInvalid(f"cleanup: --timeout {error}") from None

    def decode(text: str) -> NodePluginConfiguration:
        where = f"{options.settings_config_map} {SETTINGS_KEY}"
        return decode_node(yaml_text.load(text.encode(), where), where)

    async def run() -> bool:
        kube = HttpKubeApi(_credentials(options), user_agent=f"intel-gpu-controller/{VERSION}", random=random.random)
        try:
            return await Cleanup(
                kube,
                namespace=options.pod_namespace,
                config_map=options.settings_config_map,
                timeout_seconds=timeout,
                decode=decode,
                say=partial(print, flush=True),
                random=random.random,
            ).run()
        finally:
            with trio.move_on_after(1, shield=True):
                await kube.aclose()

    try:
        return lifecycle.OK if trio.run(run) else lifecycle.CRASHED
    except (ApiError, trio.TooSlowError) as error:
        print(f"gpu-controller: cleanup: {str(error) or 'the API server does not answer'}; run it again", file=sys.stderr)
        return lifecycle.CRASHED


def _run(options: argparse.Namespace) -> int:
    log.set_up(options.log_format, "info")
    source = SettingsFile(options.config, controller_settings.decode_controller) if options.config else None
    wanted = source.read() if source is not None else ControllerConfiguration()
    log.set_level(wanted.logging.level)
    return lifecycle.run(lambda stop, on_hang_up: _daemon(options, wanted, source, stop, on_hang_up))


async def _daemon(
    options: argparse.Namespace,
    wanted: ControllerConfiguration,
    source: SettingsFile[ControllerConfiguration] | None,
    stop: trio.Event,
    on_hang_up: Callable[[Callable[[], None]], None],
) -> None:
    kube = HttpKubeApi(_credentials(options), user_agent=f"intel-gpu-controller/{VERSION}", random=random.random)
    parts = Parts(
        namespace=options.pod_namespace,
        # Something random too: a pod that restarts under its name is not the process that held the Lease.
        identity=f"{options.pod_name or os.uname().nodename}-{uuid.uuid4().hex[:8]}",
        settings=wanted,
        source=source,
        kube=kube,
        run_blocking=_in_a_thread,
        files=lambda paths: TextFiles(*paths, watch=InotifyWatch().file),
        clock=time.time,
        random=random.random,
    )
    on_hang_up(parts.reloader.hang_up)
    try:
        await app.run(parts, stop=stop)
    finally:
        with trio.move_on_after(1, shield=True):
            await kube.aclose()


async def _in_a_thread(work: Callable[[], T], /) -> T:
    return await trio.to_thread.run_sync(work)


def _credentials(options: argparse.Namespace) -> Credentials:
    if options.kubeconfig is None and in_cluster.available(os.environ):
        return in_cluster.InClusterCredentials(os.environ)
    from nursery_apps.edges.kubeconfig import KubeconfigCredentials, default_path

    return KubeconfigCredentials(options.kubeconfig or default_path(os.environ))


if __name__ == "__main__":
    sys.exit(main())
