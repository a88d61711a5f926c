"""What users write is decoded strictly, merged by precedence, and refused in one readable line."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra import opaque_config
from dra.errors import ClaimRefused
from dra.kube.claims import Config, Opaque


def entry(parameters: object, *, requests: list[str] | None = None, driver: str = "gpu.intel.com") -> Config:
    return Config("FromClaim", requests, Opaque(driver, msgspec.Raw(msgspec.json.encode(parameters))))


def config(**fields: object) -> dict[str, object]:
    return {"apiVersion": "gpu.intel.com/v1alpha1", "kind": "GpuConfig", **fields}


def test_no_configuration_means_the_plain_gpu() -> None:
    assert opaque_config.effective([], "gpu", admin=False) == opaque_config.Effective(monitor=False)


def test_later_entries_override_earlier_ones_and_silence_keeps_them() -> None:
    entries = [entry(config(monitor=True)), entry(config())]
    assert opaque_config.effective(entries, "gpu", admin=True).monitor
    entries.append(entry(config(monitor=False)))
    assert not opaque_config.effective(entries, "gpu", admin=True).monitor


@pytest.mark.parametrize(
    ("requests", "request_name", "applies"),
    [
        (None, "a", True),
        (["a"], "a", True),
        (["b"], "a", False),
        (["a"], "a/large", True),
        (["a/large"], "a/large", True),
        (["a/small"], "a/large", False),
    ],
)
def test_an_entry_applies_to_the_requests_it_names(requests: list[str] | None, request_name: str, applies: bool) -> None:
    assert opaque_config.effective([entry(config(monitor=True), requests=requests)], request_name, admin=True).monitor is applies


def test_entries_of_other_drivers_are_not_ours_to_judge() -> None:
    assert not opaque_config.effective([entry("nonsense", driver="nic.example.com")], "gpu", admin=True).monitor


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ([], "not an object"),
        ({"kind": "GpuConfig"}, "apiVersion and kind are None 'GpuConfig', want gpu.intel.com/v1alpha1 GpuConfig"),
        (config() | {"apiVersion": "gpu.intel.com/v9"}, "want gpu.intel.com/v1alpha1 GpuConfig"),
        (config(monitr=True), "unknown field `monitr`"),
        (config(monitor="yes"), "Expected `bool`, got `str` - at `$.monitor`"),
        (config(driver="vfio"), "field 'driver': 'vfio' is none of vfio-pci, xe-vfio-pci, drm"),
        (config(driver=["vfio-pci"]), "field 'driver': ['vfio-pci'] is none of"),
        (config(profile=4), "Expected `str`, got `int` - at `$.profile`"),
        (config(profile="m" * 64), "Expected `str` of length <= 63 - at `$.profile`"),
        (config(sharing={}), "field 'sharing': {} is none of exclusive, shared"),
        (config(driver="vfio-pci", monitor=True), "nothing to monitor under vfio-pci"),
        (config(driver="vfio-pci"), "field 'driver': request 'gpu' has adminAccess"),
        (config(sharing="exclusive"), "field 'sharing': request 'gpu' has adminAccess, which holds nothing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(parameters: object, words: str) -> None:
    with pytest.raises(ClaimRefused) as refused:
        opaque_config.effective([entry(parameters)], "gpu", admin=True)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.reason == "InvalidConfig"


def test_monitor_devices_need_admin_access() -> None:
    with pytest.raises(ClaimRefused, match="'gpu' has no adminAccess"):
        opaque_config.effective([entry(config(monitor=True))], "gpu", admin=False)


def test_the_driver_of_the_class_holds_until_the_claim_says_otherwise() -> None:
    entries = [entry(config(driver="vfio-pci", profile="flex170_m4"))]
    assert opaque_config.effective(entries, "gpu", admin=False) == opaque_config.Effective(driver="vfio-pci", profile="flex170_m4")
    entries.append(entry(config(driver="xe-vfio-pci", profile="")))
    assert opaque_config.effective(entries, "gpu", admin=False) == opaque_config.Effective(driver="xe-vfio-pci")
    entries.append(entry(config(driver="drm")))
    assert opaque_config.effective(entries, "gpu", admin=False, shared=True) == opaque_config.Effective()


@pytest.mark.parametrize(
    ("fields", "shared", "words"),
    [
        ({"driver": "vfio-pci"}, True, "was allocated a share, and vfio-pci would take the GPU from the others"),
        ({"sharing": "exclusive"}, True, "relies on exclusive, and was allocated a share"),
        ({"sharing": "shared"}, False, "relies on shared, and was allocated the whole device"),
    ],
)
def test_what_the_allocation_is_not_is_refused(fields: dict[str, str], shared: bool, words: str) -> None:
    with pytest.raises(ClaimRefused, match=words):
        opaque_config.effective([entry(config(**fields))], "gpu", admin=False, shared=shared)


@pytest.mark.parametrize(("sharing", "shared"), [("exclusive", False), ("shared", True)])
def test_an_allocation_of_the_wanted_kind_is_taken(sharing: str, shared: bool) -> None:
    assert opaque_config.effective([entry(config(sharing=sharing))], "gpu", admin=False, shared=shared) == opaque_config.Effective()


def test_oversized_parameters_are_refused_unread() -> None:
    with pytest.raises(ClaimRefused, match="at most 10240 are allowed"):
        opaque_config.decode(b" " * 10241)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_be_refused(data: bytes) -> None:
    with pytest.raises(ClaimRefused):
        opaque_config.decode(data)
