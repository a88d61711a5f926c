"""Alertmanager's notifications, over HTTPS with a real client, down to what is stored: classic, with rules, and without them.

Each of the original's receivers' faults has its story: alerts that are resolved and ignored, taints that nothing takes back, reasons that
hide each other, clients that never end, and failures that nobody hears of.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpcore
import msgspec
import pytest
import trio
import trio.testing
import trustme

from dra import alerts
from dra.alerts import Filters
from dra.pool import Effect
from nursery_apps import tls
from nursery_apps.controller.alert_receiver import LIMITS, AlertReceiver
from nursery_apps.controller.tainter import Tainter
from nursery_apps.http_service import HttpService
from nursery_apps.seams import Conflict, Forbidden, ServedApi, Unavailable
from tests.fakes.gpu_states import CARD, UID, VF, VF_UID, device, slice_of, state
from tests.fakes.kube_api import ALL_PLURALS, FakeKubeApi

NAMESPACE = "intel-gpu"
CLASSIC = ServedApi("v1.29.6", (("v1alpha2", ("podschedulingcontexts", "resourceclaims", "resourceclasses")),))
RULES = ServedApi("v1.37.2", (("v1", (*ALL_PLURALS, "devicetaintrules")),))
UNSURE = ServedApi("v1.36.3", (("v1", ALL_PLURALS), ("v1alpha3", ("devicetaintrules",))))
NO_RULES = ServedApi("v1.34.3", (("v1", ALL_PLURALS),))


class Replica:
    """One controller's receiver, and an Alertmanager that talks to it."""

    def __init__(
        self, api: FakeKubeApi, *, filters: Filters | None = None, token: str | None = None, effect: Effect = Effect.NO_SCHEDULE
    ) -> None:
        self.effect = effect
        self.outcomes: list[str] = []
        self.tainter = Tainter(api, namespace=NAMESPACE, effect=lambda: self.effect, random=lambda: 0.5)
        self.receiver = AlertReceiver(
            self.tainter,
            filters=lambda: filters or Filters(),
            token=(lambda: token) if token is not None else None,
            on_outcome=self.outcomes.append,
        )
        self.port = 0

    async def start(self, nursery: trio.Nursery, context: ssl.SSLContext | None = None) -> Replica:
        http = HttpService(self.receiver, name="alerts", limits=LIMITS, certificate=None if context is None else lambda: context)
        self.port = await nursery.start(http.serve, "127.0.0.1", 0)
        return self

    async def post(
        self, body: bytes, *, path: str = alerts.PATH, method: str = "POST", tls: ssl.SSLContext | None = None, **headers: str
    ) -> tuple[int, str]:
        given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with httpcore.AsyncConnectionPool(ssl_context=tls) as pool:
            url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}{path}"
            answer = await pool.request(method, url, headers=given, content=body)
            return answer.status, answer.content.decode()

    async def hear(self, *heard: dict[str, Any]) -> tuple[int, str]:
        return await self.post(msgspec.json.encode({"alerts": heard}))


def alert(name: str = "GpuHot", *, status: str = "firing", bdf: str = "03:00.0", node: str = "n1", model: str = "0x56c0") -> dict[str, Any]:
    return {"status": status, "labels": {"alertname": name, "node": node, "pci_bdf": bdf, "pci_dev": model}}


@pytest.fixture
def api() -> FakeKubeApi:
    made = FakeKubeApi()
    made.put("nodes", {"metadata": {"name": "n1"}})
    made.put("resourceslices", slice_of("n1", CARD, VF))
    return made


@pytest.fixture
async def replica(nursery: trio.Nursery, api: FakeKubeApi) -> AsyncIterator[Replica]:
    yield await Replica(api).start(nursery)


def rules(api: FakeKubeApi) -> dict[str, list[str]]:
    """Device -> reasons."""
    return {
        rule["spec"]["deviceSelector"]["device"]: msgspec.json.decode(rule["metadata"]["annotations"]["gpu.intel.com/alert-reasons"])
        for rule in api.of("devicetaintrules")
    }


def tainted(api: FakeKubeApi) -> dict[str, Any]:
    [found] = api.of("gpuallocationstates")
    return found["spec"].get("taintedDevices") or {}  # type: ignore[no-any-return]


# --- what HTTP has to say ----------------------------------------------------------------------------------------------------------------


async def test_status_codes(api: FakeKubeApi, nursery: trio.Nursery) -> None:
    replica = await Replica(api, token="sesame").start(nursery)
    good = {"Authorization": "Bearer sesame"}
    body = msgspec.json.encode([alert()])
    assert (await replica.post(body, path="/", **good))[0] == 404
    assert (await replica.post(b"", method="GET", **good))[0] == 405
    assert (await replica.post(body))[0] == 401
    assert (await replica.post(body, Authorization="Bearer sesam"))[0] == 401
    assert (await replica.post(body, Authorization="Basic sesame"))[0] == 401
    assert (await replica.post(body, **good, Content_Type="text/plain"))[0] == 415
    assert (await replica.post(b" " * (alerts.BODY_BYTES + 1), **good))[0] == 413
    assert (await replica.post(b"{", **good))[0] == 400
    assert api.calls == [] and replica.outcomes == ["malformed"]
    for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        assert (await replica.post(body, **good | {"Content_Type": kind}))[0] == 200


async def test_a_token_that_nobody_has_read_yet_opens_nothing(api: FakeKubeApi, nursery: trio.Nursery) -> None:
    closed = await Replica(api, token="").start(nursery)
    assert (await closed.post(b"[]", Authorization="Bearer x"))[0] == 401


async def test_over_tls(api: FakeKubeApi, nursery: trio.Nursery) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    served = tls.served_with(issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode())
    replica = await Replica(api).start(nursery, served)
    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    api.offer = RULES
    assert (await replica.post(msgspec.json.encode([alert()]), tls=trusting))[0] == 200
    assert set(rules(api)) == {CARD, VF}


async def test_a_group_that_is_not_for_us(api: FakeKubeApi, nursery: trio.Nursery) -> None:
    replica = await Replica(api, filters=alerts.filters(groups="service=xpu-manager")).start(nursery)
    status, text = await replica.hear(alert())
    assert status == 400 and "filtered out: label service" in text


async def test_slow_clients_do_not_keep_an_alertmanager_out(
    autojump_clock: trio.testing.MockClock, api: FakeKubeApi, replica: Replica
) -> None:
    silent = [await trio.open_tcp_stream("127.0.0.1", replica.port) for _ in range(LIMITS.connections)]
    for stream in silent[::2]:
        await stream.send_all(
            f"POST {alerts.PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n[".encode()
        )
    began = trio.current_time()
    assert (await replica.hear(alert()))[0] == 200
    assert trio.current_time() - began <= LIMITS.request_seconds + 3
    for stream in silent:
        await stream.aclose()


# --- rules -------------------------------------------------------------------------------------------------------------------------------


async def test_an_alert_makes_rules_and_its_end_takes_them_back(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = RULES
    assert await replica.hear(alert(bdf="03:00.1")) == (200, "1 alerts taken, 0 ignored\n")
    assert rules(api) == {CARD: ["GpuHot/0000:03:00.1"], VF: ["GpuHot"]}
    [rule, _] = api.of("devicetaintrules")
    assert rule["spec"]["taint"] == {"key": "gpu.intel.com/alert", "value": "firing", "effect": "NoSchedule"}
    assert rule["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": api.of("nodes")[0]["metadata"]["uid"]}
    ]
    assert rule["apiVersion"] == "resource.k8s.io/v1"
    before = len(api.calls)
    await replica.hear(alert(bdf="03:00.1"))  # sent again, as Alertmanager does every few hours
    assert {verb for verb, _, _ in api.calls[before:]} == {"served", "list"}
    await replica.hear(alert(bdf="03:00.1", status="resolved"))
    assert rules(api) == {}
    assert replica.outcomes == ["applied"] * 3


async def test_two_alerts_and_one_is_resolved(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = RULES
    api.put("resourceslices", slice_of("n1", CARD))
    await replica.hear(alert("GpuHot"), alert("GpuNeedsReset"))
    await replica.hear(alert("GpuHot", status="resolved"))
    assert rules(api) == {CARD: ["GpuNeedsReset"]}
    await replica.hear(alert("GpuNeedsReset", status="resolved"))
    assert rules(api) == {}


async def test_one_replica_taints_and_the_other_heals(api: FakeKubeApi, replica: Replica, nursery: trio.Nursery) -> None:
    for offer in (RULES, NO_RULES, CLASSIC):
        api.offer = offer
        api.put("gpuallocationstates", state("n1", device(UID)), namespace=NAMESPACE)
        other = await Replica(api).start(nursery)
        await replica.hear(alert())
        assert rules(api) or tainted(api)
        await other.hear(alert(status="resolved"))
        assert not rules(api) and not tainted(api)


async def test_replicas_that_hear_the_same_at_once_agree(api: FakeKubeApi, replica: Replica, nursery: trio.Nursery) -> None:
    other = await Replica(api).start(nursery)
    for offer in (RULES, NO_RULES):
        api.offer = offer
        async with trio.open_nursery() as at_once:
            for each in (replica, other):
                for name in ("A", "B"):
                    at_once.start_soon(each.hear, alert(name))
        if offer is RULES:
            assert rules(api) == {CARD: ["A", "B"], VF: ["A/0000:03:00.0", "B/0000:03:00.0"]}
        else:
            assert tainted(api) == {UID: {"reasons": {"A": True, "B": True}}}
        async with trio.open_nursery() as at_once:
            for each in (replica, other):
                at_once.start_soon(each.hear, alert("A", status="resolved"), alert("B", status="resolved"))
    assert rules(api) == {} and tainted(api) == {}
    assert set(replica.outcomes + other.outcomes) == {"applied"}


async def test_rules_of_others_stay_as_they_are(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = RULES
    api.put("resourceslices", slice_of("n1", CARD))
    by_hand = {"metadata": {"name": f"gpu-alert-{CARD}.n1"}, "spec": {"taint": {"key": "x", "effect": "NoSchedule"}}}
    before = api.put("devicetaintrules", by_hand)
    assert (await replica.hear(alert()))[0] == 200
    await replica.hear(alert(status="resolved"))
    assert api.of("devicetaintrules") == [before]


async def test_the_effect_is_a_setting(api: FakeKubeApi, nursery: trio.Nursery) -> None:
    api.offer = RULES
    replica = await Replica(api, effect=Effect.NO_EXECUTE).start(nursery)
    await replica.hear(alert())
    assert {rule["spec"]["taint"]["effect"] for rule in api.of("devicetaintrules")} == {"NoExecute"}
    replica.effect = Effect.NO_SCHEDULE
    await replica.hear(alert())
    assert {rule["spec"]["taint"]["effect"] for rule in api.of("devicetaintrules")} == {"NoSchedule"}


async def test_where_rules_need_a_gate_the_nodes_plugin_is_told_too(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = UNSURE
    await replica.hear(alert())
    assert set(rules(api)) == {CARD, VF} and tainted(api) == {UID: {"reasons": {"GpuHot": True}}}
    await replica.hear(alert(status="resolved"))
    assert rules(api) == {} and tainted(api) == {}
    api.unserved.add("gpuallocationstates")
    assert (await replica.hear(alert()))[0] == 200
    assert set(rules(api)) == {CARD, VF}


# --- GpuAllocationState ------------------------------------------------------------------------------------------------------------------


async def test_classic_a_vf_taints_its_card(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = CLASSIC
    api.put("gpuallocationstates", state("n1", device(UID), device(VF_UID, parent=UID)), namespace=NAMESPACE)
    await replica.hear(alert(bdf="03:00.1"), alert("GpuNeedsReset"))
    assert tainted(api) == {UID: {"reasons": {"GpuHot/0000:03:00.1": True, "GpuNeedsReset": True}}}
    await replica.hear(alert(bdf="03:00.1", status="resolved"))
    assert tainted(api) == {UID: {"reasons": {"GpuNeedsReset": True}}}
    [stored] = api.of("gpuallocationstates")
    assert set(stored["spec"]["allocatableDevices"]) == {UID, VF_UID} and stored["status"] == "Ready"


async def test_classic_what_is_not_in_the_inventory_is_ignored(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = CLASSIC
    api.put("gpuallocationstates", state("n1", device(UID)), namespace=NAMESPACE)
    status, text = await replica.hear(alert(bdf="99:00.0"), alert(node="n2"), alert(model="0x56c1"))
    assert status == 200 and text.startswith("0 alerts taken, 3 ignored") and "n2 has no device" in text
    assert tainted(api) == {} and replica.outcomes == ["ignored"]


async def test_classic_a_taint_that_the_original_set_is_taken_back(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = CLASSIC
    api.put("gpuallocationstates", state("n1", device(UID), **{UID: {"reason": "GpuHot+GpuNeedsReset"}}), namespace=NAMESPACE)
    await replica.hear(alert("GpuHot", status="resolved"))
    assert tainted(api) == {UID: {"reason": "GpuNeedsReset"}}
    await replica.hear(alert("GpuNeedsReset", status="resolved"))
    assert tainted(api) == {}


async def test_without_rules_the_state_is_made_for_the_plugin_to_read(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = NO_RULES
    await replica.hear(alert(status="resolved"))
    assert api.of("gpuallocationstates") == []
    await replica.hear(alert(bdf="99:00.0"))
    assert api.of("gpuallocationstates") == []
    await replica.hear(alert(bdf="03:00.1"))
    [made] = api.of("gpuallocationstates")
    assert made["metadata"]["namespace"] == NAMESPACE and made["metadata"]["ownerReferences"][0]["name"] == "n1"
    assert made["spec"] == {"allocatableDevices": {}, "taintedDevices": {UID: {"reasons": {"GpuHot/0000:03:00.1": True}}}}


# --- when the API server refuses ---------------------------------------------------------------------------------------------------------


async def test_a_failure_is_told_so_that_the_notification_comes_again(
    autojump_clock: trio.testing.MockClock, api: FakeKubeApi, replica: Replica
) -> None:
    api.offer = RULES
    for verb, error in (
        ("served", Unavailable(0, "Unreachable", "connection refused")),
        ("list", Forbidden(403, "Forbidden", "no rules for you")),
        ("create", Unavailable(503, "ServiceUnavailable", "etcd")),
    ):
        api.failures.append((verb, error))
        status, text = await replica.hear(alert())
        assert status == 503 and error.message in text
    api.failures += [("create", Conflict(409, "Conflict", "somebody else"))] * 3
    assert (await replica.hear(alert()))[0] == 200
    assert set(rules(api)) == {CARD, VF}


async def test_one_nodes_trouble_is_no_others(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = CLASSIC
    api.put("gpuallocationstates", {"metadata": {"name": "n0"}, "spec": {"taintedDevices": 5}}, namespace=NAMESPACE)
    api.put("gpuallocationstates", state("n1", device(UID)), namespace=NAMESPACE)
    status, text = await replica.hear(alert(node="n0"), alert())
    assert status == 503 and "not as expected" in text
    assert api.of("gpuallocationstates")[1]["spec"]["taintedDevices"] == {UID: {"reasons": {"GpuHot": True}}}


async def test_nowhere_to_note_it(api: FakeKubeApi, replica: Replica) -> None:
    api.offer = NO_RULES
    api.unserved.add("gpuallocationstates")
    status, text = await replica.hear(alert())
    assert status == 503 and "nowhere to note taints" in text
