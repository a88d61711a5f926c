"""What the kernel's refusals mean when a card is cut or made whole, in a sentence with what an administrator can do.

Sources: drivers/pci/{iov,pci-sysfs}.c; prelim i915 gt/iov/intel_iov_provisioning.c; xe xe_pci_sriov.c, xe_gt_sriov_pf_config.c.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from dra.errors import HardwareFault
from dra.names import Bdf

_REBIND: Final = "bind its driver anew or reset it"

_NUMVFS: Final[Mapping[int, str]] = {
    errno.EBUSY: "it has VFs already, or its driver is still starting; somebody else may be changing it",
    errno.ENOENT: "its driver cannot make VFs, or none is bound (upstream i915 never can)",
    errno.ERANGE: "that is more than sriov_totalvfs allows",
    errno.ENOSPC: "there is no fair share for so many VFs: choose fewer",
    errno.ENOKEY: "a VF has only a part of its quotas: somebody else is writing quotas of this card",
    errno.EUCLEAN: "quotas of earlier VFs are left in the driver: unbind and bind its driver once",
    errno.ECANCELED: f"it is wedged: {_REBIND}",
    errno.EIO: f"its firmware does not answer: {_REBIND}",
    errno.EPERM: "making VFs is locked (debugfs lockdown_vfs_enabling), or VFs are given to a virtual machine",
    errno.EUSERS: "other users of the card forbid VFs (a debugger or profiler)",
    errno.ENODEV: "its driver does not run as the physical function",
    errno.ENOMEM: "the firmware left no room for the VFs' memory windows: switch on SR-IOV and Above 4G Decoding in the BIOS, or boot "
    "with pci=realloc",
}
_QUOTAS: Final[Mapping[int, str]] = {
    errno.EDQUOT: "it asks for more than is left of the card",
    errno.ENOSPC: "what is left of the card is in pieces: make it whole once, or choose smaller VFs",
    errno.E2BIG: "it asks for more than the card has",
    errno.EOVERFLOW: "it asks for more than the card has",
    errno.ENOKEY: "the card's firmware refused it",
    errno.EPROTO: "the card's firmware refused it",
    errno.ESTALE: "quotas of other VFs are still set: somebody else is writing quotas of this card",
    errno.EUCLEAN: "the card's tiles disagree about it: unbind and bind its driver once",
    errno.ECANCELED: f"the card is wedged: {_REBIND}",
    errno.EIO: f"the card's firmware does not answer: {_REBIND}",
    errno.EINVAL: "the driver does not know such a value",
    errno.EACCES: "the file cannot be written: /sys must be mounted writable into the pod, and the pod run as root",
    errno.EROFS: "the file cannot be written: /sys must be mounted writable into the pod",
}


def making(bdf: Bdf, count: int, error: OSError) -> HardwareFault:
    """`sriov_numvfs` refused a number of VFs."""
    return _fault(f"cannot make {count} VFs of {bdf}", _NUMVFS, error, "VfsNotMade")


def removing(bdf: Bdf, error: OSError) -> HardwareFault:
    """`sriov_numvfs` refused 0."""
    return _fault(f"cannot take the VFs of {bdf} away", _NUMVFS, error, "VfsNotRemoved")


def provisioning(bdf: Bdf, path: str, text: str, error: OSError) -> HardwareFault:
    """A quota was refused."""
    return _fault(f"cannot write {text} to {path} of {bdf}", _QUOTAS, error, "QuotaRefused")


def refused(bdf: Bdf, doing: str, error: OSError) -> HardwareFault:
    """Anything else: the card went away, most likely."""
    return _fault(f"{doing} of {bdf} failed", {}, error, "CardNotReady")


def hung(bdf: Bdf, doing: str, seconds: float) -> HardwareFault:
    """The kernel did not come back from a write."""
    return HardwareFault(
        f"{doing} of {bdf} has hung in the kernel for {seconds:.0f} s (is a VF held by a virtual machine?); nothing else is tried there "
        "until it comes back, see the kernel's log",
        reason="KernelHangs",
    )


def _fault(what: str, meanings: Mapping[int, str], error: OSError, reason: str) -> HardwareFault:
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    meaning = meanings.get(error.errno or 0, error.strerror or "no reason given")
    if error.errno in (errno.EACCES, errno.EROFS):
        meaning = _QUOTAS[error.errno]
    return HardwareFault(f"{what}: {meaning} ({name})", reason=reason)
