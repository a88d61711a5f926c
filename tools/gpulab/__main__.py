"""The command `tools/lab`."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from tools.gpulab import namespaces, needs

SUITES: Final = ("tests/contracts/test_kernel_tree.py", "tests/contracts/test_device_events.py", "tests/tools/gpulab")
"""What is told of real files and real netlink."""


def main(arguments: list[str]) -> int:
    """Returns the command's exit code, or 3 where there can be no lab."""
    options, others = parser().parse_known_args(arguments)
    try:
        needs.check(say)
    except needs.Lacking as reason:
        say(str(reason))
        return 3
    if options.verb == "test":
        return namespaces.run([sys.executable, "-m", "pytest", *SUITES, *others])
    command = [sys.executable, "-m", "tools.gpulab.machine", str(namespaces.DIRECTORY), options.machine, *options.command]
    return namespaces.run(command) if options.command else namespaces.run(command, began=tell_the_way)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="tools/lab", description="A fake machine whose files and uevents are real, for the programs that are shipped to run on."
    )
    verbs = made.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    run = verbs.add_parser(
        "run",
        help="serve a machine for as long as a command takes",
        description="Serve a machine in namespaces of its own and run a command on it, with SYSFS_ROOT, DEV_ROOT, PROC_ROOT and SIM_SOCKET "
        "in its environment. Without a command: until Ctrl-C.",
    )
    run.add_argument("machine", metavar="FILE[:MACHINE]", help="for example tools/machines/server-4x-b60.json")
    run.add_argument("command", nargs="*", metavar="-- COMMAND", help="for example: gpu-node-plugin discover")
    verbs.add_parser("test", help="run the tests that need it; arguments go to pytest", add_help=False)
    return made


def tell_the_way(pid: int) -> None:
    say(f"from outside, its files are below /proc/{pid}/root{namespaces.DIRECTORY}, and the way in is")
    say(f"nsenter --target {pid} --mount --net env -C {namespaces.ROOT} bash")


def say(text: str) -> None:
    print(f"tools/lab: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
