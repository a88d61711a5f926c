"""Quotas of prelim i915: rounding, refusals, sums, and who takes what back."""

from __future__ import annotations

import errno

import pytest

from dra import discovery
from dra.devices import State
from dra.names import Bdf
from dra.sim_kernel import tree
from dra.sim_kernel.kernel import SimKernel
from tests.fakes import machines

CLEAN, DIRTY = "0000:4d:00.0", "0000:3d:00.0"
TOTAL, SPARE, GIB = 14248 << 20, 128 << 20, 1 << 30
"""Memory of a Flex 170 with ECC."""
WHOLE_VF = {"ggtt_quota": 1 << 28, "contexts_quota": 1024, "lmem_quota": GIB}


@pytest.fixture
def kernel() -> SimKernel:
    return machines.kernel("server-8x-flex170")


def iov(kernel: SimKernel, bdf: str = CLEAN) -> str:
    card = discovery.scan(kernel).by_bdf()[Bdf(bdf)].card
    return f"sys/bus/pci/devices/{bdf}/drm/card{card}/prelim_iov"


def answered(kernel: SimKernel, path: str, text: object) -> int | None:
    try:
        kernel.write(path, str(text))
    except OSError as error:
        return error.errno
    return None


def numvfs(kernel: SimKernel, count: int, bdf: str = CLEAN) -> int | None:
    return answered(kernel, f"sys/bus/pci/devices/{bdf}/sriov_numvfs", count)


def give(kernel: SimKernel, vf: int, values: dict[str, int], *, gt: str = "gt") -> None:
    for name, value in values.items():
        kernel.write(f"{iov(kernel)}/vf{vf}/{gt}/{name}", str(value))


def values(kernel: SimKernel, vf: int, gt: str = "gt", *names: str) -> list[int]:
    names = names or ("ggtt_quota", "contexts_quota", "doorbells_quota", "lmem_quota")
    return [int(kernel.read(f"{iov(kernel)}/vf{vf}/{gt}/{name}")) for name in names]


def left(kernel: SimKernel, resource: str, kind: str = "free") -> int:
    return int(kernel.read(f"{iov(kernel)}/pf/gt/available/{resource}_{kind}"))


def automatic(kernel: SimKernel) -> bool:
    return kernel.read(f"{iov(kernel)}/pf/auto_provisioning") == "1\n"


# --- one write -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "outcome"),
    [
        ("ggtt_quota", "1", 64 << 10),
        ("ggtt_quota", "0x10001", 128 << 10),
        ("ggtt_quota", str(8 * GIB), errno.E2BIG),
        ("ggtt_quota", str(4225695744), errno.ENOSPC),  # what the PF keeps is in between: free, and not in one piece
        ("contexts_quota", "1000", 1024),
        ("contexts_quota", "65280", errno.EDQUOT),
        ("contexts_quota", "65535", errno.EOVERFLOW),
        ("contexts_quota", "65536", errno.ERANGE),
        ("doorbells_quota", "7", 7),
        ("doorbells_quota", "257", errno.EDQUOT),
        ("lmem_quota", "1", 2 << 20),
        ("lmem_quota", str(TOTAL), TOTAL),
        ("lmem_quota", str(TOTAL + 1), errno.EDQUOT),
        ("lmem_quota", str((1 << 64) - 1), errno.EOVERFLOW),
        ("lmem_quota", str(1 << 64), errno.ERANGE),
        ("exec_quantum_ms", "17", 17),
        ("preempt_timeout_us", str(1 << 32), errno.ERANGE),
        ("threshold/page_fault_count", "5", 5),
        ("lmem_quota", "some", errno.EINVAL),
        ("lmem_quota", "-1", errno.EINVAL),
    ],
)
def test_a_value_is_rounded_up_or_refused(kernel: SimKernel, name: str, text: str, outcome: int) -> None:
    path = f"{iov(kernel)}/vf3/gt/{name}"
    refused = answered(kernel, path, text)
    if refused is None:
        assert kernel.read(path) == f"{outcome}\n"
        assert not automatic(kernel), "by hand from now on"
    else:
        assert (refused, kernel.read(path)) == (outcome, "0\n")
        assert automatic(kernel)


def test_what_is_given_is_no_longer_free(kernel: SimKernel) -> None:
    before = {resource: left(kernel, resource) for resource in ("ggtt", "contexts", "doorbells", "lmem")}
    give(kernel, 1, {**WHOLE_VF, "doorbells_quota": 60})
    give(kernel, 2, {"lmem_quota": 2 * GIB})
    assert {resource: before[resource] - left(kernel, resource) for resource in before} == {
        "ggtt": 1 << 28, "contexts": 1024, "doorbells": 60, "lmem": 3 * GIB,
    }  # fmt: skip
    rest = left(kernel, "lmem")
    assert left(kernel, "lmem", "max_quota") == rest
    assert answered(kernel, f"{iov(kernel)}/vf3/gt/lmem_quota", rest + 1) == errno.EDQUOT
    give(kernel, 1, {"lmem_quota": GIB + rest})
    assert left(kernel, "lmem") == 0, "its own part counts as free to it"
    for vf in (1, 2):
        give(kernel, vf, dict.fromkeys((*WHOLE_VF, "doorbells_quota"), 0))
    assert {resource: left(kernel, resource) for resource in before} == before


def test_automatic_provisioning_comes_back_only_to_a_clean_card(kernel: SimKernel) -> None:
    auto = f"{iov(kernel)}/pf/auto_provisioning"
    assert answered(kernel, auto, "maybe") == errno.EINVAL
    for name in ("lmem_quota", "doorbells_quota", "preempt_timeout_us", "threshold/h2g_time_us"):
        give(kernel, 31, {name: 1})
        assert answered(kernel, auto, 1) == errno.ESTALE
        give(kernel, 31, {name: 0})
        assert not automatic(kernel), "nought is no request to have it back"
        assert answered(kernel, auto, 1) is None and automatic(kernel)
    assert answered(kernel, auto, 0) is None and not automatic(kernel)


# --- making VFs ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5, 31])
def test_an_even_split_fills_all_quotas_and_is_taken_back(kernel: SimKernel, count: int) -> None:
    before = {resource: left(kernel, resource) for resource in ("ggtt", "contexts", "doorbells", "lmem")}
    assert numvfs(kernel, count) is None
    shares = [values(kernel, vf) for vf in range(1, count + 1)]
    assert shares == shares[:1] * count
    ggtt, contexts, doorbells, memory = shares[0]
    assert memory == (TOTAL - SPARE) // count // (2 << 20) * (2 << 20)
    assert (ggtt % (64 << 10), contexts % 128) == (0, 0) and min(ggtt, contexts, doorbells) > 0
    assert {resource: before[resource] - left(kernel, resource) for resource in before} == {
        "ggtt": ggtt * count, "contexts": contexts * count, "doorbells": doorbells * count, "lmem": memory * count,
    }  # fmt: skip
    assert automatic(kernel)
    assert numvfs(kernel, 0) is None
    assert values(kernel, 1) == [0, 0, 0, 0] and {resource: left(kernel, resource) for resource in before} == before


def test_quotas_by_hand_stay_when_the_vfs_go(kernel: SimKernel) -> None:
    give(kernel, 1, WHOLE_VF)
    assert numvfs(kernel, 1) is None and numvfs(kernel, 0) is None
    assert values(kernel, 1, "gt", *WHOLE_VF) == list(WHOLE_VF.values()) and not automatic(kernel)


def test_a_hand_on_one_vf_in_use_makes_all_of_them_stay(kernel: SimKernel) -> None:
    assert numvfs(kernel, 2) is None
    give(kernel, 1, {"exec_quantum_ms": 8})
    assert numvfs(kernel, 0) is None
    assert all(values(kernel, vf, "gt", "lmem_quota") != [0] for vf in (1, 2))


@pytest.mark.parametrize(
    ("configured", "count", "outcome"),
    [
        ({1: WHOLE_VF, 2: WHOLE_VF}, 2, [True, True]),
        ({1: {**WHOLE_VF, "doorbells_quota": 4}}, 1, [True]),
        ({2: WHOLE_VF}, 3, [False, True, False]),
        ({9: WHOLE_VF}, 2, [False, False]),  # beyond them: nobody's, and no even split either
        ({1: {"lmem_quota": GIB}}, 1, errno.ENOKEY),
        ({1: WHOLE_VF, 2: {"ggtt_quota": 1 << 28, "contexts_quota": 128}}, 2, errno.ENOKEY),
        ({1: {"doorbells_quota": 4}}, 1, errno.ENOKEY),
        ({1: WHOLE_VF, 2: {"lmem_quota": GIB}}, 1, [True]),
    ],
)
def test_what_was_configured_decides_who_can_start(
    kernel: SimKernel, configured: dict[int, dict[str, int]], count: int, outcome: list[bool] | int
) -> None:
    for vf, quotas in configured.items():
        give(kernel, vf, quotas)
    answer = numvfs(kernel, count)
    if isinstance(outcome, int):
        assert answer == outcome
        assert discovery.scan(kernel).by_bdf()[Bdf(CLEAN)].vfs_now == 0
        return
    assert answer is None
    vfs = [gpu for gpu in discovery.scan(kernel).gpus if gpu.parent == CLEAN]
    assert [gpu.state is State.HEALTHY for gpu in vfs] == outcome
    assert {gpu.memory_bytes for gpu in vfs if gpu.state is State.HEALTHY} <= {GIB}


def test_a_vf_without_anything_starts_once_it_got_something(kernel: SimKernel) -> None:
    kernel.write(f"{iov(kernel)}/pf/auto_provisioning", "0")
    assert numvfs(kernel, 1) is None
    vf = Bdf("0000:4d:00.1")
    assert not kernel.exists(f"sys/bus/pci/devices/{vf}/driver")
    assert answered(kernel, "sys/bus/pci/drivers/i915/bind", vf) == errno.EIO
    give(kernel, 1, WHOLE_VF)
    kernel.bind(vf, "i915")
    assert discovery.scan(kernel).by_bdf()[vf].memory_bytes == GIB
    give(kernel, 1, {"lmem_quota": 2 * GIB})
    assert discovery.scan(kernel).by_bdf()[vf].memory_bytes == GIB, "the driver that runs has what it learned"
    kernel.unbind(vf)
    kernel.bind(vf, "i915")
    assert discovery.scan(kernel).by_bdf()[vf].memory_bytes == 2 * GIB


def test_a_split_that_does_not_work_out_leaves_nothing(kernel: SimKernel) -> None:
    kernel.write(f"{iov(kernel)}/pf/gt/lmem_spare", str(TOTAL))
    assert numvfs(kernel, 2) == errno.ENOSPC
    assert values(kernel, 1) == [0, 0, 0, 0]


def test_a_dirty_card_with_automatic_provisioning_is_unclean(kernel: SimKernel) -> None:
    """Which no write leads to: a document has to say so."""
    beyond = kernel._tree.lookup(f"{iov(kernel)}/vf9/gt/lmem_quota")[1]
    beyond.text = f"{GIB}\n"  # type: ignore[union-attr]
    assert numvfs(kernel, 2) == errno.EUCLEAN


def test_a_wedged_card_makes_no_vfs_and_still_takes_them_away(kernel: SimKernel) -> None:
    assert numvfs(kernel, 2) is None
    kernel.wedge(CLEAN)
    assert numvfs(kernel, 0) is None
    assert numvfs(kernel, 2) == errno.EIO


def test_the_dirty_card_is_cleaned_as_the_reference_says(kernel: SimKernel) -> None:
    where = iov(kernel, DIRTY)
    for vf in range(1, 32):
        for name in ("ggtt_quota", "contexts_quota", "doorbells_quota", "lmem_quota", "exec_quantum_ms", "preempt_timeout_us"):
            kernel.write(f"{where}/vf{vf}/gt/{name}", "0")
    kernel.write(f"{where}/pf/auto_provisioning", "1")
    assert numvfs(kernel, 4, DIRTY) is None
    assert len({gpu.memory_bytes for gpu in discovery.scan(kernel).gpus if gpu.parent == DIRTY}) == 1


def test_binding_the_driver_anew_forgets_everything(kernel: SimKernel) -> None:
    free = left(kernel, "lmem")
    give(kernel, 1, {**WHOLE_VF, "threshold/irq_time_us": 9})
    assert numvfs(kernel, 1) is None
    kernel.unbind(CLEAN)
    kernel.bind(CLEAN, "i915")
    assert values(kernel, 1, "gt", *WHOLE_VF, "threshold/irq_time_us") == [0, 0, 0, 0]
    assert automatic(kernel) and left(kernel, "lmem") == free
    assert not kernel.exists(f"{iov(kernel)}/vf1/device")


# --- two tiles -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_gts() -> SimKernel:
    """A card with a directory for each GT, as every Max has it."""
    kernel = machines.kernel("server-8x-flex170")
    directory = kernel._tree.directory(iov(kernel))
    assert directory is not None
    for part in directory.entries.values():
        if isinstance(part, tree.Directory) and (gt := part.entries.pop("gt", None)) is not None:
            assert isinstance(gt, tree.Directory)
            part.entries.update(gt0=gt, gt1=tree.copy(gt))
    return kernel


def test_every_tile_is_split_by_itself(two_gts: SimKernel) -> None:
    assert numvfs(two_gts, 2) is None
    share = (TOTAL - SPARE) // 2
    assert values(two_gts, 2, "gt0", "lmem_quota") == values(two_gts, 2, "gt1", "lmem_quota") == [share]
    assert discovery.scan(two_gts).by_bdf()[Bdf("0000:4d:00.2")].memory_bytes == 2 * share


def test_a_vf_may_live_on_one_tile(two_gts: SimKernel) -> None:
    give(two_gts, 1, WHOLE_VF, gt="gt0")
    give(two_gts, 2, WHOLE_VF, gt="gt1")
    give(two_gts, 3, {"lmem_quota": GIB}, gt="gt1")
    assert numvfs(two_gts, 3) == errno.ENOKEY
    assert numvfs(two_gts, 2) is None
    found = discovery.scan(two_gts).by_bdf()
    assert [found[Bdf(f"0000:4d:00.{vf}")].memory_bytes for vf in (1, 2)] == [GIB, GIB]
