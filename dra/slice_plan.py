"""What to write so that the stored slices of a node say what they should.

The rules come from the readers (contract of k8s.io/dynamic-resource-allocation/structured, 1.31 to 1.37): only slices of a pool's highest
generation count, and a pool whose number of them differs from `resourceSliceCount` is incomplete. So one changed slice is updated in
place, and several get a new generation together. Nothing is written when nothing differs: every write wakes every scheduler.

No state on the way shows a device that overlaps with another without the counters that keep them apart. From 1.35 on nothing is given out
of an incomplete pool, and a generation is complete with its last write only; before, its first write hides all older ones, and every slice
has its own counter sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from dra import slice_contents, slice_features, slices
from dra.kube.meta import OwnerReference
from dra.pool import Pool
from dra.slice_contents import Json
from dra.slices import SliceApi


class Create(msgspec.Struct, frozen=True):
    body: Json


class Replace(msgspec.Struct, frozen=True):
    """A PUT of the whole object with its resourceVersion."""

    body: Json


class Delete(msgspec.Struct, frozen=True):
    name: str
    uid: str
    resource_version: str


Write = Create | Replace | Delete


def plan(
    existing: Sequence[Json], pool: Pool, api: SliceApi, *, owner: OwnerReference | None, adopted: Mapping[bytes, bytes] | None = None
) -> list[Write]:
    """Writes, in the order they are to be made; empty if all is as it should be.

    Args:
        existing: every slice of this driver and node, as stored. Those of other pools are removed: the node has one pool.
        owner: the Node; None leaves the owner as it is.
        adopted: fingerprint sent -> fingerprint stored, where the server is known to keep less than it was sent.
    """
    for feature in slice_features.ALL:
        if not feature.known(api):
            pool = feature.without(pool)
    mine = sorted((one for one in existing if _pool(one).get("name") == pool.node), key=_name)
    strangers = [one for one in existing if _pool(one).get("name") != pool.node]
    newest = max((_generation(one) for one in mine), default=0)
    wanted = slices.render(pool, api, generation=newest, owner=owner)
    _keep_times(wanted, mine)
    matched = _match(mine, wanted, pool, by_content=not api.release >= (1, 36))
    surplus = [one for at, one in enumerate(mine) if at not in matched.values()]
    # Another pool offers our devices a second time: whatever the order of the rest, it goes before anything new is shown.
    strange: list[Write] = [_delete(one) for one in strangers]
    gone: list[Write] = [_delete(one) for one in surplus]
    seen_alike = all(at in matched.values() or _generation(one) < newest for at, one in enumerate(mine))
    numbered = all(_numbered(mine[at], newest, len(wanted)) for at in matched.values())
    stale = {index for index, body in enumerate(wanted) if index not in matched or not _says(mine[matched[index]], body, adopted or {})}
    if seen_alike and numbered and len(matched) == len(wanted) and len(stale) <= 1:
        in_place = [index for index in sorted(matched) if index in stale or not _owned(mine[matched[index]], owner)]
        return [*strange, *gone, *(Replace(_onto(mine[matched[index]], wanted[index])) for index in in_place)]
    for body in wanted:
        body["spec"]["pool"]["generation"] = newest + 1
    if api.counts_twice:
        return [*strange, *map(_delete, mine), *map(Create, wanted)]
    # What has no counters yet first, new objects above all: of those that have some a server keeps them even with the gate off, so it is
    # one without that tells.
    writes: list[Write] = [Create(body) for index, body in enumerate(wanted) if index not in matched]
    known = sorted((index for index in matched), key=lambda index: (_counts(mine[matched[index]]), index))
    writes += [Replace(_onto(mine[matched[index]], wanted[index])) for index in known]
    return [*strange, *gone, *writes] if api.deletes_first else [*strange, *writes, *gone]


def withdrawal(existing: Sequence[Json]) -> list[Write]:
    """Writes after which nothing is said of the node any more."""
    return [_delete(one) for one in existing]


def _match(mine: Sequence[Json], wanted: Sequence[Json], pool: Pool, *, by_content: bool) -> dict[int, int]:
    """Index of a wanted slice -> index of the stored one that becomes it: by the index in its name, else, where names mean nothing to
    the scheduler (before 1.36), by the same devices and counter sets; so slices another publisher left are taken over without a gap."""
    matched: dict[int, int] = {}
    for at, one in enumerate(mine):
        index = slices.index_of(pool, _name(one))
        if index is not None and index < len(wanted):
            matched.setdefault(index, at)
    if by_content:
        free = {_names(one): at for at, one in enumerate(mine) if at not in matched.values()}
        for index, body in enumerate(wanted):
            if index not in matched and (names := _names(body)) in free:
                matched[index] = free.pop(names)
    return matched


def _names(body: Json) -> tuple[frozenset[str], frozenset[str]]:
    """What a slice is about: its devices and its counter sets, either of which may be none."""
    return frozenset(slice_contents.devices_of(body)), slice_contents.counter_sets_of(body)


def _counts(body: Json) -> bool:
    """Whether it has a counter set, or a device that consumes of one."""
    return bool(slice_contents.counter_sets_of(body)) or any("consumesCounters" in one for one in slice_contents.devices_of(body).values())


def _says(stored: Json, body: Json, adopted: Mapping[bytes, bytes]) -> bool:
    has, wants = slice_contents.fingerprint(stored), slice_contents.fingerprint(body)
    return has in (wants, adopted.get(wants))


def _keep_times(wanted: Sequence[Json], mine: Sequence[Json]) -> None:
    """Send back the server's `timeAdded` of taints that stay: without it the clocks of tolerations would start again."""
    times = {
        (name, taint.get("key"), taint.get("value", ""), taint.get("effect")): taint["timeAdded"]
        for one in mine
        for name, content in slice_contents.devices_of(one).items()
        for taint in content.get("taints") or []
        if taint.get("timeAdded")
    }
    for body in wanted:
        for name, content in slice_contents.devices_of(body).items():
            for taint in content.get("taints") or []:
                if (since := times.get((name, taint["key"], taint.get("value", ""), taint["effect"]))) is not None:
                    taint["timeAdded"] = since


def _onto(stored: Json, body: Json) -> Json:
    """`body` as the next content of the stored object: its metadata stays, but for who owns it."""
    metadata = {key: value for key, value in stored["metadata"].items() if key != "managedFields"}
    if ours := body["metadata"].get("ownerReferences"):
        others = [reference for reference in metadata.get("ownerReferences") or [] if reference.get("kind") != "Node"]
        metadata["ownerReferences"] = [*ours, *({**other, "controller": False} for other in others)]
    return {**body, "metadata": metadata}


def _owned(stored: Json, owner: OwnerReference | None) -> bool:
    nodes = [reference for reference in stored["metadata"].get("ownerReferences") or [] if reference.get("kind") == "Node"]
    return owner is None or [reference.get("uid") for reference in nodes] == [owner.uid]


def _numbered(stored: Json, generation: int, count: int) -> bool:
    return (_generation(stored), _pool(stored).get("resourceSliceCount")) == (generation, count)


def _pool(stored: Json) -> Json:
    pool: Json = stored.get("spec", {}).get("pool") or {}
    return pool


def _generation(stored: Json) -> int:
    return int(_pool(stored).get("generation") or 0)


def _name(stored: Json) -> str:
    return str(stored["metadata"].get("name", ""))


def _delete(stored: Json) -> Delete:
    metadata = stored["metadata"]
    return Delete(_name(stored), metadata.get("uid", ""), metadata.get("resourceVersion", ""))
