"""How a request is rounded by the policy of a capacity, as a table; and how quantities are written."""

from __future__ import annotations

import pytest

from dra.structured import capacities
from tools.simcluster import names, releases
from tools.simcluster.kinds import Json

RANGE: Json = {"default": "2", "validRange": {"min": "2", "max": "8", "step": "3"}}
HALVES: Json = {"default": "500m", "validRange": {"min": "500m", "step": "0.5"}}
STEPS: Json = {"default": "1Ki", "validRange": {"min": "1Ki", "step": "3072"}}
OLD = releases.release("1.36")
FINE = releases.release("1.37", gates={"DRAFractionalCapacityRange": True})


@pytest.mark.parametrize(
    ("policy", "asked", "whole", "thousandths"),
    [
        (None, None, "10", "10"),
        (None, "3", "3", "3"),
        (None, "2.5", "2500m", "2500m"),
        ({"default": "4"}, None, "4", "4"),
        ({"default": "4"}, "9", "9", "9"),
        (RANGE, None, "2", "2"),
        (RANGE, "1", "2", "2"),
        (RANGE, "2", "2", "2"),
        (RANGE, "2001m", "5", "5"),
        (RANGE, "5", "5", "5"),
        (RANGE, "5500m", "8", "8"),
        (RANGE, "9", None, None),
        (HALVES, "1200m", "2", "1500m"),
        # The same amount, in binary or, from 1.37 on, as the step is written.
        (STEPS, "3Ki", "4Ki", "4096"),
        ({"default": "1", "validValues": ["1", "4"]}, "2", "4", "4"),
        ({"default": "1", "validValues": ["1", "4"]}, "4001m", None, None),
    ],
)
def test_amounts(policy: Json | None, asked: str | None, whole: str | None, thousandths: str | None) -> None:
    offered = {"memory": {"value": "10", **({"requestPolicy": policy} if policy is not None else {})}}
    for release, expected in ((OLD, whole), (FINE, thousandths)):
        taken = capacities.taken(offered, {} if asked is None else {"memory": asked}, release)
        assert (None if taken is None else str(taken["memory"])) == expected


def test_what_the_device_does_not_have_it_cannot_give() -> None:
    assert capacities.taken({"memory": {"value": "1Gi"}}, {"cores": "1"}, OLD) is None
    assert capacities.taken({}, {}, OLD) == {}


def test_less_than_a_thousandth_cannot_be_counted() -> None:
    offered = {"memory": {"value": "10", "requestPolicy": HALVES}}
    with pytest.raises(capacities.Uncountable):
        capacities.taken(offered, {"memory": "1000001u"}, FINE)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0", "0"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("2.3Gi", "2469606195200m"),
        ("1000", "1k"),
        ("1500", "1500"),
        ("0.25", "250m"),
        ("1234567n", "1234567n"),
        ("3000000k", "3G"),
    ],
)
def test_quantities_are_written_with_the_largest_suffix(text: str, written: str) -> None:
    assert str(capacities.amount(text)) == written
    assert names.quantity(written) == names.quantity(text)
