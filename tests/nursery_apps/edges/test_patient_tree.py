"""Looks that hang are given up, all others are answered as they were, and nothing is written."""

from __future__ import annotations

import errno
import threading

import pytest

from dra import discovery
from nursery_apps.edges import patient_tree
from nursery_apps.edges.patient_tree import PatientTree
from tests.fakes import machines

DEVICE = "sys/bus/pci/devices/0000:18:00.0"


def test_answers_and_errors_are_those_of_the_tree() -> None:
    kernel = machines.kernel("server-4x-b60")
    patient = PatientTree(kernel)
    assert discovery.scan(patient) == discovery.scan(kernel)
    with pytest.raises(FileNotFoundError):
        patient.read(f"{DEVICE}/nothing")
    with pytest.raises(OSError, match="nothing is written") as refused:
        patient.write(f"{DEVICE}/sriov_numvfs", "1")
    assert refused.value.errno == errno.EROFS
    assert kernel.read(f"{DEVICE}/sriov_numvfs") == "0\n"


def test_a_look_that_hangs_is_left_behind_and_at_last_no_more_are_taken() -> None:
    kernel, free = machines.kernel("server-4x-b60", make_lock=threading.RLock), threading.Event()
    kernel.hang(f"*/{DEVICE[-12:]}/numa_node", "read", lambda: print(free.wait(60)))
    patient = PatientTree(kernel, seconds=0.05)
    for _ in range(patient_tree.STUCK_MOST):
        with pytest.raises(TimeoutError, match="no answer"):
            patient.read(f"{DEVICE}/numa_node")
        if _ < patient_tree.STUCK_MOST - 1:
            assert patient.read(f"{DEVICE}/vendor") == "0x8086\n"
    with pytest.raises(TimeoutError, match="already"):
        patient.read(f"{DEVICE}/vendor")
    free.set()
