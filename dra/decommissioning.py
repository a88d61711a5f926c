"""How a node is got ready for the driver's removal: what is still awaited, and what the settings mean meanwhile.

Computed from the journal and the hardware alone, so a plugin that dies on the way goes on from the facts. An empty ResourceSlice says that
a node still has something of the driver's; that there is none says that it is clean.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from dra.carvings import Carving, Uncarve
from dra.devices import Gpu
from dra.discovery import DRM_DRIVERS
from dra.errors import ClaimRefused, NotYet
from dra.health.health_settings import Health, Recovery
from dra.ledger import Change, Ledger
from dra.names import Bdf
from dra.offer import Offer
from dra.sriov_settings import Sriov

# Reasons of Events about the Node.
DECOMMISSIONING: Final = "Decommissioning"
"""Something is still awaited; the sentence says what."""
DECOMMISSIONED: Final = "Decommissioned"
"""Nothing of the driver's is left on the node."""
DECOMMISSION_FAILED: Final = "DecommissionFailed"
"""A file could not be removed, or not be written again on the way back; it is tried again."""
BACK_IN_SERVICE: Final = "BackInService"
"""The setting was taken back."""
REASONS: Final = (DECOMMISSIONING, DECOMMISSIONED, DECOMMISSION_FAILED, BACK_IN_SERVICE)

NOTHING: Final = Offer((), {}, {})
"""What is offered of a node on the way out."""

_NAMED: Final = 8
"""Of what is awaited, in one sentence; an Event holds 1 KiB."""


class Stage(enum.StrEnum):
    IN_SERVICE = "in service"
    UNDECIDED = "undecided"
    """The plugin has just started, and does not know yet what is left."""
    DRAINING = "draining"
    """Nothing is offered; something is held, or its traces are being removed."""
    CLEAN = "clean"
    """Nothing is left but what the API server has, and that goes now."""


class NotServed(ClaimRefused):
    """The claim is new here: it has to go elsewhere."""

    reason = "NotServed"

    def __init__(self) -> None:
        super().__init__(
            "the Intel GPU driver is about to be removed from this node (decommission in its settings): claims that it holds go on, new "
            "ones are not prepared; delete the pod, so that another can be scheduled elsewhere"
        )


def awaited(ledger: Ledger, gpus: Mapping[Bdf, Gpu], gone: Callable[[Bdf], bool]) -> tuple[str, ...]:
    """What has to go first, a few words each; empty when nothing of ours is held or made.

    Args:
        gpus: of the machine, by address, as far as the last scan knows.
        gone: whether there is nothing on the bus at an address. A scan that hangs, or could not read a card, knows nothing of it either.
    """
    claims = sorted(f"claim {record.namespace}/{record.name}" if record.name else f"claim {record.uid}" for record in ledger.records())
    parked = sorted(f"claim {one.uid or '?'}, of which the journal is illegible" for one in ledger.parked)
    cards = sorted(_card(carving, gpus.get(bdf)) for bdf, carving in ledger.carvings.items() if not _is_void(gpus.get(bdf), bdf, gone))
    return *claims, *parked, *cards


def sentence(what: tuple[str, ...]) -> str:
    """For people: at most some of it by name."""
    more = f" and {len(what) - _NAMED} more" if len(what) > _NAMED else ""
    return f"the driver is to be removed and nothing is offered any more; still awaited: {', '.join(what[:_NAMED])}{more}"


def last_changes(ledger: Ledger, gpus: Mapping[Bdf, Gpu], gone: Callable[[Bdf], bool]) -> list[Change]:
    """What to drop of a journal that is to go.

    Raises:
        NotYet: something is awaited.
    """
    if left := awaited(ledger, gpus, gone):
        raise NotYet(sentence(left), reason=DECOMMISSIONING)
    return [Uncarve(bdf) for bdf in ledger.carvings]


def sriov(settings: Sriov) -> Sriov:
    """What the settings for VFs mean meanwhile: none are made, and ours go with their last claim. Profiles keep their meaning for those."""
    return msgspec.structs.replace(settings, mode="off", make="lazy", keep="remove", layouts=())


def health(settings: Health) -> Health:
    """The same for health: claims go on being told of their GPUs, but no card is bound anew."""
    return msgspec.structs.replace(settings, recovery=msgspec.structs.replace(settings.recovery, mode=Recovery().mode))


def _card(carving: Carving, gpu: Gpu | None) -> str:
    count = gpu.vfs_now if gpu is not None else len(carving.layout)
    return f"{count} VFs of {carving.bdf}" if count else f"VFs of {carving.bdf}, of which quotas are left"


def _is_void(gpu: Gpu | None, bdf: Bdf, gone: Callable[[Bdf], bool]) -> bool:
    """Whether a card can have nothing of ours, whatever the journal says: VFs and quotas go with the card, and with its DRM driver."""
    return gone(bdf) if gpu is None else (gpu.driver not in DRM_DRIVERS and not gpu.vfs_now)
