"""`tools/bench`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tools.benches import figures
from tools.benches.figures import Figure
from tools.benches.groups import GROUPS
from tools.benches.world import CDI_PLACE
from tools.realcluster import programs, stories
from tools.realcluster.cluster import Cluster
from tools.realcluster.needs import Lacking
from tools.realcluster.site import Site
from tools.realcluster.versions import CLASSIC, PROVEN, Release

V1_MINOR = 34
"""The bench writes claims of resource.k8s.io/v1."""
CLASSIC_NODES = 100
"""Without kubelets, for the controller and the scheduler."""
INSIDE = "BENCH_CLUSTER"
"""Set for the process that runs in the cluster's network: the release."""


def main() -> int:
    options = parser().parse_args()
    if options.cluster is not None:
        return on_cluster(options)
    known = groups()
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser().error(f"no group {unknown[0]}; there are {', '.join(known)}")
    found: list[Figure] = []
    for name in options.names or known:
        say(f"measuring {name} ...")
        found += known[name]()
    server = f"Kubernetes {os.environ[INSIDE]}" if INSIDE in os.environ else "the embedded control plane"
    print(f"Against the API server of {server}:")
    figures.show(found)
    print(f"Journal on the file system of /tmp, with real syncs; CDI files below {CDI_PLACE}.")
    print("Daemon, API server and client share this machine: compare figures of one run only.")
    if options.json:
        figures.write(found, Path(options.json))
    return 0


def parser() -> argparse.ArgumentParser:
    names = ", ".join(GROUPS)
    made = argparse.ArgumentParser(
        prog="tools/bench",
        description=f"Measure the shipped daemon. Groups: {names}; with --cluster pod too, and on classic releases pods alone.",
    )
    made.add_argument("names", nargs="*", metavar="NAME", help="groups to measure (default: all)")
    made.add_argument("--json", metavar="FILE", help="write the figures there as well")
    fitting = [version for version in (*PROVEN, *CLASSIC) if Release(version).minor >= V1_MINOR or Release(version).is_classic]
    made.add_argument(
        "--cluster",
        choices=fitting,
        metavar="VERSION",
        help=f"against a real Kubernetes, started for it as tools/cluster does: {', '.join(fitting)}",
    )
    return made


def groups() -> dict[str, Callable[[], list[Figure]]]:
    if INSIDE not in os.environ:
        return GROUPS
    if Release(os.environ[INSIDE]).is_classic:
        from tools.benches.classic_pods import classic_pods

        return {"pods": classic_pods}
    from tools.benches.pods import pod

    return {**GROUPS, "pod": pod}


def on_cluster(options: argparse.Namespace) -> int:
    """The same command inside a cluster's network."""
    release = Release(options.cluster)
    cluster = Cluster(Site(), say)
    try:
        if release.is_classic:
            cluster.up(release, nodes=1 + CLASSIC_NODES)
        else:
            stories.build_image()
            cluster.up(release)
            cluster.load(stories.IMAGE)
        command = [*cluster.node.enter("--net"), sys.executable, "-m", "tools.benches", *options.names]
        command += ["--json", str(Path(options.json).absolute())] if options.json else []
        kubectl = str(programs.kubernetes(release).directory / "kubectl")
        environment = {"KUBECONFIG": str(cluster.site.kubeconfig()), "KUBECTL": kubectl, INSIDE: release.version}
        return subprocess.run(command, check=False, cwd=stories.ROOT, env=os.environ | environment).returncode
    except Lacking as reason:
        say(str(reason))
        return 3
    finally:
        cluster.down()


def say(text: str) -> None:
    print(f"tools/bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
