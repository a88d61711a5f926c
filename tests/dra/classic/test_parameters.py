from __future__ import annotations

from typing import Any

import pytest

from dra.classic import parameters
from dra.classic.inventory import DeviceType
from dra.classic.parameters import ClaimParameters, ClassParameters, DeviceSelector
from dra.errors import ClaimRefused
from dra.kube.classic import GpuClaimParameters, GpuClassParameters, ParametersRef
from dra.kube.meta import ObjectMeta
from tests.dra.classic.nodes import card, uid, vf

REF = {"api_group": "gpu.resource.intel.com/v1alpha2", "kind": "GpuClaimParameters", "name": "p"}


def of_claim(**spec: Any) -> ClaimParameters:
    return parameters.claim_parameters(GpuClaimParameters(metadata=ObjectMeta(name="p", namespace="ns"), spec=spec))


def of_class(**spec: Any) -> ClassParameters:
    return parameters.class_parameters(GpuClassParameters(metadata=ObjectMeta(name="p"), spec=spec))


def test_what_is_left_out_is_what_the_originals_documentation_promises() -> None:
    assert of_claim() == ClaimParameters(count=1, memory=0, millicores=0, type=DeviceType.GPU, shareable=False)
    assert of_class() == ClassParameters(shared=False, monitor=False, selectors=())


def test_a_claim_without_a_type_asks_for_a_gpu() -> None:
    """The original took an omitted type for none and never placed the claim, or allocated it with no device (S-12)."""
    assert of_claim(type="").type is of_claim(type=None).type is DeviceType.GPU


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"count": 0}, "GpuClaimParameters ns/p: spec.count: 0 is not a whole number from 1 to 640"),
        ({"count": 641}, "GpuClaimParameters ns/p: spec.count: 641 is not a whole number from 1 to 640"),
        ({"memory": 7}, "GpuClaimParameters ns/p: spec.memory: 7 is not a whole number from 8 to 1048576"),
        ({"memory": "4Gi"}, "GpuClaimParameters ns/p: spec.memory: '4Gi' is not a whole number from 8 to 1048576"),
        ({"millicores": 1001}, "GpuClaimParameters ns/p: spec.millicores: 1001 is not a whole number from 1 to 1000"),
        ({"millicores": True}, "GpuClaimParameters ns/p: spec.millicores: True is not a whole number from 1 to 1000"),
        ({"type": "vgpu"}, "GpuClaimParameters ns/p: spec.type: 'vgpu' is none of gpu, vf, any"),
        ({"shareable": "yes"}, "GpuClaimParameters ns/p: spec.shareable: 'yes' is neither true nor false"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_object(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ClaimRefused) as refused:
        of_claim(**spec)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"deviceSelector": [{"type": "fpga", "name": "*"}]}, "spec.deviceSelector[0]: type: 'fpga' is none of gpu, vf, any"),
        ({"deviceSelector": [{"type": "gpu"}]}, "spec.deviceSelector[0]: name: None is no text"),
        ({"deviceSelector": "all"}, "spec.deviceSelector: 'all' is not a list of {type, name}"),
        ({"shared": True, "monitor": True}, "spec.monitor: a monitor class holds nothing, so it cannot be shared too; leave one out"),
    ],
)
def test_the_same_of_a_class(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ClaimRefused) as refused:
        of_class(**spec)
    assert str(refused.value) == f"GpuClassParameters p: {sentence}"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", list(DeviceType))
def test_millicores_go_with_a_shared_gpu_or_a_vf_of_ones_own(shared: bool, kind: DeviceType) -> None:
    wanted = ClassParameters(shared), ClaimParameters(type=kind, millicores=100)
    if (shared, kind) in ((True, DeviceType.GPU), (False, DeviceType.VF)):
        parameters.demand(*wanted, "claim c")
    else:
        with pytest.raises(
            ClaimRefused, match=r"claim c: spec\.millicores is for type gpu of a shared class or type vf of an exclusive one"
        ):
            parameters.demand(*wanted, "claim c")


@pytest.mark.parametrize("kind", [DeviceType.VF, DeviceType.ANY])
def test_a_monitor_asks_for_gpus(kind: DeviceType) -> None:
    with pytest.raises(ClaimRefused, match="must be gpu"):
        parameters.demand(ClassParameters(monitor=True), ClaimParameters(type=kind), "claim c")


def test_parameters_are_referred_to_by_the_originals_group_with_its_version_or_by_the_group_alone() -> None:
    assert parameters.claim_name(ParametersRef(**REF), "claim c") == "p"
    assert parameters.claim_name(ParametersRef(**{**REF, "api_group": "gpu.resource.intel.com"}), "claim c") == "p"
    assert parameters.claim_name(None, "claim c") is None
    for wrong in ({"api_group": "v1"}, {"kind": "ConfigMap"}, {"kind": "GpuClassParameters"}):
        with pytest.raises(ClaimRefused, match=r"^claim c: parametersRef is .* this driver takes gpu.resource.intel.com/v1alpha2 GpuClaim"):
            parameters.claim_name(ParametersRef(**{**REF, **wrong}), "claim c")


@pytest.mark.parametrize(
    ("kind", "name", "gpu", "of_it"),
    [
        ("gpu", "*", True, True),
        ("any", "flex*", True, True),
        ("vf", "*", False, True),
        ("gpu", "0X56C0", True, True),
        ("gpu", "Arc*", False, False),
        ("gpu", uid(1), True, True),
    ],
)
def test_a_device_selector_chooses_by_type_and_by_name(kind: str, name: str, gpu: bool, of_it: bool) -> None:
    """The original stored it and never looked at it (S-25)."""
    chosen = ClassParameters(selectors=(DeviceSelector(kind, name),))
    assert chosen.admits(card(1)) is gpu
    assert chosen.admits(vf(1, 0, name=""), "Flex 170") is of_it
