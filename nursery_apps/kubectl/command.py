"""What a subcommand is, and what it is given to work with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
from rich.console import Console

from dra.explaining import classic_gpus, slice_gpus
from dra.explaining.cluster import Cluster
from dra.explaining.gpus import Node
from nursery_apps.kubectl.reading import Reading

OK: Final = 0
FOUND: Final = 1
"""The command worked, and what it was asked about is not well: see each command."""
MISUSED: Final = 2
"""Wrong flags or names, no answer from the cluster, or no right to read it."""

JSON_VERSION: Final = "kubectl.gpu.intel.com/v1"
"""apiVersion of all that `-o json` prints: keys of it stay what they are, and new ones may come."""


class Given(msgspec.Struct, frozen=True):
    """What a command works with."""

    options: argparse.Namespace
    reading: Reading
    console: Console
    """For people. Widths, colours and whether it is a terminal are settled."""
    write: Callable[[str], None]
    """To standard output, for `-o json`."""
    read: Callable[[str], str]
    """A file's text, `-` for standard input."""
    parse: Callable[[str, str], object]
    """YAML: text and its name to plain values. Raises SettingsInvalid."""
    save: Callable[[str, str], None]
    """A file: path, text."""

    @property
    def namespace(self) -> str:
        """Where names without one are looked for: `-n`, or the context's."""
        return str(self.options.namespace or self.reading.namespace)

    @property
    def claims_namespace(self) -> str:
        """Of which holders are read: all, if no `-n` says otherwise."""
        return "" if self.options.all_namespaces else str(self.options.namespace or "")

    @property
    def wants_json(self) -> bool:
        return bool(self.options.output == "json")

    def write_json(self, kind: str, body: dict[str, Any]) -> None:
        """`body` may hold structs."""
        whole = {"apiVersion": JSON_VERSION, "kind": kind, **body}
        self.write(msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n")


class Command(msgspec.Struct, frozen=True):
    """A row of the command table. `run` answers with the exit code and may raise Problem or NoAnswer."""

    name: str
    summary: str
    """One line of --help."""
    epilog: str
    """What its exit codes mean, and anything else."""
    flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Given], int]
    formats: tuple[Literal["table", "json"], ...] = ("table", "json")


def gpu_nodes(cluster: Cluster) -> tuple[Node, ...]:
    """The cluster's GPUs, whichever DRA it has."""
    return classic_gpus.nodes(cluster) if cluster.is_classic else slice_gpus.nodes(cluster)
