"""The command line: what must be known before the settings file is read. Each flag has an environment variable of its name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from nursery_apps import log
from nursery_apps.version import VERSION

Command = Callable[[argparse.Namespace], int]


def parser(environ: Mapping[str, str], *, run: Command, plan: Command, taint: Command, cleanup: Command) -> argparse.ArgumentParser:
    """The command line; each command is what its name is parsed to, and `run` stands for none."""
    made = argparse.ArgumentParser(
        prog="gpu-controller",
        description="Controller of the Intel GPU driver for Kubernetes Dynamic Resource Allocation. Without a command it runs the daemon.",
        epilog="Each flag has an environment variable of its name, POD_NAMESPACE for --pod-namespace. All else is in the settings file.",
    )
    made.add_argument("--version", action="version", version=VERSION)
    made.set_defaults(command=run)
    for name, default, text, more in (
        ("--config", None, "settings file; read again on SIGHUP and when it changes", {"metavar": "FILE"}),
        ("--kubeconfig", None, "for outside of a cluster; inside, the pod's account is used", {"metavar": "FILE"}),
        (
            "--pod-namespace",
            "intel-gpu-resource-driver",
            "the driver's namespace, of its Leases and GpuAllocationStates",
            {"metavar": "NAME"},
        ),
        ("--pod-name", None, "who holds the Lease, for people; the host's name without it", {"metavar": "NAME"}),
        ("--log-format", "text", "lines for people (text) or for machines (json)", {"choices": log.FORMATS}),
    ):
        value = environ.get(name.removeprefix("--").replace("-", "_").upper(), default)
        made.add_argument(name, default=value, help=f"{text} (%(default)s)" if default is not None else text, **more)
    commands = made.add_subparsers(title="commands", metavar="")
    planned = commands.add_parser("plan", help="check a settings file and show how it differs from the defaults")
    planned.add_argument("--config", default=argparse.SUPPRESS, metavar="FILE", help="the file")
    planned.set_defaults(command=plan)
    tainted = commands.add_parser("taint", help="taint a node's GPUs by hand, clear taints, or show them")
    tainted.add_argument("--node", required=True, metavar="NAME", help="the node")
    tainted.add_argument("--device", metavar="UID", help="only this one: 0000:03:00.0-0x56c0 or 0000-03-00-0-0x56c0")
    tainted.add_argument("--reason", metavar="WORD", help="what to taint for")
    tainted.add_argument("--clear", action="store_true", help="take all reasons away, whoever gave them")
    tainted.add_argument("--effect", choices=["NoSchedule", "NoExecute"], default="NoSchedule", help="of DeviceTaintRules (%(default)s)")
    tainted.set_defaults(command=taint)
    cleaned = commands.add_parser(
        "cleanup", help="before the driver is removed: have all nodes cleaned, and delete what is left in the API server"
    )
    cleaned.add_argument("--timeout", default="5m", metavar="DURATION", help="how long to wait for the nodes (%(default)s)")
    cleaned.add_argument(
        "--namespace", dest="pod_namespace", default=argparse.SUPPRESS, metavar="NAME", help="the driver's, as --pod-namespace"
    )
    cleaned.add_argument(
        "--settings-config-map", default="node-plugin-settings", metavar="NAME", help="with the node plugins' settings (%(default)s)"
    )
    cleaned.set_defaults(command=cleanup)
    return made
