"""A cluster's life: up, down, and what can be asked of it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from tools.realcluster import bare_nodes, components, images, needs, pki, programs
from tools.realcluster.node import ClusterError, Node, until
from tools.realcluster.site import BOUND, NODE_NAME, Site
from tools.realcluster.versions import Release

SYSCTLS: Final = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
                  "kernel/keys/root_maxbytes")  # fmt: skip
"""What a kubelet changes when it starts; not namespaced, so they are put back."""
START_SECONDS: Final = 120
"""For one program to become ready: ten times what it takes on two idle cores."""
CLIENT_SECONDS: Final = 60


class Cluster:
    def __init__(self, site: Site, say: Callable[[str], None]) -> None:
        self.site = site
        self.node = Node(site)
        self._say = say

    @property
    def release(self) -> Release:
        """
        Raises:
            ClusterError: there is no cluster.
        """
        facts = self.site.facts()
        if not facts:
            raise ClusterError(f"no cluster in {self.site.root}; tools/cluster up starts one")
        return Release(facts["version"], facts["containerd"])

    # --- life ---------------------------------------------------------------------------------------------------------------------------

    def up(self, release: Release, *, nodes: int = 1) -> None:
        """Build what is not built, start everything, wait until pods can be created.

        Args:
            nodes: how many; all but the first have no kubelet (`bare_nodes`).

        Raises:
            Lacking: the machine lacks something.
            ClusterError: a program did not become ready, or a cluster of another directory runs.
        """
        if others := self.node.others():
            # They have the same mount points, which `down` removes, from under whoever else mounts there, and the same sysctls.
            raise ClusterError(f"another cluster runs in {others[0]}; CLUSTER_DIR={others[0]} tools/cluster down ends it")
        needed = programs.needed_for(release)
        needs.check(needed, self._say)
        for module in needed:
            module.build(self._say)
        self.down()
        started = time.monotonic()
        self.site.make()
        missing = [path for path in BOUND.values() if not pathlib.Path(path).exists()]
        facts = {"version": release.version, "containerd": release.containerd, "nodes": nodes}
        self.site.remember(**facts, sysctls=_read_sysctls(), mount_points=missing)
        pki.make(self.site.pki)
        images.write_busybox(self.site.root / "busybox.tar")
        self.start_all()
        self.load(self.site.root / "busybox.tar")
        if nodes > 1:
            self._add_nodes(bare_nodes.documents(release, range(2, nodes + 1)))
        self._say(f"Kubernetes {release} is ready after {time.monotonic() - started:.1f} s")

    def down(self) -> None:
        """Leave nothing: processes, mounts, network, cgroups, sysctls, files. Also of an `up` that was killed."""
        self.node.end()
        facts = self.site.facts()
        _write_sysctls(facts.get("sysctls", {}))
        for path in facts.get("mount_points", ()):
            with contextlib.suppress(OSError):  # never made, or somebody's by now
                os.rmdir(path)
        if self.site.root.exists():
            shutil.rmtree(self.site.root)

    def start_all(self) -> None:
        """Begin the node and start every program; returns when pods can be created."""
        self.node.make_cgroups()
        self.node.begin()
        for name in (components.ETCD, components.API_SERVER, components.CONTAINERD):
            self.start(name)
        self.await_api()
        for name in (components.CONTROLLERS, components.SCHEDULER, components.KUBELET):
            self.start(name)
        self._await("containerd", lambda: self.ctr("version", check=False).returncode == 0, components.CONTAINERD)
        self._await_node()

    def await_api(self) -> None:
        self._await("the API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, components.API_SERVER)

    def _await_node(self) -> None:
        """Until the node is Ready as of now, and pods may be created."""
        self._await("a Ready node", self._ready, components.KUBELET)
        account = ("get", "serviceaccount", "default", "-o", "name")
        self._await("the default ServiceAccount", lambda: self.kubectl(*account, check=False).returncode == 0, components.CONTROLLERS)

    def _add_nodes(self, added: Sequence[dict[str, Any]]) -> None:
        """Returns when pods can be scheduled to them."""
        self.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": added}))
        tainted = ("get", "nodes", "-o", "jsonpath={.items[*].spec.taints}")
        self._await("nodes without taints", lambda: not self.kubectl(*tainted, check=False).stdout.strip(), components.CONTROLLERS)

    def _ready(self) -> bool:
        said = self.kubectl("get", "node", NODE_NAME, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}", check=False)
        return said.stdout == "True"

    def start(self, name: str) -> None:
        """Start one program; does not wait for it to be ready."""
        part = components.all_of(self.release, self.site)[name]
        self.node.order(start=part.name, argv=part.argv, env=part.env)

    def _await(self, what: str, true: Callable[[], Any], component: str) -> None:
        def true_or_ended() -> Any:
            if component not in self.node.order(list=True):
                raise ClusterError(f"{component} has ended; look at {self.site.log(component)}")
            return true()

        until(what, true_or_ended, seconds=START_SECONDS, look=str(self.site.log(component)))

    # --- clients ------------------------------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        command = self.kubectl_command(*arguments)
        return subprocess.run(command, check=check, **{"capture_output": True, "text": True, "timeout": CLIENT_SECONDS, **options})

    def kubectl_command(self, *arguments: str) -> list[str]:
        """kubectl of the cluster's own release, in its network but among the caller's files."""
        binary = programs.kubernetes(self.release).directory / "kubectl"
        return [*self.node.enter("--net"), str(binary), f"--kubeconfig={self.site.kubeconfig()}", *arguments]

    def ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        binary = programs.containerd(self.release.containerd).directory / "ctr"
        return self.node.inside(str(binary), "--address", components.CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments, check=check)

    def load(self, *archives: pathlib.Path) -> None:
        """Bring images (OCI or docker archives) to the node."""
        for archive in archives:
            self.ctr("images", "import", "--local", str(archive.resolve()))

    # --- looking ------------------------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """`version`, `programs` (name -> pid inside), `nodes` as kubectl says."""
        running = self.node.order(list=True)
        nodes = self.kubectl("get", "nodes", "-o", "json", check=False)
        items = json.loads(nodes.stdout)["items"] if nodes.returncode == 0 else []
        return {"version": str(self.release), "programs": running, "nodes": [item["metadata"]["name"] for item in items]}


def _read_sysctls() -> dict[str, str]:
    found = {}
    for name in SYSCTLS:
        path = pathlib.Path("/proc/sys") / name
        if path.exists():
            found[name] = path.read_text().strip()
    return found


def _write_sysctls(values: dict[str, str]) -> None:
    for name, value in values.items():
        path = pathlib.Path("/proc/sys") / name
        if path.read_text().strip() != value:
            path.write_text(value)
