"""The command `tools/cluster`."""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

from tools.realcluster import cluster, programs, versions
from tools.realcluster.cluster import Cluster
from tools.realcluster.needs import Lacking
from tools.realcluster.needs import check as check_needs
from tools.realcluster.node import ClusterError
from tools.realcluster.site import Site
from tools.realcluster.versions import Release

ROOT = pathlib.Path(__file__).parent.parent.parent


def main() -> int:
    options, others = parser().parse_known_args()
    if options.act is kubectl:
        options.arguments = sys.argv[sys.argv.index("kubectl") + 1 :]  # all that follows is kubectl's, flags too
    elif options.act is test:
        options.pytest += others
    elif others:
        parser().error(f"unknown: {' '.join(others)}")
    try:
        return options.act(options)
    except Lacking as reason:
        say(str(reason))
        return 3
    except (ClusterError, programs.BuildFailed) as error:
        say(str(error))
        return 1
    except subprocess.CalledProcessError as error:
        say(f"{' '.join(map(str, error.cmd[:8]))} ... failed: {(error.stderr or '').strip()[-2000:]}")
        return 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="tools/cluster", description="A real Kubernetes on this machine: one node, in namespaces of its own.", epilog=cost(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = made.add_subparsers(title="commands", metavar="", required=True)

    def verb(name: str, act: object, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(act=act)
        return added

    every = {"default": versions.DEFAULT, "help": "release, or `all` (%(default)s)"}
    one = {"default": versions.DEFAULT, "help": "release (%(default)s)"}
    verb("build", build, "build the programs of a release").add_argument("--version", **every)
    verb("up", up, "start a cluster, building what is not built; one that runs is replaced").add_argument("--version", **one)
    verb("down", down, "end it and leave nothing")
    verb("status", status, "what runs")
    verb("kubectl", kubectl, "kubectl of the cluster's release").add_argument("arguments", nargs="*")
    verb("load", load, "bring image archives to the node").add_argument("archives", nargs="+", type=pathlib.Path)
    fault = verb("fault", suffer, "freeze, thaw, kill, start or restart a program; reboot the node")
    fault.add_argument("what", choices=["freeze", "thaw", "kill", "start", "restart", "reboot"])
    fault.add_argument("program", nargs="?", choices=cluster.names())
    tests = verb("test", test, "run tests/e2e; what is unknown here goes to pytest")
    tests.add_argument("--version", **every)
    tests.add_argument("--keep", action="store_true", help="leave the cluster running afterwards")
    tests.add_argument("pytest", nargs="*")
    pinned = verb("pin", pin, "for maintainers: write the pinned modules of a release anew")
    pinned.add_argument("--version", **one)
    return made


def cost() -> str:
    lines = [
        "A cold build takes about 12 min on two cores and 3 GiB below the compiler's cache for each release; then `up` takes seconds.",
        "",
    ]
    for version in versions.PROVEN:
        built = programs.kubernetes(Release(version)).cached
        lines.append(f"  {version:8} {'built' if built else 'not built'}{'  (default)' if version == versions.DEFAULT else ''}")
    return "\n".join(lines)


def say(text: str) -> None:
    print(f"tools/cluster: {text}", file=sys.stderr, flush=True)


def here() -> Cluster:
    return Cluster(Site(), say)


def releases(version: str) -> list[Release]:
    known = [Release(name) for name in versions.PROVEN + versions.CLASSIC if programs.kubernetes(Release(name)).pinned]
    if version == "all":
        return [Release(name) for name in versions.PROVEN]
    if version not in [release.version for release in known]:
        raise Lacking(f"no modules are pinned for {version}; there are: {', '.join(release.version for release in known)}")
    return [Release(version)]


def build(options: argparse.Namespace) -> int:
    for release in releases(options.version):
        needed = programs.needed_for(release)
        check_needs(needed, say)
        for module in needed:
            module.build(say)
    return 0


def up(options: argparse.Namespace) -> int:
    chosen = releases(options.version)
    if len(chosen) > 1:
        raise Lacking("one cluster at a time: up --version takes one release")
    here().up(chosen[0])
    return 0


def down(options: argparse.Namespace) -> int:  # noqa: ARG001
    here().down()
    return 0


def status(options: argparse.Namespace) -> int:  # noqa: ARG001
    told = here().status()
    print(f"Kubernetes {told['version']} in {Site().root}; nodes: {', '.join(told['nodes']) or 'none'}")
    for name in cluster.names():
        print(f"  {name:24} {told['programs'].get(name, 'does not run')}")
    return 0


def kubectl(options: argparse.Namespace) -> int:
    return subprocess.run(here().kubectl_command(*options.arguments), check=False).returncode


def load(options: argparse.Namespace) -> int:
    here().load(*options.archives)
    return 0


def suffer(options: argparse.Namespace) -> int:
    if options.what == "reboot":
        here().reboot()
    elif options.program is None:
        raise ClusterError(f"{options.what} which program? One of {', '.join(cluster.names())}")
    else:
        getattr(here(), options.what)(options.program)
    return 0


def test(options: argparse.Namespace) -> int:
    pytest = [sys.executable, "-m", "pytest", "tests/e2e", *options.pytest]
    failed = []
    # Before the cluster's network is entered: there are no package indexes in it.
    subprocess.run([ROOT / "tools" / "image"], check=True, stdout=sys.stderr)
    for release in releases(options.version):
        made = here()
        made.up(release)
        try:
            environment = os.environ | {"KUBECONFIG": str(made.site.kubeconfig()), "CLUSTER_DIR": str(made.site.root), "CLUSTER_E2E": "1"}
            if subprocess.run([*made.node.enter("--net"), *pytest], check=False, cwd=ROOT, env=environment).returncode:
                failed.append(release.version)
                kept = ROOT / "build" / "e2e-logs" / release.version
                shutil.copytree(made.site.root / "log", kept, dirs_exist_ok=True)
                say(f"the cluster's logs are in {kept}")
        finally:
            if not options.keep:
                made.down()
    if failed:
        say(f"failed on {', '.join(failed)}")
    return 1 if failed else 0


def pin(options: argparse.Namespace) -> int:
    for module in programs.needed_for(Release(options.version)):
        module.pin()
        say(f"pinned {module.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
