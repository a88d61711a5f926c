"""The cluster's GPUs as people see them: nodes, their cards, what those are cut in, and who has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dra.explaining.cluster import Cluster


class Taint(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    key: str
    effect: str
    value: str = ""
    by: str = ""
    """Who set it: the driver, a DeviceTaintRule by name, or a reason of an alert."""

    def __str__(self) -> str:
        return f"{self.key}{f'={self.value}' if self.value else ''}:{self.effect}"


class Holder(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A claim that has a device or a share of it."""

    namespace: str
    claim: str
    pods: tuple[str, ...] = ()
    """Names of those it is reserved for; in the claim's namespace."""
    request: str = ""
    """Of the claim, `name` or `name/alternative`; empty with classic DRA."""
    admin: bool = False
    """It only looks: the device stays free for others."""
    share: Mapping[str, str] = {}
    """What it has of a device that several share, by capacity."""
    since: str | None = None
    """RFC 3339, where it is known."""


class Device(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A GPU or a VF that is offered."""

    name: str
    """In its slice; with classic DRA the name it would have there."""
    pci: str
    """Of a VF that is not made yet: where it will be, or empty."""
    kind: str
    """`gpu` or `vf`."""
    driver: str = ""
    """Of the kernel: xe, i915."""
    model: str = ""
    memory_bytes: int = 0
    """0 where it is not known."""
    millicores: int = 0
    """Thousandths of the card."""
    profile: str = ""
    """Of a VF."""
    vf_index: int = 0
    """From 1; 0 of a card."""
    shared: bool = False
    """Several claims may have it at a time."""
    health: str = "Unknown"
    """`Healthy`, `Unhealthy` or `Unknown`."""
    taints: tuple[Taint, ...] = ()
    holders: tuple[Holder, ...] = ()

    @property
    def held(self) -> bool:
        """Whether a claim has it, or a share of it, to work with."""
        return any(not holder.admin for holder in self.holders)

    @property
    def blocked(self) -> tuple[Taint, ...]:
        """Taints that keep pods away."""
        return tuple(taint for taint in self.taints if taint.effect in ("NoSchedule", "NoExecute"))


class Card(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    pci: str
    model: str = ""
    memory_bytes: int = 0
    whole: Device | None = None
    """None: only its VFs are offered."""
    vfs: tuple[Device, ...] = ()
    """In order of their number."""

    @property
    def devices(self) -> tuple[Device, ...]:
        return (*((self.whole,) if self.whole is not None else ()), *self.vfs)


class Node(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    name: str
    ready: bool = True
    """As its kubelet says."""
    cordoned: bool = False
    problem: str = ""
    """Why nothing can be given away there, where that is known."""
    cards: tuple[Card, ...] = ()


def free(card: Card, device: Device) -> bool:
    """Whether nobody holds the device, nor what excludes it: a card and its VFs are not given away both."""
    if device.held:
        return False
    if device.kind == "vf":
        return card.whole is None or not card.whole.held
    return not any(vf.held for vf in card.vfs)


def cards_of(devices: Iterable[tuple[str, Device]]) -> tuple[Card, ...]:
    """(address of the card, device) -> cards in order of address."""
    by_card: dict[str, list[Device]] = {}
    for pci, device in devices:
        by_card.setdefault(pci, []).append(device)
    return tuple(_card(pci, by_card[pci]) for pci in sorted(by_card))


def _card(pci: str, devices: Sequence[Device]) -> Card:
    whole = next((device for device in devices if device.kind != "vf"), None)
    vfs = tuple(sorted((device for device in devices if device.kind == "vf"), key=lambda each: (each.vf_index, each.name)))
    one = whole or vfs[0]
    memory = whole.memory_bytes if whole is not None else sum(vf.memory_bytes for vf in vfs)
    return Card(pci=pci, model=one.model, memory_bytes=memory, whole=whole, vfs=vfs)


def node_of(cluster: Cluster, name: str, cards: tuple[Card, ...], problem: str = "") -> Node:
    body = cluster.node(name)
    if body is None:
        gone = "" if "nodes" in cluster.unread or not cluster.nodes else "there is no such Node any more"
        return Node(name=name, cards=cards, problem=problem or gone)
    conditions = (body.get("status") or {}).get("conditions") or ()
    ready = all(each.get("status") == "True" for each in conditions if each.get("type") == "Ready")
    return Node(name=name, ready=ready, cordoned=bool((body.get("spec") or {}).get("unschedulable")), cards=cards, problem=problem)


def find(nodes: Iterable[Node], wanted: str) -> list[tuple[Node, Card, Device]]:
    """Devices by name, by PCI address, or one of them behind `node/`."""
    found = []
    for node in nodes:
        for card in node.cards:
            for device in card.devices:
                names = {device.name, device.pci, f"{node.name}/{device.name}", f"{node.name}/{device.pci}"}
                if wanted in names - {"", f"{node.name}/"}:
                    found.append((node, card, device))
    return found
