"""The command line, with kubectl's flags where kubectl has them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from nursery_apps.kubectl.command import MISUSED, Command
from nursery_apps.version import VERSION


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    made = _Parser(
        prog="kubectl intel-gpu",
        description="Intel GPUs of a cluster: what there is, who has it, and why a claim does not get any. It changes nothing.",
        epilog="Exit codes: 0 fine, 1 the command found a problem (each says which), 2 misused, not reachable or not allowed.",
    )
    made.add_argument("--version", action="version", version=VERSION)
    _common(made, first=True)
    listed = made.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in commands:
        own = listed.add_parser(command.name, help=command.summary, description=command.summary, epilog=command.epilog)
        command.flags(own)
        _common(own, first=False)
        own.add_argument("-o", "--output", choices=command.formats, default=command.formats[0], help="for people, or for scripts")
        own.set_defaults(command=command)
    return made


def _common(made: argparse.ArgumentParser, *, first: bool) -> None:
    """Before the command or behind it: the latter must not undo the former."""
    group = made.add_argument_group("the cluster")

    def flag(*names: str, default: Any = None, **more: Any) -> None:
        group.add_argument(*names, default=default if first else argparse.SUPPRESS, **more)

    flag("--kubeconfig", metavar="FILE", help="$KUBECONFIG, or ~/.kube/config")
    flag("--context", metavar="NAME", help="the kubeconfig's current one")
    flag("-n", "--namespace", metavar="NAME", help="of the claims and pods that are looked at")
    flag("-A", "--all-namespaces", action="store_true", default=False, help="claims of all namespaces")
    flag("--request-timeout", metavar="SECONDS", type=_seconds, default=15.0, help="of one request (15)")
    flag("--no-color", action="store_true", default=False, help="as the environment's NO_COLOR")


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 600 seconds")
    return value
