"""Reviews of claims and templates in every version's shape."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import admission
from dra.admission import Malformed

HEAD = {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig"}


def config(*requests: str, driver: str = "gpu.intel.com", **fields: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"opaque": {"driver": driver, "parameters": HEAD | fields}}
    return entry | ({"requests": list(requests)} if requests else {})


def request(name: str = "gpu", *, admin: bool = False, version: str = "v1") -> dict[str, Any]:
    exact = {"deviceClassName": "gpu.intel.com", **({"adminAccess": True} if admin else {})}
    return {"name": name, "exactly": exact} if version in ("v1", "v1beta2") else {"name": name, **exact}


def claim(*entries: dict[str, Any], requests: list[dict[str, Any]] | None = None, **metadata: Any) -> dict[str, Any]:
    devices = {"requests": requests or [request()], "config": list(entries)}
    return {"metadata": metadata or {"name": "c"}, "spec": {"devices": devices}}


def review(
    body: Any,
    *,
    old: Any = None,
    kind: str = "resourceclaims",
    version: str = "v1",
    operation: str = "CREATE",
    group: str = "resource.k8s.io",
    **more: Any,
) -> bytes:
    asked = {
        "uid": "u1",
        "operation": operation,
        "resource": {"group": group, "version": version, "resource": kind},
        "namespace": "team-a",
        "object": body,
        "oldObject": old,
        "dryRun": False,
        **more,
    }
    return msgspec.json.encode({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked})


def said(data: bytes) -> tuple[bool, str]:
    verdict = admission.judge(data)
    answer = msgspec.json.decode(verdict.body)
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = answer["response"]
    assert response["uid"] == "u1"
    assert response["allowed"] is (verdict.outcome != "refused") is ("status" not in response)
    return response["allowed"], response.get("status", {}).get("message", "")


@pytest.mark.parametrize("version", ["v1", "v1beta2", "v1beta1", "v1alpha3"])
def test_good_and_bad_ones_in_every_version(version: str) -> None:
    admin = request("mon", admin=True, version=version)
    good = claim(config("gpu", sharing="exclusive"), requests=[request(version=version)])
    assert said(review(good, version=version)) == (True, "")
    assert said(review(claim(config("mon", monitor=True), requests=[admin]), version=version)) == (True, "")
    allowed, text = said(review(claim(config("gpu", monitor=True), requests=[request(version=version)]), version=version))
    assert not allowed and "has no adminAccess" in text


def test_the_message_names_object_place_request_and_field() -> None:
    allowed, text = said(review(claim(config(driver="nic.example.com"), config("gpu", profil="x"))))
    assert not allowed
    assert text.startswith("ResourceClaim team-a/c: spec.devices.config[1].opaque.parameters (for 'gpu'): ")
    assert "profil" in text
    _, text = said(review({"metadata": {"name": "t"}, "spec": claim(config(sharing="perhaps"))}, kind="resourceclaimtemplates"))
    assert text.startswith("ResourceClaimTemplate team-a/t: spec.spec.devices.config[0].opaque.parameters: ")
    assert "'sharing': 'perhaps' is none of exclusive, shared" in text
    assert "team-a/pod-*" in said(review(claim(config(monitor=5), generateName="pod-")))[1]


@pytest.mark.parametrize(
    "parameters", [None, 5, [], "text", {}, HEAD | {"kind": "Other"}, HEAD | {"driver": "nvidia"}, HEAD | {"x" * 11_000: 1}]
)
def test_parameters_that_are_not_ours_to_understand(parameters: Any) -> None:
    entry = {"opaque": {"driver": "gpu.intel.com", "parameters": parameters}}
    allowed, text = said(review(claim(entry)))
    assert not allowed and "config[0]" in text and len(text) < 1000
    assert said(review(claim({"opaque": {"driver": "nic.example.com", "parameters": parameters}}))) == (True, "")


def test_claims_of_others_pass_whatever_is_in_them() -> None:
    for body in (claim(), claim(config(driver="nic.example.com", anything=1)), {"metadata": {}, "spec": {}}):
        assert said(review(body)) == (True, "")
        assert admission.judge(review(body)).outcome == "foreign"


def test_what_contradicts_itself_is_refused_and_what_the_class_decides_is_not() -> None:
    vfio, shared, monitor = config("gpu"), config("gpu", sharing="shared"), config("gpu", monitor=True)
    vfio["opaque"]["parameters"] = HEAD | {"driver": "vfio-pci"}
    assert said(review(claim(vfio)))[0] and said(review(claim(shared)))[0]
    assert "would take the GPU from the others" in said(review(claim(vfio, shared)))[1]
    assert "nothing to monitor" in said(review(claim(vfio, monitor, requests=[request(admin=True)])))[1]
    assert "never changes a device" in said(review(claim(vfio, requests=[request(admin=True)])))[1]


def test_a_request_that_may_be_anothers_is_not_judged() -> None:
    both = [request("gpu"), request("nic", admin=True)]
    for_all = config()
    for_all["opaque"]["parameters"] = HEAD | {"driver": "vfio-pci"}
    assert said(review(claim(for_all, requests=both)))[0]
    assert not said(review(claim({**for_all, "requests": ["nic"]}, requests=both)))[0]
    assert not said(review(claim(for_all, requests=both[1:])))[0]


def test_alternatives_are_named_with_their_request() -> None:
    listed = {"name": "any", "firstAvailable": [{"name": "big"}, {"name": "small"}]}
    assert "'any/small'" in said(review(claim(config("any/small", monitor=True), requests=[listed])))[1]
    assert said(review(claim(config("any/small", profile="flex170_m4"), requests=[listed])))[0]


def test_what_was_stored_before_can_still_be_changed() -> None:
    old = claim(config(profil="x"))
    finished = {**old, "metadata": {"name": "c", "finalizers": []}}
    assert said(review(finished, old=old, operation="UPDATE"))[0]
    assert not said(review(claim(config(profil="y")), old=old, operation="UPDATE"))[0]


def test_what_is_none_of_our_business() -> None:
    bad = claim(config(profil="x"))
    assert said(review(None, old=bad, operation="DELETE"))[0]
    assert said(review(bad, kind="deviceclasses"))[0]
    assert said(review(bad, group="example.com"))[0]
    assert said(review(bad, subResource="status", operation="UPDATE"))[0]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "AdmissionReview"),
        (b"[]", "AdmissionReview"),
        (b"\xff", "AdmissionReview"),
        (b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}', "want admission.k8s.io/v1"),
        (b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}', "no request"),
        (b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u"}}', "operation"),
        (review(claim(), uid=""), "no uid"),
        (review(None), r"request\.object"),
        (review({"spec": {"devices": {"config": [{"opaque": {"driver": 5}}]}}}), r"request\.object: .*driver"),
        (review(claim(), operation="UPDATE"), r"request\.oldObject"),
    ],
)
def test_a_review_that_makes_no_sense_gets_no_verdict(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        admission.judge(data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(_json)
def test_whatever_somebody_writes_gets_a_verdict(parameters: Any) -> None:
    said(review(claim({"opaque": {"driver": "gpu.intel.com", "parameters": parameters}})))


@given(_json | st.binary())
def test_whatever_is_sent_is_judged_or_refused(data: Any) -> None:
    for body in (data if isinstance(data, bytes) else msgspec.json.encode(data), b"" if isinstance(data, bytes) else review(data)):
        with contextlib.suppress(Malformed):
            admission.judge(body)
