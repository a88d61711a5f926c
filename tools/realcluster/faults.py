"""What a cluster can be made to suffer; each fault is one that clusters of users have had."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Collection, Sequence
from typing import Final

from tools.realcluster import components, pki
from tools.realcluster.cluster import Cluster
from tools.realcluster.node import until
from tools.realcluster.site import API_PORT, POD_RANGE

_CUT: Final = ("INPUT", "-s", POD_RANGE, "-p", "tcp", "--dport", str(API_PORT), "-j", "REJECT", "--reject-with", "tcp-reset")


class Faults:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._node, self._site = cluster, cluster.node, cluster.site

    # --- one program --------------------------------------------------------------------------------------------------------------------

    def freeze(self, name: str) -> None:
        self._node.order(signal=name, number=signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._node.order(signal=name, number=signal.SIGCONT)

    def kill(self, name: str) -> None:
        """End a program at once; returns when it is gone."""
        self._node.order(signal=name, number=signal.SIGKILL)
        until(f"the end of {name}", lambda: name not in self._node.order(list=True), seconds=20, look=str(self._site.log(name)))

    def start(self, name: str) -> None:
        """Start a program that was killed; does not wait for it to be ready."""
        self._cluster.start(name)

    def restart(self, *programs: str) -> None:
        """Kill all of them, then start them; returns when the API server answers."""
        for name in programs:
            self.kill(name)
        self._start_in_order(programs)

    def _start_in_order(self, programs: Collection[str]) -> None:
        # The others give up if they find no API server.
        for name in names():
            if name in programs:
                self.start(name)
            if name == components.API_SERVER:
                self._cluster.await_api()

    # --- the node -----------------------------------------------------------------------------------------------------------------------

    def power_off(self) -> None:
        """All processes and containers gone, /run empty, the disk as it was."""
        self._node.end()

    def power_on(self) -> None:
        """Returns when the node is Ready."""
        self._cluster.start_all()

    def reboot(self) -> None:
        self.power_off()
        self.power_on()

    # --- the API server -----------------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset the pods' connections to the API server with their next packet, and refuse new ones, until `mend`."""
        self._iptables("-I")

    def mend(self) -> None:
        self._iptables("-D")

    def _iptables(self, action: str) -> None:
        self._node.inside("iptables", action, *_CUT)

    def save_data(self) -> None:
        """Keep what the API server knows now."""
        self.kill(components.ETCD)
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self._site.root / "etcd", self._saved)
        self.start(components.ETCD)
        self._cluster.await_api()

    def restore_data(self) -> None:
        """Go back to what was kept, as from a backup: with it every program of the control plane and the kubelet is started anew."""
        stopped = [name for name in names() if name != components.CONTAINERD]
        for name in reversed(stopped):
            if name in self._node.order(list=True):
                self.kill(name)
        shutil.rmtree(self._site.root / "etcd")
        shutil.copytree(self._saved, self._site.root / "etcd")
        self._start_in_order(stopped)

    @property
    def _saved(self) -> str:
        return str(self._site.root / "etcd-saved")

    def renew_tokens(self) -> None:
        """Another key signs service account tokens: all that pods hold become void, until the kubelet brings new ones."""
        pki.make_token_key(self._site.pki)
        self.restart(components.API_SERVER, components.CONTROLLERS, components.KUBELET)


def names() -> Sequence[str]:
    """Of the programs that can be made to suffer, in an order in which they may be started."""
    return (components.ETCD, components.API_SERVER, components.CONTAINERD, components.CONTROLLERS, components.SCHEDULER, components.KUBELET)
