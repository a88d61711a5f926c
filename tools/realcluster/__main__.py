"""The command `tools/cluster`."""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys

from tools.realcluster import faults, programs, stories, versions
from tools.realcluster.cluster import Cluster
from tools.realcluster.faults import Faults
from tools.realcluster.needs import Lacking
from tools.realcluster.needs import check as check_needs
from tools.realcluster.node import ClusterError
from tools.realcluster.site import Site
from tools.realcluster.versions import Release

ONE_PROGRAM = ("freeze", "thaw", "kill", "start", "restart")
WHOLE = ("power-off", "power-on", "reboot", "cut", "mend", "save-data", "restore-data", "renew-tokens")
IMAGE = "build/image/intel-gpu-dra-simulated.tar"


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

    def of_release(name: str, act: object, text: str, which: str = "release") -> argparse.ArgumentParser:
        added = verb(name, act, text)
        added.add_argument("--version", default=versions.DEFAULT, help=f"{which} (%(default)s)")
        added.add_argument("--containerd", default=versions.CONTAINERD, choices=versions.CONTAINERDS, help="of the node (%(default)s)")
        return added

    every = "release, or `all` that the stories are told on"
    of_release("build", build, "build the programs of a release", every)
    starting = of_release("up", up, "start a cluster, building what is not built; one that runs is replaced")
    starting.add_argument("--nodes", type=int, default=1, metavar="N", help="all but the first without a kubelet (%(default)s)")
    verb("down", down, "end it and leave nothing")
    verb("status", status, "what runs")
    verb("kubectl", kubectl, "kubectl of the cluster's release").add_argument("arguments", nargs="*")
    verb("load", load, "bring image archives to the node").add_argument("archives", nargs="+", type=pathlib.Path)
    fault = verb("fault", suffer, "make a program or the node suffer")
    fault.add_argument("what", choices=[*ONE_PROGRAM, *WHOLE], help=f"with PROGRAM: {', '.join(ONE_PROGRAM)}")
    fault.add_argument("program", nargs="?", choices=faults.names(), metavar="PROGRAM", help=", ".join(faults.names()))
    tests = of_release("test", test, "run tests/e2e; what is unknown here goes to pytest; `--version all` writes docs/versions.md", every)
    tests.add_argument("--keep", action="store_true", help="leave the cluster running afterwards")
    tests.add_argument("--kubeconfig", type=pathlib.Path, metavar="FILE", help=f"of a cluster that exists, whose nodes have {IMAGE}")
    tests.add_argument("--pod-image", default="busybox:1.37", metavar="IMAGE", help="for pods on that cluster (%(default)s)")
    tests.add_argument("pytest", nargs="*", metavar="PYTEST ARGUMENT")
    of_release("pin", pin, "for maintainers: write the pinned modules of a release anew")
    return made


def cost() -> str:
    lines = [
        "A cold build takes about 12 min on two cores and 3 GiB below the compiler's cache for each release; then `up` takes seconds.",
        "",
    ]
    for version in versions.PROVEN + versions.CLASSIC:
        built = programs.kubernetes(Release(version)).cached
        remark = {versions.DEFAULT: "  (default)", **dict.fromkeys(versions.CLASSIC, "  (classic allocation)")}.get(version, "")
        lines.append(f"  {version:8} {'built' if built else 'not built'}{remark}")
    return "\n".join(lines)


def say(text: str) -> None:
    print(f"tools/cluster: {text}", file=sys.stderr, flush=True)


def here() -> Cluster:
    return Cluster(Site(), say)


def releases(options: argparse.Namespace) -> list[Release]:
    known = [name for name in versions.PROVEN + versions.CLASSIC if programs.kubernetes(Release(name)).pinned]
    if options.version == "all":
        return [Release(name, options.containerd) for name in known]
    if options.version not in known:
        raise Lacking(f"no modules are pinned for {options.version}; there are: {', '.join(known)}")
    return [Release(options.version, options.containerd)]


def build(options: argparse.Namespace) -> int:
    for release in releases(options):
        needed = programs.needed_for(release)
        check_needs(needed, say)
        for module in needed:
            module.build(say)
    return 0


def up(options: argparse.Namespace) -> int:
    chosen = releases(options)
    if len(chosen) > 1:
        raise Lacking("one cluster at a time: up --version takes one release")
    if options.nodes < 1:
        raise Lacking("a cluster has one node at least: up --nodes 1")
    here().up(chosen[0], nodes=options.nodes)
    return 0


def down(options: argparse.Namespace) -> int:  # noqa: ARG001
    here().down()
    return 0


def status(options: argparse.Namespace) -> int:  # noqa: ARG001
    told = here().status()
    print(f"Kubernetes {told['version']} in {Site().root}; nodes: {', '.join(told['nodes']) or 'none'}")
    for name in faults.names():
        print(f"  {name:24} {told['programs'].get(name, 'does not run')}")
    return 0


def kubectl(options: argparse.Namespace) -> int:
    return subprocess.run(here().kubectl_command(*options.arguments), check=False).returncode


def load(options: argparse.Namespace) -> int:
    here().load(*options.archives)
    return 0


def suffer(options: argparse.Namespace) -> int:
    if (options.what in ONE_PROGRAM) != (options.program is not None):
        wanted = f"which program? One of {', '.join(faults.names())}" if options.program is None else "takes no program"
        raise ClusterError(f"{options.what}: {wanted}")
    getattr(Faults(here()), options.what.replace("-", "_"))(*filter(None, [options.program]))
    return 0


def test(options: argparse.Namespace) -> int:
    if options.kubeconfig is not None:
        return 0 if stories.on_existing_cluster(options.kubeconfig, options.pod_image, options.pytest) else 1
    chosen = releases(options)
    for release in chosen:
        check_needs(programs.needed_for(release), say)  # before the minutes that an image takes
    stories.build_image()
    failed = [
        str(release)
        for release in chosen
        if not stories.on_own_cluster(here(), release, options.pytest, keep=options.keep and len(chosen) == 1, say=say)
    ]
    if options.version == "all" and options.containerd == versions.CONTAINERD and not options.pytest:
        stories.write_page(chosen)
    if failed:
        say(f"failed on {', '.join(failed)}")
    return 1 if failed else 0


def pin(options: argparse.Namespace) -> int:
    for module in programs.needed_for(Release(options.version, options.containerd)):
        module.pin()
        say(f"pinned {module.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
