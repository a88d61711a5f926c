"""`kubectl intel-gpu` (kubectl-intel_gpu on PATH): flags to a client to a command."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from pathlib import Path

from rich.console import Console

from nursery_apps.kube_reader import NoAnswer
from nursery_apps.kubectl import flags
from nursery_apps.kubectl.command import MISUSED, Given
from nursery_apps.kubectl.commands import COMMANDS
from nursery_apps.kubectl.problems import Problem
from nursery_apps.kubectl.reading import Reading

PROGRAM = "kubectl intel-gpu"


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: see `command`."""
    options = flags.parser(COMMANDS).parse_args(argv)
    try:
        return _run(options)
    except (Problem, NoAnswer) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return MISUSED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    # Half a second of imports, which --help and mistakes need not wait for.
    from nursery_apps.edges.official_client import OfficialClient

    client = OfficialClient(kubeconfig=options.kubeconfig, context=options.context, timeout_seconds=options.request_timeout)
    console = Console(highlight=False, no_color=options.no_color or None, width=None if sys.stdout.isatty() else _width())
    given = Given(options, Reading(client, _now), console, _write, _read, _parse, _save)
    code: int = options.command.run(given)
    sys.stdout.flush()
    return code


def _write(text: str) -> None:
    sys.stdout.write(text)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _width() -> int:
    """Of what is piped or captured: wide enough that nothing is cut, unless somebody says."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else 200


def _read(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Problem(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _parse(text: str, name: str) -> object:
    from nursery_apps.edges import yaml_text

    return yaml_text.load(text.encode(), name)


def _save(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
