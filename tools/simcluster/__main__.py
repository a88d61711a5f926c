"""`python -m tools.simcluster --root DIR`: a control plane and a node for a driver that is run by hand beside it.

When all is there it prints a line for programs, `ready <url> <kubeconfig>`, and then for people what happens, until SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time

import trio

from tools.simcluster import releases
from tools.simcluster.cluster import SimCluster
from tools.simcluster.kubelet import Timing
from tools.simcluster.refusals import Refused


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.simcluster", description=__doc__)
    parser.add_argument("--root", help="directory for kubelet root, CDI files and kubeconfig (default: a temporary one)")
    parser.add_argument(
        "--kubernetes",
        default="1.34",
        metavar="1.NN",
        help=f"1.{releases.OLDEST} to 1.{releases.NEWEST} (default %(default)s)",
    )
    parser.add_argument(
        "--node", action="append", help="name of a node (default node1); may be repeated: the others have their directories below nodes/"
    )
    parser.add_argument("--no-kubelet", action="store_true", help="no node of its own; nodes may be created over the API")
    parser.add_argument(
        "--apply",
        action="append",
        default=[],
        metavar="FILE",
        help="create the objects of a YAML file; may be repeated",
    )
    parser.add_argument("--port", type=int, default=0, help="of the API server (default: any free one)")
    parser.add_argument("--tls", action="store_true", help="serve HTTPS with a throw-away authority")
    parser.add_argument("--gate", action="append", default=[], metavar="NAME=true|false", help="feature gate, may be repeated")
    parser.add_argument("--runtime-config", action="append", default=[], metavar="VERSION", help="also serve resource.k8s.io/VERSION")
    parser.add_argument("--kubeconfig-out", metavar="FILE", help="write the kubeconfig here too")
    parser.add_argument(
        "--retry-seconds", type=float, default=Timing().prepare_again, help="after a prepare that failed (default %(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="also log every request")
    return parser.parse_args(argv)


async def run(options: argparse.Namespace, root: str) -> None:
    began = time.monotonic()

    def log(line: str) -> None:
        print(f"{time.monotonic() - began:9.3f}  {line}", flush=True)

    gates = {}
    for gate in options.gate:
        name, _, value = gate.partition("=")
        if value not in ("true", "false"):
            raise ValueError(f"--gate {gate}: must be {name or 'NAME'}=true or {name or 'NAME'}=false")
        gates[name] = value == "true"
    nodes = options.node or ["node1"]
    cluster = SimCluster(
        root,
        kubernetes=options.kubernetes,
        node=nodes[0],
        more_nodes=nodes[1:],
        gates=gates,
        runtime_config=tuple(options.runtime_config),
        port=options.port,
        tls=options.tls,
        timing=Timing(prepare_again=options.retry_seconds),
        with_kubelet=not options.no_kubelet,
        log=log,
    )
    for path in options.apply:
        cluster.apply_file(path)
    if options.verbose:
        cluster.http.log = log
    # Signals are taken from the beginning: whoever reads `ready` may send one at once.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(cluster.run)
            kubeconfig = cluster.kubeconfig_path
            if options.kubeconfig_out:
                kubeconfig = shutil.copyfile(kubeconfig, options.kubeconfig_out)
            print(f"ready {cluster.api_url} {kubeconfig}", flush=True)
            for node in nodes if not options.no_kubelet else ():
                log(f"node            {node}")
                log(f"kubelet root    {cluster.layout_of(node).kubelet}")
                log(f"CDI directory   {cluster.layout_of(node).cdi}")
            async for _ in signals:
                nursery.cancel_scope.cancel()


def main() -> None:
    options = arguments(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="simcluster-") as temporary:
        try:
            trio.run(run, options, options.root or temporary)
        except* (ValueError, OSError, Refused) as errors:
            sys.exit(f"simcluster: {first_of(errors)}")


def first_of(error: BaseException) -> BaseException:
    """A wrong flag, a port that is taken, a directory that cannot be written: what it was, without the tasks around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
