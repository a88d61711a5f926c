"""Whether a node is as the driver needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from dra import kubernetes_releases, semver
from dra.classic.names import heartbeat_name
from dra.explaining import removal
from dra.explaining.checks import RESTARTS, Finding, Verdict, is_ready, pods_of
from dra.explaining.cluster import Cluster, Json, key_of
from dra.explaining.gpus import Node
from dra.explaining.installation import stale
from dra.names import DRIVER_NAME

LABELS: Final = ("intel.feature.node.kubernetes.io/gpu",)
"""By which Node Feature Discovery says that there is a GPU."""
DEVICE_PLUGIN: Final = ("gpu.intel.com/i915", "gpu.intel.com/xe")
"""Resources of Intel's device plugin."""
FOREIGN: Final = {
    "intel-gpu-plugin": ("Intel's device plugin", Verdict.WARNING, "both give away the same GPUs"),
    "intel-gpu-resource-driver": ("Intel's DRA driver", Verdict.PROBLEM, "the kubelet takes the driver's name from one only"),
}
"""Word in an image's name -> whose it is, and what comes of it beside this driver."""
OLDER_KUBELETS: Final = 3
"""Minors by which Kubernetes lets a kubelet be older than its API server."""
UNRESOLVED: Final = "unresolvable CDI devices"
"""What a container runtime says that knows no CDI, or looks for its files elsewhere."""
NOT_READY: Final = "[no] "
"""How a check that fails begins in what the plugin answers at /readyz."""
CONTAINERD: Final = (1, 7)
CRIO: Final = (1, 23)


def of_nodes(cluster: Cluster, gpus: tuple[Node, ...], readiness: Mapping[str, str]) -> Iterator[Finding]:
    """All nodes that have to do with the driver.

    Args:
        gpus: what they publish.
        readiness: `namespace/name` of a plugin's pod -> what it answers at /readyz, where it was asked.
    """
    published = {node.name: node for node in gpus}
    plugins: dict[str, list[Json]] = {}
    for pod in pods_of(cluster, "node-plugin"):
        plugins.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
    for node in cluster.nodes:
        name = node["metadata"]["name"]
        labelled = any(label in (node["metadata"].get("labels") or {}) for label in LABELS)
        if name in published or name in plugins or labelled:
            yield from _node(cluster, node, plugins.get(name, []), published.get(name), readiness)
    here = {node["metadata"]["name"] for node in cluster.nodes}
    for body in cluster.slices:
        owner = body["spec"].get("nodeName")
        if here and body["spec"]["driver"] == DRIVER_NAME and owner and owner not in here:
            slice_name = body["metadata"]["name"]
            seen = f"ResourceSlice {slice_name} is of a node that is not there"
            yield Finding(Verdict.PROBLEM, "slices", owner, seen, f"kubectl delete resourceslice {slice_name}")


def _node(cluster: Cluster, node: Json, plugins: list[Json], gpus: Node | None, readiness: Mapping[str, str]) -> Iterator[Finding]:
    name, info = node["metadata"]["name"], (node.get("status") or {}).get("nodeInfo") or {}
    if not is_ready(node):
        yield Finding(Verdict.PROBLEM, "node", name, "is not Ready", f"kubectl describe node {name}")
    yield _kubelet(cluster, name, info.get("kubeletVersion", ""))
    yield _runtime(cluster, name, info.get("containerRuntimeVersion", ""))
    if "pods" not in cluster.unread:
        yield from _plugin(name, plugins, readiness)
    yield from _gpus(cluster, name, plugins, gpus)
    yield from _heartbeat(cluster, name)
    yield from _others(cluster, name, (node.get("status") or {}).get("allocatable") or {})


def _others(cluster: Cluster, name: str, allocatable: Mapping[str, str]) -> Iterator[Finding]:
    check, cure = "other drivers", "keep one of them off the node: docs/upgrading.md"
    found: dict[str, Finding] = {}
    for pod in cluster.pods:
        owners = pod["metadata"].get("ownerReferences") or ()
        if pod["spec"].get("nodeName") != name or not any(owner.get("kind") == "DaemonSet" for owner in owners):
            continue  # controllers and operators of others harm nobody
        images = [container.get("image", "").partition("@")[0] for container in pod["spec"].get("containers") or ()]
        for word, (whose, verdict, then) in FOREIGN.items():
            if any(word in image.rpartition("/")[2] for image in images):
                found[word] = Finding(verdict, check, name, f"{whose} runs here ({key_of(pod)}): {then}", cure)
    beside = [each for each in DEVICE_PLUGIN if allocatable.get(each, "0") != "0"]
    if beside and "intel-gpu-plugin" not in found:
        seen = f"Intel's device plugin offers {beside[0]} here: both give away the same GPUs"
        yield Finding(Verdict.WARNING, check, name, seen, cure)
    yield from found.values()


def _kubelet(cluster: Cluster, name: str, version: str) -> Finding:
    release, server = semver.release(version), semver.release(cluster.version)
    if release is None or server is None:
        return Finding(Verdict.UNKNOWN, "kubelet", name, f"calls itself {version!r}")
    if release < kubernetes_releases.OLDEST:
        return Finding(Verdict.PROBLEM, "kubelet", name, f"{version} is older than the driver is for", "upgrade it to 1.28 or newer")
    if release > server:
        seen = f"{version} is newer than the API server, {cluster.version}"
        return Finding(Verdict.PROBLEM, "kubelet", name, seen, "upgrade the control plane first: Kubernetes does not support this")
    if (release >= (1, 31)) is cluster.is_classic:
        seen = f"{version} and an API server {cluster.version} do not speak the same DRA"
        return Finding(Verdict.PROBLEM, "kubelet", name, seen, "bring both to 1.30 or before, or to 1.31 and later")
    if release[1] < server[1] - OLDER_KUBELETS:
        seen = f"{version} is more than {OLDER_KUBELETS} minors older than the API server, {cluster.version}"
        return Finding(Verdict.WARNING, "kubelet", name, seen, "upgrade it: Kubernetes does not promise that these work together")
    return Finding(Verdict.OK, "kubelet", name, version)


def _runtime(cluster: Cluster, name: str, version: str) -> Finding:
    check, (kind, _, number) = "container runtime", version.partition("://")
    unresolved = any(UNRESOLVED in event.get("message", "") and _on_node(cluster, event, name) for event in cluster.events)
    release = semver.release(number)
    if unresolved:
        cure = "switch CDI on, or set cdiRoot: docs/cluster-setup.md"
        return Finding(Verdict.PROBLEM, check, name, f"{version} does not find the CDI files", cure)
    if release is None or kind not in ("containerd", "cri-o"):
        return Finding(Verdict.UNKNOWN, check, name, f"{version or 'not told'}: whether it takes CDI devices is not known")
    if release < (CONTAINERD if kind == "containerd" else CRIO):
        needed = "containerd 1.7" if kind == "containerd" else "CRI-O 1.23"
        return Finding(Verdict.PROBLEM, check, name, f"{version} takes no CDI devices", f"upgrade it to {needed} or newer")
    if kind == "containerd" and release == CONTAINERD:
        cure = "on the node: containerd config dump | grep enable_cdi"
        return Finding(Verdict.UNKNOWN, check, name, f"{version}: CDI is off unless it was switched on", cure)
    return Finding(Verdict.OK, check, name, version)


def _on_node(cluster: Cluster, event: Json, node: str) -> bool:
    regarding = event.get("involvedObject") or {}
    pod = cluster.pod(regarding.get("namespace", ""), regarding.get("name", ""))
    return pod is not None and pod["spec"].get("nodeName") == node


def _plugin(name: str, plugins: list[Json], readiness: Mapping[str, str]) -> Iterator[Finding]:
    if not plugins:
        cure = "look at the DaemonSet's nodeSelector, tolerations and image"
        yield Finding(Verdict.PROBLEM, "node plugin", name, "no pod of the driver is here", cure)
    for pod in plugins:
        key = key_of(pod)
        restarts = sum(each.get("restartCount", 0) for each in (pod.get("status") or {}).get("containerStatuses") or ())
        namespace, _, own = key.partition("/")
        if not is_ready(pod):
            lines = [line.removeprefix(NOT_READY) for line in readiness.get(key, "").splitlines() if line.startswith(NOT_READY)]
            seen = f"{key} is not Ready" + (f": {'; '.join(lines)}" if lines else "")
            yield Finding(Verdict.PROBLEM, "node plugin", name, seen, f"kubectl -n {namespace} logs {own} --tail 30")
        elif restarts >= RESTARTS:
            cure = f"kubectl -n {namespace} logs {own} --previous --tail 30"
            yield Finding(Verdict.WARNING, "node plugin", name, f"{key} was started anew {restarts} times", cure)
        else:
            yield Finding(Verdict.OK, "node plugin", name, f"{key} is Ready")


def _gpus(cluster: Cluster, name: str, plugins: list[Json], gpus: Node | None) -> Iterator[Finding]:
    unread = any(plural in cluster.unread for plural in ("resourceslices", "gpuallocationstates"))
    if (gpus is None or not gpus.cards) and (sentence := removal.leaving(cluster, name)):
        seen = f"the driver is being removed from here, and offers nothing: {sentence}"
        yield Finding(Verdict.PROBLEM, "GPUs", name, seen, "take decommission out of the plugin's settings, or go on: docs/uninstalling.md")
        return
    if gpus is None or not (gpus.cards or gpus.problem):
        if not unread and any(map(is_ready, plugins)):
            cure = "kubectl exec into its pod: gpu-node-plugin discover"
            yield Finding(Verdict.WARNING, "GPUs", name, "nothing is published: no GPU, or none that settings offer", cure)
        return
    devices = [device for card in gpus.cards for device in card.devices]
    ill = [device for device in devices if device.blocked]
    if gpus.problem:
        yield Finding(Verdict.PROBLEM, "GPUs", name, gpus.problem, "kubectl describe node, and the plugin's log")
    elif not cluster.is_classic and (missing := incomplete(cluster, name)):
        yield Finding(Verdict.PROBLEM, "GPUs", name, missing, "wait a minute, then look into the plugin's log")
    elif ill:
        seen = f"{len(ill)} of {len(devices)} keep pods away: {ill[0].name} has {ill[0].blocked[0]}"
        yield Finding(Verdict.WARNING, "GPUs", name, seen, f"kubectl intel-gpu who {ill[0].name}, and docs/reference/health.md")
    else:
        yield Finding(Verdict.OK, "GPUs", name, f"{len(gpus.cards)} cards, {len(devices)} devices")


def _heartbeat(cluster: Cluster, name: str) -> Iterator[Finding]:
    """By a Lease of each plugin the controller knows, where it allocates, that the plugin lives."""
    for lease in cluster.leases:
        if lease["metadata"]["name"] == heartbeat_name(name) and stale(lease.get("spec") or {}, cluster.at):
            seen = f"the plugin has not renewed its Lease since {lease['spec']['renewTime']}: nothing is given away here"
            cure = f"kubectl -n {lease['metadata'].get('namespace', '')} get pods -o wide --field-selector spec.nodeName={name}"
            yield Finding(Verdict.PROBLEM, "node plugin", name, seen, cure)


def incomplete(cluster: Cluster, name: str) -> str:
    """What is missing of a node's pool, empty if nothing is: the scheduler uses only whole pools."""
    pools = [body["spec"] for body in cluster.slices if body["spec"]["driver"] == DRIVER_NAME and body["spec"].get("nodeName") == name]
    newest = max((spec["pool"].get("generation", 0) for spec in pools), default=0)
    found = [spec for spec in pools if spec["pool"].get("generation", 0) == newest]
    wanted = found[0]["pool"].get("resourceSliceCount", 1) if found else 0
    if len(found) == wanted:
        return ""
    return f"{len(found)} of {wanted} slices of generation {newest} are there: nothing of them is given away"
