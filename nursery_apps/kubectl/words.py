"""Amounts, times and names as people read them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from dra.explaining.cluster import Cluster
from dra.explaining.gpus import Device, Holder


def memory(size_bytes: int) -> str:
    """`24 GiB`, `1.5 GiB`, `512 MiB`; `-` where it is not known."""
    if not size_bytes:
        return "-"
    if size_bytes < 1 << 30:
        return f"{size_bytes >> 20} MiB"
    text = f"{size_bytes / (1 << 30):.1f}".removesuffix(".0")
    return f"{text} GiB"


def age(since: str | None, now: str) -> str:
    """`3d`, `5h`, `12m`, `40s`, as kubectl's AGE; `-` where it is not known."""
    if not since:
        return "-"
    try:
        seconds = int((datetime.datetime.fromisoformat(now) - datetime.datetime.fromisoformat(since)).total_seconds())
    except ValueError:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def holder(one: Holder) -> str:
    """`ns/pod (claim c)`, and whether it has a share or only looks."""
    pods = ", ".join(one.pods)
    text = f"{one.namespace}/{pods} (claim {one.claim})" if pods else f"claim {one.namespace}/{one.claim}"
    if one.share:
        text += f" [{share(one)}]"
    return f"{text} [looks on]" if one.admin else text


def share(one: Holder) -> str:
    """What it has of a shared device."""
    return ", ".join(f"{name} {amount}" for name, amount in sorted(one.share.items()))


def state(device: Device, is_free: bool) -> str:
    """A word or two for a device: a card whose VFs are in use is cut, and VFs of a card that is in use are not to be had."""
    if device.held:
        return "in use"
    if device.blocked:
        return "tainted"
    if is_free:
        return "free"
    return "card in use" if device.kind == "vf" else "cut"


def unread(cluster: Cluster) -> Iterable[str]:
    """What is not known because it could not be read, a sentence each."""
    for plural, why in sorted(cluster.unread.items()):
        yield f"not read: {plural}: {why}"
    if cluster.namespace:
        yield f"only claims of namespace {cluster.namespace} were read: what others hold looks free"
