"""Command lines and configuration files of the cluster's programs."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from typing import Any, Final

from tools.realcluster import images, programs
from tools.realcluster.site import API_PORT, NODE_IP, NODE_NAME, POD_RANGE, SERVICE_RANGE, Site
from tools.realcluster.versions import Release

ETCD, API_SERVER, CONTROLLERS, SCHEDULER = "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"
CONTAINERD, KUBELET = "containerd", "kubelet"
CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"


@dataclasses.dataclass(frozen=True)
class Component:
    name: str
    argv: list[str]
    env: dict[str, str] = dataclasses.field(default_factory=dict)


def all_of(release: Release, site: Site) -> dict[str, Component]:
    """Every program, in an order in which they may be started."""
    built = programs.kubernetes(release).directory
    gates = _gates(release.gates)
    parts = [
        _etcd(site),
        Component(API_SERVER, [str(built / API_SERVER), *_api_server(release, site), *gates]),
        _containerd(release, site),
        Component(CONTROLLERS, [str(built / CONTROLLERS), *_controllers(site), *gates]),
        Component(SCHEDULER, [str(built / SCHEDULER), *_client(site, SCHEDULER), "--leader-elect=false", *_FAST, *gates]),
        Component(KUBELET, [str(built / KUBELET), *_kubelet(release, site)]),
    ]
    return {part.name: part for part in parts}


_FAST: Final = ("--kube-api-qps=500", "--kube-api-burst=1000")
"""The defaults, 50 and 20 requests a second, would be what is measured when pods come in waves."""


def _gates(gates: dict[str, bool]) -> list[str]:
    return [f"--feature-gates={','.join(f'{name}={str(value).lower()}' for name, value in gates.items())}"] if gates else []


def _client(site: Site, user: str) -> list[str]:
    config = site.kubeconfig(user)
    return [f"--{role}kubeconfig={config}" for role in ("", "authentication-", "authorization-")]


def _etcd(site: Site) -> Component:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    argv = [str(programs.etcd().directory / "server"), f"--data-dir={site.root / 'etcd'}", "--log-level=warn"]
    argv += [f"--{which}-client-urls={client}" for which in ("listen", "advertise")]
    argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"]
    argv += ["--unsafe-no-fsync"]  # nothing here cuts the machine's power
    return Component(ETCD, argv)


def _api_server(release: Release, site: Site) -> list[str]:
    pki = site.pki
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        f"--advertise-address={NODE_IP}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",  # nothing here resolves the node's name
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/server.crt",
        f"--tls-private-key-file={pki}/server.key",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--requestheader-client-ca-file={pki}/front.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        "--enable-aggregator-routing=true",  # webhooks are called at their pods' addresses: there is no kube-proxy for a Service's
        f"--runtime-config={release.runtime_config}",
    ]


def _controllers(site: Site) -> list[str]:
    return [
        *_client(site, CONTROLLERS),
        f"--service-account-private-key-file={site.pki}/sa.key",
        f"--root-ca-file={site.pki}/ca.crt",
        "--use-service-account-credentials",
        "--leader-elect=false",
        *_FAST,
        # Nobody speaks for the nodes that have no kubelet.
        *(["--node-monitor-grace-period=1h"] if site.facts()["nodes"] > 1 else []),
    ]


def _kubelet(release: Release, site: Site) -> list[str]:
    pki = site.pki
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{pki}/ca.crt"}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/server.crt",
        "tlsPrivateKeyFile": f"{pki}/server.key",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{site.cgroup}",
        "resolvConf": "/dev/null",
        "failSwapOn": False,
        "clusterDNS": ["10.96.0.10"],  # nobody answers there; without one the kubelet complains about every pod
        "makeIPTablesUtilChains": False,
        "enableControllerAttachDetach": False,
        "localStorageCapacityIsolation": False,
        # The machine's disk is not the cluster's: nothing is to be evicted because it is full.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 250,
        # As for _FAST: the defaults would be what is measured.
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "featureGates": release.kubelet_gates,
    }
    if release.minor >= 31:
        config["failCgroupV1"] = False
    path = site.root / "config" / "kubelet.json"
    path.write_text(json.dumps(config, indent=2))
    return [
        f"--config={path}",
        f"--kubeconfig={site.kubeconfig('node')}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_IP}",
        "--v=2",
    ]


def _containerd(release: Release, site: Site) -> Component:
    built = programs.containerd(release.containerd).directory
    network = {
        "cniVersion": "0.4.0",
        "name": "ptp",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {"type": "host-local", "subnet": POD_RANGE, "dataDir": str(site.root / "ipam"), "routes": [{"dst": "0.0.0.0/0"}]},
            }
        ],
    }
    (site.root / "cni" / "10-ptp.conflist").write_text(json.dumps(network))
    config = site.root / "config" / "containerd.toml"
    config.write_text(_containerd_1_config(site) if release.containerd.startswith("1.") else _containerd_config(site))
    return Component(CONTAINERD, [str(built / "containerd"), "--config", str(config)], {"PATH": f"{built}:{os.environ['PATH']}"})


def _containerd_config(site: Site) -> str:
    return f"""\
version = 3
oom_score = 0
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{images.BUSYBOX}"
[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE runc cannot lower a score and fails without saying so.
  restrict_oom_score_adj = true
  enable_cdi = true
  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{site.root / "cni"}"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
      BinaryName = "{shutil.which("runc") or "runc"}"
"""


def _containerd_1_config(site: Site) -> str:
    """The same for containerd 1.7, where one section has it all."""
    return f"""\
version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.BUSYBOX}"
  restrict_oom_score_adj = true
  enable_cdi = true
  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{site.root / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "{shutil.which("runc") or "runc"}"
"""
