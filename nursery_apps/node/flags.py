"""The command line: what must be known before the settings file is read. Each flag has an environment variable of its name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from nursery_apps import log
from nursery_apps.version import VERSION

Command = Callable[[argparse.Namespace], int]


def parser(
    environ: Mapping[str, str], *, run: Command, discover: Command, plan: Command, reload: Command, record: Command
) -> argparse.ArgumentParser:
    """The command line; each command is what its name is parsed to, and `run` stands for none."""
    made = argparse.ArgumentParser(
        prog="gpu-node-plugin",
        description="Node plugin of the Intel GPU driver for Kubernetes Dynamic Resource Allocation. Without a command it runs the daemon.",
        epilog="Each flag has an environment variable of its name, KUBELET_ROOT for --kubelet-root. All else is in the settings file.",
    )
    made.add_argument("--version", action="version", version=VERSION)
    made.set_defaults(command=run)
    _machine_flags(made, environ)
    _node_flags(made, environ)
    commands = made.add_subparsers(title="commands", metavar="")
    found = commands.add_parser("discover", help="print the GPUs of this machine and exit")
    _machine_flags(found, None)
    found.add_argument("--json", action="store_true", help="for programs")
    found.set_defaults(command=discover)
    planned = commands.add_parser("plan", help="show what a settings file would change, without applying it")
    _machine_flags(planned, None)
    _node_flags(planned, None)
    planned.add_argument("--settings", metavar="TEXT", help="the settings themselves, in place of a file: for `kubectl intel-gpu plan`")
    planned.set_defaults(command=plan)
    again = commands.add_parser("reload", help="in the plugin's container: make the daemon read its settings file now (SIGHUP)")
    again.set_defaults(command=reload)
    recorded = commands.add_parser(
        "record", help="write this machine's GPUs down as a fake machine, for a bug report; secrets are left out"
    )
    _machine_flags(recorded, None)
    recorded.add_argument("--output", metavar="FILE", help="where to; without it to standard output")
    recorded.set_defaults(command=record)
    return made


def _machine_flags(parser: argparse.ArgumentParser, environ: Mapping[str, str] | None) -> None:
    """Without an environment there are no defaults: a command's flags must not undo those before it."""
    group = parser.add_argument_group("the machine")
    _flag(group, environ, "--sysfs-root", "/sys", "where the host's /sys is mounted")
    _flag(group, environ, "--dev-root", "/dev", "where the host's /dev is mounted")
    _flag(group, environ, "--simulate", None, "run on a fake machine instead", metavar="FILE[:MACHINE]")


def _node_flags(parser: argparse.ArgumentParser, environ: Mapping[str, str] | None) -> None:
    group = parser.add_argument_group("the node")
    _flag(group, environ, "--config", None, "settings file; read again on SIGHUP and when it changes", metavar="FILE")
    _flag(group, environ, "--kubeconfig", None, "for outside of a cluster; inside, the pod's account is used", metavar="FILE")
    _flag(group, environ, "--node-name", None, "name of this node's Node object; required", metavar="NAME")
    _flag(
        group,
        environ,
        "--pod-namespace",
        "intel-gpu-resource-driver",
        "where GpuAllocationStates and Leases are, for kubelets up to 1.30 and for taints by alerts",
        metavar="NAME",
    )
    _flag(group, environ, "--kubelet-root", "/var/lib/kubelet", "the kubelet's --root-dir")
    _flag(group, environ, "--cdi-root", "/var/run/cdi", "where CDI files are written")
    _flag(group, environ, "--log-format", "text", "lines for people (text) or for machines (json)", choices=log.FORMATS)


def _flag(
    group: argparse._ArgumentGroup, environ: Mapping[str, str] | None, name: str, default: str | None, text: str, **more: Any
) -> None:
    if environ is None:
        group.add_argument(name, default=argparse.SUPPRESS, help=text, **more)
    else:
        value = environ.get(name.removeprefix("--").replace("-", "_").upper(), default)
        group.add_argument(name, default=value, help=f"{text} (%(default)s)" if default is not None else text, **more)
