"""What Alertmanager sends, what the filters let pass, and which reasons are left of it."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import alerts
from dra.alerts import Alert, Filters, Malformed
from dra.names import Bdf, DeviceName

CARD, VF1, VF2 = DeviceName("0000-03-00-0-0x56c0"), DeviceName("0000-03-00-1-0x56c0"), DeviceName("0000-03-00-2-0x56c0")


def alert(name: str = "GpuHot", bdf: str = "0000:03:00.0", *, firing: bool = True) -> Alert:
    return Alert(name=name, firing=firing, node="n1", bdf=Bdf(bdf), pci_id="0x56c0")


def sent(name: str = "GpuHot", status: str = "firing", **labels: str) -> dict[str, Any]:
    return {"status": status, "labels": {"alertname": name, "node": "n1", "pci_bdf": "0000:03:00.0", "pci_dev": "0x56c0", **labels}}


def notification(*alerts: object, **group: str) -> bytes:
    return msgspec.json.encode({"version": "4", "alerts": alerts, "groupLabels": group, "truncatedAlerts": 0})


def test_a_notification_and_a_bare_array() -> None:
    for body in (notification(sent()), msgspec.json.encode([sent()])):
        found = alerts.parse(body, Filters())
        assert (found.alerts, found.ignored) == ((alert(),), ())
    assert found.alerts[0].device == CARD


@pytest.mark.parametrize(
    ("labels", "bdf", "pci_id"),
    [
        ({"pci_bdf": "03:00.0"}, "0000:03:00.0", "0x56c0"),
        ({"pci_bdf": "0000:B3:00.0", "pci_dev": "0x56C0"}, "0000:b3:00.0", "0x56c0"),
        ({"pci_bdf": "10000:03:00.0", "pci_dev": "56c0"}, "10000:03:00.0", "0x56c0"),
    ],
)
def test_addresses_and_ids_as_exporters_write_them(labels: dict[str, str], bdf: str, pci_id: str) -> None:
    [found] = alerts.parse(notification(sent(**labels)), Filters()).alerts
    assert (found.bdf, found.pci_id) == (bdf, pci_id)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "neither"),
        (b"{", "neither"),
        (b'"text"', "neither"),
        (b"{}", "neither"),
        (b"[]", "no alerts"),
        (b'{"alerts": []}', "no alerts"),
        (b'{"alerts": {}}', "neither"),
        (b'[{"labels": {"alertname": 5}}]', "neither"),
        (b"\xff[]", "neither"),
    ],
)
def test_what_is_no_notification(body: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        alerts.parse(body, Filters())


@pytest.mark.parametrize(
    ("alert", "why"),
    [
        ({"status": "firing"}, "no label alertname"),
        (sent("") | {"labels": None}, "no label alertname"),
        (sent(node=""), "no label node"),
        (sent(node="../../nodes"), "no name of a node"),
        (sent(pci_bdf="zz"), "no PCI address"),
        (sent(pci_dev="0x"), "no PCI id"),
        (sent(status="pending"), "neither firing nor resolved"),
        (sent("x" * 201), "longer than 200"),
        (sent("two\nlines"), "not printable"),
    ],
)
def test_one_that_is_wrong_is_ignored_with_a_word_and_the_others_are_not(alert: object, why: str) -> None:
    found = alerts.parse(notification(alert, sent("Other")), Filters())
    assert [one.name for one in found.alerts] == ["Other"]
    assert len(found.ignored) == 1 and why in found.ignored[0] and "\n" not in found.ignored[0]


def test_of_one_name_on_one_device_the_one_that_fires_counts() -> None:
    for both in ([sent(), sent(status="resolved")], [sent(status="resolved"), sent()]):
        assert alerts.parse(notification(*both), Filters()).alerts == (alert(),)


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(
        msgspec.json.encode
    )
)
def test_whatever_is_sent_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        alerts.parse(body, Filters())


# --- filters -----------------------------------------------------------------------------------------------------------------------------


def test_groups_with_values_of_their_own() -> None:
    made = alerts.filters(groups="service=xpu-manager,collectd:namespace=monitoring", alerts="GpuHot,GpuNeedsReset")
    assert made.groups == {"service": {"xpu-manager", "collectd"}, "namespace": {"monitoring"}}
    alerts.parse(notification(sent(), service="collectd", namespace="monitoring"), made)
    with pytest.raises(Malformed, match=r"label service .* 'monitoring'"):
        alerts.parse(notification(sent(), service="monitoring", namespace="monitoring"), made)
    with pytest.raises(Malformed, match="filtered out"):
        alerts.parse(msgspec.json.encode([sent()]), made)


def test_groups_that_share_their_values() -> None:
    made = alerts.filters(groups="service,namespace", values="xpu-manager,monitoring")
    assert made == Filters({label: frozenset({"xpu-manager", "monitoring"}) for label in ("service", "namespace")})


def test_names() -> None:
    found = alerts.parse(notification(sent("GpuHot"), sent("PodCrashed")), alerts.filters(alerts="GpuHot"))
    assert [one.name for one in found.alerts] == ["GpuHot"] and "not one of the names" in found.ignored[0]


@pytest.mark.parametrize(
    "flags",
    [
        {"groups": "service"},
        {"values": "x"},
        {"groups": "service=x", "values": "x"},
        {"groups": "service=x:service=y"},
        {"groups": "service=x:"},
        {"groups": "=x"},
        {"groups": "service=x,"},
        {"groups": "a b", "values": "x"},
        {"groups": "a,,b", "values": "x"},
        {"alerts": "a,,b"},
    ],
)
def test_filters_that_make_no_sense_are_refused(flags: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        alerts.filters(**flags)


# --- reasons -----------------------------------------------------------------------------------------------------------------------------

WHOLE = dict.fromkeys((CARD, VF1, VF2), (CARD, VF1, VF2))
ALONE = dict.fromkeys((CARD, VF1, VF2), (CARD,))


def test_two_reasons_and_one_goes() -> None:
    both, _ = alerts.after({}, [alert("GpuHot"), alert("GpuNeedsReset")], ALONE)
    assert both == {CARD: {"GpuHot", "GpuNeedsReset"}}
    one, _ = alerts.after(both, [alert("GpuHot", firing=False)], ALONE)
    assert one == {CARD: {"GpuNeedsReset"}}
    assert alerts.after(one, [alert("GpuNeedsReset", firing=False)], ALONE) == ({}, ())


def test_the_alert_of_a_vf_taints_its_card_and_one_of_another_vf_keeps_it_tainted() -> None:
    now, _ = alerts.after({}, [alert(bdf="0000:03:00.1"), alert(bdf="0000:03:00.2")], ALONE)
    assert now == {CARD: {"GpuHot/0000:03:00.1", "GpuHot/0000:03:00.2"}}
    now, _ = alerts.after(now, [alert(bdf="0000:03:00.1", firing=False)], ALONE)
    assert now == {CARD: {"GpuHot/0000:03:00.2"}}


def test_where_vfs_are_devices_of_their_own_the_whole_card_is_tainted_and_healed() -> None:
    now, _ = alerts.after({}, [alert(bdf="0000:03:00.1")], WHOLE)
    assert now == {CARD: {"GpuHot/0000:03:00.1"}, VF1: {"GpuHot"}, VF2: {"GpuHot/0000:03:00.1"}}
    assert alerts.after(now, [alert(bdf="0000:03:00.1", firing=False)], {})[0] == {}


def test_an_unknown_device_is_ignored_with_a_word() -> None:
    assert alerts.after({}, [alert()], {}) == ({}, ("GpuHot: node n1 has no device 0000-03-00-0-0x56c0",))


@given(st.lists(st.tuples(st.sampled_from(["A", "B"]), st.integers(0, 2), st.booleans()), max_size=12))
def test_what_has_been_told_twice_changes_nothing_and_all_resolved_is_clean(told: list[tuple[str, int, bool]]) -> None:
    now: alerts.Reasons = {}
    for name, function, firing in told:
        one = alert(name, f"0000:03:00.{function}", firing=firing)
        now, _ = alerts.after(now, [one], WHOLE)
        assert alerts.after(now, [one], WHOLE)[0] == now
    ended = [alert(name, f"0000:03:00.{function}", firing=False) for name in ("A", "B") for function in range(3)]
    assert alerts.after(now, ended, WHOLE)[0] == {}
