"""Each request of a claim against each device of each node: the first reason that excludes it (structured DRA)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from dra.explaining import node_rules, slice_gpus
from dra.explaining.cluster import Cluster, Json
from dra.explaining.gpus import Holder, Taint
from dra.explaining.verdicts import Cause, DeviceVerdict, NodeVerdict, RequestVerdict
from dra.structured import amounts, capacities, expressions, pools
from dra.structured.allocator import Allocator, Broken, TooLong, Unschedulable, tolerates
from dra.structured.capacities import Uncountable
from dra.structured.holdings import Holdings
from dra.structured.pools import Candidate, Pool

MOST_TRIES: Final = 20_000
"""Devices looked at in the search whether all requests fit together on a node: some seconds."""


class Offer(msgspec.Struct, frozen=True):
    """What one node can see."""

    node: Json
    pools: list[Pool]
    holdings: Holdings


class Requests:
    """One cluster, looked at for any number of claims."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._classes = {body["metadata"]["name"]: body for body in cluster.classes}
        self._slices_of: dict[str, list[Json]] = {}
        """By node, empty for any: of a cluster with a thousand nodes each sees next to nothing."""
        for pool in _pools(cluster.slices):
            for name in {str(each["spec"].get("nodeName") or "") for each in pool}:
                self._slices_of.setdefault(name, []).extend(pool)
        self._claims_of: dict[str, list[Json]] = {}
        """Allocated ones, by name of the pool that they have something of."""
        for claim in cluster.claims:
            allocation = (claim.get("status") or {}).get("allocation") or {}
            for pool_name in {result["pool"] for result in (allocation.get("devices") or {}).get("results") or ()}:
                self._claims_of.setdefault(pool_name, []).append(claim)
        self._holders = slice_gpus.holders(cluster.claims)
        self._offers: dict[str, Offer] = {}

    def offer(self, node: Json) -> Offer:
        name = node["metadata"]["name"]
        if name not in self._offers:
            habits = self._cluster.habits
            labels = {"kubernetes.io/hostname": name, **(node["metadata"].get("labels") or {})}
            visible = {id(each): each for each in (*self._slices_of.get(name, ()), *self._slices_of.get("", ()))}
            seen = pools.gather(visible.values(), name, self._cluster.taint_rules, habits, labels)
            self._offers[name] = Offer(node, seen, Holdings(seen, self._allocated(seen), habits))
        return self._offers[name]

    def _allocated(self, seen: Iterable[Pool]) -> list[Json]:
        """Claims that have something of these pools."""
        found = {id(claim): claim for name in {pool.name for pool in seen} for claim in self._claims_of.get(name, ())}
        return list(found.values())

    def nodes(self) -> list[Json]:
        """All Nodes; where they could not be read, those that slices name."""
        if self._cluster.nodes:
            return sorted(self._cluster.nodes, key=lambda node: str(node["metadata"]["name"]))
        return [
            {"metadata": {"name": name}} for name in sorted({str(s["spec"].get("nodeName") or "") for s in self._cluster.slices} - {""})
        ]

    # --- one request

    def explain(self, claim: Json, pod: Json | None) -> tuple[RequestVerdict, ...]:
        """Every request, alternatives one after the other."""
        found: list[RequestVerdict] = []
        for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
            if request.get("exactly"):
                found.append(self._request(request["name"], request["exactly"], pod))
            found += [self._request(f"{request['name']}/{each['name']}", each, pod) for each in request.get("firstAvailable") or ()]
        return tuple(found)

    def _request(self, name: str, request: Json, pod: Json | None) -> RequestVerdict:
        wanted = request.get("deviceClassName", "")
        takes_all = request.get("allocationMode") == "All"
        count = 0 if takes_all else int(request.get("count") or 1)
        much = "all devices" if takes_all else "1 device" if count == 1 else f"{count} devices"
        wants = f"{much} of class {wanted}"
        if request.get("adminAccess"):
            wants += " with admin access"
        made = RequestVerdict(request=name, wants=wants, count=count)
        if wanted not in self._classes and "deviceclasses" not in self._cluster.unread:
            there = ", ".join(sorted(self._classes)) or "none"
            return msgspec.structs.replace(
                made,
                problem=f"there is no DeviceClass {wanted}",
                cure=f"create the DeviceClass {wanted}, or ask for one that is there: {there}",
            )
        of_class = (self._classes.get(wanted) or {}).get("spec") or {}
        nodes = [self._node(self.offer(node), request, of_class, wanted, count, pod) for node in self.nodes()]
        return msgspec.structs.replace(made, nodes=tuple(each for each in nodes if each.devices or each.excluded))

    def _node(self, offer: Offer, request: Json, of_class: Json, class_name: str, count: int, pod: Json | None) -> NodeVerdict:
        name = offer.node["metadata"]["name"]
        verdicts = tuple(
            self._device(pool, candidate, offer.holdings, request, of_class, class_name)
            for pool in offer.pools
            for candidate in pool.candidates
        )
        if not verdicts:
            return NodeVerdict(node=name)
        if (why := node_rules.excluded(pod, offer.node)) is not None:
            return NodeVerdict(node=name, excluded=why, devices=verdicts)
        fitting = sum(verdict.cause is Cause.FITS for verdict in verdicts)
        broken = [verdict for verdict in verdicts if verdict.cause is Cause.CEL_ERROR]
        if broken:
            text = "an expression that cannot be evaluated on a device ends the scheduler's attempt on this node"
            return NodeVerdict(node=name, devices=verdicts, text=text)
        # `All` wants those that its selectors mean, and each of them.
        wanted = count or sum(verdict.cause not in (Cause.CLASS, Cause.SELECTOR, Cause.POOL) for verdict in verdicts)
        if fitting and fitting >= wanted:
            return NodeVerdict(node=name, devices=verdicts, fits=True, text=f"{fitting} fit")
        text = (
            f"asks for {'all ' if not count else ''}{wanted}, {fitting or 'none'} fit{'s' if fitting == 1 else ''}"
            if wanted
            else "none is meant"
        )
        return NodeVerdict(node=name, devices=verdicts, text=text)

    def _device(
        self, pool: Pool, candidate: Candidate, holdings: Holdings, request: Json, of_class: Json, class_name: str
    ) -> DeviceVerdict:
        driver, pool_name, device = candidate.id

        def no(cause: Cause, text: str, *, expression: str = "", holders: tuple[Holder, ...] = (), cure: str = "") -> DeviceVerdict:
            return DeviceVerdict(
                driver=driver, pool=pool_name, device=device, cause=cause, text=text, expression=expression, holders=holders, cure=cure
            )

        if pool.fault:
            return no(Cause.POOL, f"its pool is invalid: {pool.fault}", cure="look at the log of the driver's node plugin")
        if not pool.complete and self._cluster.habits.minor >= 35:
            return no(
                Cause.POOL,
                "its pool is being updated: not all of its slices are there",
                cure="wait; if it stays, look at the node plugin's log",
            )
        said = [(Cause.CLASS, f"class {class_name}", each) for each in of_class.get("selectors") or ()]
        said += [(Cause.SELECTOR, "the request", each) for each in request.get("selectors") or ()]
        for cause, whose, selector in said:
            text = (selector.get("cel") or {}).get("expression", "")
            try:
                holds = expressions.holds(text, candidate.variable)
            except expressions.CelError as error:
                if holdings.in_use(candidate, request, 0):
                    break  # the scheduler does not evaluate it now; it will when the device is let go
                return no(Cause.CEL_ERROR, f"an expression of {whose} fails: {_short(error, text)}", expression=text, cure=_guard(error))
            if not holds:
                return no(cause, f"not meant by {whose}: {_flat(text)} is false", expression=text)
        if (why := self._small(candidate, request)) is not None:
            return no(Cause.CAPACITY, why, cure="ask for less capacity")
        if holdings.in_use(candidate, request, 0):
            holders = tuple(holder for holder in self._holders.get(candidate.id, ()) if not holder.admin)
            return no(Cause.HELD, f"held by {_who(holders)}", holders=holders, cure=_end(holders))
        for taint in self._taints(candidate):
            if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(request.get("tolerations") or [], _json(taint)):
                return no(Cause.TAINT, f"tainted {taint} by {taint.by}, which the request does not tolerate", cure=_untaint(taint))
        if (lack := holdings.lacking(candidate)) is not None:
            counter, left, needed = lack
            ids = holdings.consumers(counter)
            holders = tuple(holder for id in ids for holder in self._holders.get(id, ()) if not holder.admin)
            have = f"needs {_amount(needed)} of counter {counter[3]}/{counter[4]}, {_amount(left)} is left"
            others = f": {', '.join(id[2] for id in ids)} {'is' if len(ids) == 1 else 'are'} held by {_who(holders)}" if ids else ""
            return no(Cause.COUNTERS, have + others, holders=holders, cure=_end(holders))
        try:
            room = holdings.has_room(candidate, request)
        except Uncountable as error:
            return no(Cause.CAPACITY, str(error), cure="ask for a whole number of thousandths")
        if not room:
            holders = self._holders.get(candidate.id, ())
            return no(Cause.CAPACITY, f"too little of it is left: shares are held by {_who(holders)}", holders=holders, cure=_end(holders))
        return no(Cause.FITS, "")

    def _small(self, candidate: Candidate, request: Json) -> str | None:
        """Why the device, if nobody had anything of it, would not do."""
        asked = (request.get("capacity") or {}).get("requests") or {}
        offered = candidate.device.get("capacity") or {}
        for name, amount in asked.items():
            if name not in offered:
                return f"it has no capacity {name}"
            if amounts.quantity(amount) > amounts.quantity(offered[name]["value"]):
                return f"it has {name} {offered[name]['value']}, the request wants {amount}"
        try:
            if asked and capacities.taken(offered, asked, self._cluster.habits) is None:
                return f"its sharing policy does not allow {', '.join(f'{name} {amount}' for name, amount in asked.items())}"
        except Uncountable as error:
            return str(error)
        return None

    def _taints(self, candidate: Candidate) -> tuple[Taint, ...]:
        driver, pool, _ = candidate.id
        return slice_gpus.taints(driver, pool, candidate.device, self._cluster.taint_rules)

    # --- all requests together

    def together(self, claims: Sequence[Json], node: Json) -> str | None:
        """Why these claims, each of whose requests has devices there, do not fit on the node together; None if they do."""
        offer = self.offer(node)
        search = Allocator(offer.pools, self._classes, self._allocated(offer.pools), self._cluster.habits, most_tries=MOST_TRIES)
        try:
            search.allocate(claims)
        except TooLong:
            return "whether all requests fit there together takes too long to find out"
        except Broken as error:
            return str(error)
        except Unschedulable:
            constraints = [each for claim in claims for each in ((claim["spec"].get("devices") or {}).get("constraints") or ())]
            text = "each request has devices that fit, but there are not enough for all of them together"
            if constraints:
                keys = ", ".join(str(each.get("matchAttribute") or each.get("distinctAttribute")) for each in constraints)
                text = f"each request has devices that fit, but no choice of them satisfies the constraints ({keys})"
            return text
        return None


def node_names(verdicts: Iterable[RequestVerdict]) -> list[str]:
    """Nodes on which every one of these requests has enough devices; of alternatives one is enough."""
    by_base: dict[str, set[str]] = {}
    for verdict in verdicts:
        by_base.setdefault(verdict.request.partition("/")[0], set()).update(node.node for node in verdict.nodes if node.fits)
    return sorted(set.intersection(*by_base.values())) if by_base else []


def _pools(slices: Iterable[Json]) -> list[list[Json]]:
    """Slices by pool."""
    found: dict[tuple[str, str], list[Json]] = {}
    for each in slices:
        found.setdefault((each["spec"]["driver"], each["spec"]["pool"]["name"]), []).append(each)
    return list(found.values())


def _who(holders: Iterable[Holder]) -> str:
    names = list(
        dict.fromkeys(f"claim {each.namespace}/{each.claim}" + (f" of pod {', '.join(each.pods)}" if each.pods else "") for each in holders)
    )
    return "; ".join(names) or "a claim of a namespace that was not read"


def _end(holders: Sequence[Holder]) -> str:
    if not holders:
        return ""
    one = holders[0]
    what = f"pod {one.pods[0]}" if one.pods else f"claim {one.claim}"
    return f"wait until {what} in namespace {one.namespace} ends, or delete it"


def _untaint(taint: Taint) -> str:
    if taint.by.startswith("DeviceTaintRule "):
        return f"kubectl delete devicetaintrule {taint.by.partition(' ')[2]}, or tolerate {taint.key} in the request"
    return f"mend the GPU (docs/reference/health.md says what {taint.key} means), or tolerate {taint.key} in the request"


def _guard(error: object) -> str:
    if "not found" in str(error).lower():
        return 'correct the name, or guard it: `"NAME" in device.attributes["DOMAIN"] && …`'
    return "correct the expression"


def _short(error: object, expression: str) -> str:
    return _flat(str(error).replace(f"CEL expression {expression}: ", "").replace(f"{expression}: ", ""))


def _flat(text: str) -> str:
    return " ".join(text.split())


def _json(taint: Taint) -> Json:
    return {"key": taint.key, "value": taint.value, "effect": taint.effect}


def _amount(billionths: int) -> str:
    return amounts.quantity_text(billionths, binary=billionths // 10**9 % 1024 == 0)
