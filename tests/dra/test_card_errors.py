from __future__ import annotations

import errno

import pytest

from dra import card_errors
from dra.names import Bdf

CARD = Bdf("0000:2c:00.0")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOSPC, errno.ENOKEY, errno.EUCLEAN, errno.ENOMEM, errno.ENOENT, errno.EPERM])
def test_a_refused_number_of_vfs_names_the_card_the_cause_and_the_errno(number: int) -> None:
    fault = card_errors.making(CARD, 4, OSError(number, "whatever"))
    text = str(fault)
    assert text.startswith(f"cannot make 4 VFs of {CARD}: ") and text.endswith(f"({errno.errorcode[number]})")
    assert "whatever" not in text and fault.reason == "VfsNotMade" and "\n" not in text


def test_a_refused_quota_names_the_file_and_what_was_written() -> None:
    fault = card_errors.provisioning(CARD, "vf1/gt/lmem_quota", "4227858432", OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert str(fault) == (
        "cannot write 4227858432 to vf1/gt/lmem_quota of 0000:2c:00.0: it asks for more than is left of the card (EDQUOT)"
    )


def test_an_errno_that_nobody_knows_keeps_the_kernels_word() -> None:
    assert "Exec format error (ENOEXEC)" in str(card_errors.removing(CARD, OSError(errno.ENOEXEC, "Exec format error")))


def test_a_file_that_cannot_be_written_says_how_sysfs_must_be_mounted() -> None:
    for make in (card_errors.making(CARD, 1, OSError(errno.EROFS, "")), card_errors.removing(CARD, OSError(errno.EACCES, ""))):
        assert "mounted writable" in str(make)


def test_a_hang_says_what_for_how_long_and_where_to_look() -> None:
    fault = card_errors.hung(CARD, "making VFs", 72)
    assert fault.reason == "KernelHangs" and "making VFs of 0000:2c:00.0 has hung in the kernel for 72 s" in str(fault)
