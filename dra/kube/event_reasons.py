"""Every reason of an Event that the programs write: the words are a contract, people's alerts and scripts look for them.

docs/reference/events.md is made from this table, and each reason has a page in docs/events.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, Literal, get_args

import msgspec

from dra.errors import DriverError

Reason = Literal[
    # claims
    "PrepareFailed",
    "UnprepareFailed",
    "OrphanedClaim",
    "OrphanedFile",
    "RecordParked",
    "TakeoverIncomplete",
    "TakeoverUnreadable",
    # health
    "GPUHealthy",
    "GPUDegraded",
    "GPUFailed",
    "GPUUnknown",
    "GPUTainted",
    "GPUWedged",
    "GPURecovered",
    "GPUNotRecovered",
    # cards that are cut, and drivers that are switched
    "LayoutPlanned",
    "LayoutImpossible",
    "CardFault",
    "CardContested",
    "CardInUse",
    "CardNotReady",
    "KernelHangs",
    "QuotaRefused",
    "VfNotReady",
    "VfsNotMade",
    "VfsNotRemoved",
    "BindFailed",
    "DeviceAbsent",
    "DeviceBusy",
    "DriverNotSwitched",
    "NotRecovered",
    "SysfsReadOnly",
    "JournalUnwritable",
    # kubelet, API server, settings
    "RegistrationRefused",
    "DRANotServed",
    "FieldsDropped",
    "NotPublishable",
    "CountersNotSupported",
    "TaintsNotSupported",
    "SharingNotSupported",
    "SettingsApplied",
    "SettingsPartly",
    "SettingsRefused",
    "SettingsInvalid",
    "SettingsUnchanged",
    "Decommissioning",
    "DecommissionFailed",
    "Decommissioned",
    "BackInService",
    # the controller's
    "SlicesMissing",
    "SlicesMissingEnded",
    "SlicesStale",
    "SlicesStaleEnded",
    "ClaimOnDeadNode",
    "ClaimOnDeadNodeEnded",
    "NoSuitableNode",
    "HandleTooLong",
    "UnknownHandle",
    "InvalidParameters",
    "ParametersNotFound",
    "ClaimRefused",
]


class On(enum.StrEnum):
    """Objects beneath which `kubectl describe` shows it."""

    NODE = "Node"
    CLAIM = "ResourceClaim"
    POD = "Pod"


class Meaning(msgspec.Struct, frozen=True):
    on: tuple[On, ...]
    text: str
    """What happened, in a sentence."""
    warning: bool = True
    """False: of type Normal."""
    controller: bool = False
    """Who writes it: the controller, or the node plugin."""
    finding: bool = False
    """It is counted in `intel_gpu_dra_findings_total` too."""


def _card(text: str) -> Meaning:
    return Meaning((On.NODE,), text, finding=True)


def _node(text: str, *, warning: bool = True) -> Meaning:
    return Meaning((On.NODE,), text, warning)


def _health(text: str, *, warning: bool = True) -> Meaning:
    return Meaning((On.NODE, On.CLAIM, On.POD), text, warning)


def _cluster(text: str, *on: On, warning: bool = True) -> Meaning:
    return Meaning(on, text, warning, controller=True)


MEANINGS: Final[Mapping[Reason, Meaning]] = {
    "PrepareFailed": Meaning((On.CLAIM, On.POD), "A claim could not be made ready; the kubelet tries again."),
    "UnprepareFailed": Meaning((On.CLAIM, On.POD), "A claim could not be taken apart; the kubelet tries again, the pod stays Terminating."),
    "OrphanedClaim": _card("A claim was gone from the API server and never unprepared: its devices were released."),
    "OrphanedFile": _card("A CDI file of a claim that nothing here holds was removed."),
    "RecordParked": _card("A line of the journal cannot be believed: the devices it may be about are kept back."),
    "TakeoverIncomplete": _card("A claim of Intel's own driver could not be taken over."),
    "TakeoverUnreadable": _card("The checkpoint of Intel's own driver cannot be read, and was left as it is."),
    "GPUHealthy": _health("A GPU is well again.", warning=False),
    "GPUDegraded": _health("A GPU works, but worse than it should."),
    "GPUFailed": _health("A GPU failed: work on it is lost or wrong."),
    "GPUUnknown": _health("Nobody can tell how a GPU is: reading its files hangs."),
    "GPUTainted": _node("A GPU that a claim holds got a taint that evicts its pods."),
    "GPUWedged": _node("The kernel gave a GPU up; it is withdrawn until its driver is bound again."),
    "GPURecovered": _node("A wedged GPU was bound anew and works.", warning=False),
    "GPUNotRecovered": _node("Binding a wedged GPU anew failed."),
    "LayoutPlanned": _node("What the settings make of a card.", warning=False),
    "LayoutImpossible": _node("What the settings want of a card cannot be had."),
    "CardFault": _card("Something of a card could not be done, for a reason without a word of its own."),
    "CardContested": _card("Somebody else keeps changing the VFs of a card."),
    "CardInUse": _card("A card cannot be cut or made whole while a claim holds it or VFs of it."),
    "CardNotReady": _card("A card went away, or did not come back, while it was cut."),
    "KernelHangs": _card("A call of a card's driver does not come back from the kernel."),
    "QuotaRefused": _card("The kernel refused a VF's share of the card."),
    "VfNotReady": _card("A VF was made, but its device nodes did not appear in time."),
    "VfsNotMade": _card("The kernel made no VFs, or fewer than it was told to."),
    "VfsNotRemoved": _card("The kernel did not take the VFs of a card away."),
    "BindFailed": _card("A kernel driver did not take a GPU."),
    "DeviceAbsent": _card("A GPU or VF went away while its driver was switched."),
    "DeviceBusy": _card("Something else has a GPU whose driver is to be switched."),
    "DriverNotSwitched": _card("A GPU could not be bound to the driver that a claim wants."),
    "NotRecovered": _card("A wedged GPU did not come back."),
    "SysfsReadOnly": _card("The plugin may not write to /sys: neither VFs nor other drivers can be had."),
    "JournalUnwritable": _card("What became of a card could not be written to the journal."),
    "RegistrationRefused": _node("The kubelet refuses the driver."),
    "DRANotServed": _node("The API server does not serve resource.k8s.io: nothing can be published."),
    "FieldsDropped": _card("The API server did not keep fields of devices that were sent to it."),
    "NotPublishable": _card("An attribute or the like is left out because the API server would refuse it."),
    "CountersNotSupported": _card("The API server keeps no shared counters (DRAPartitionableDevices): a card is offered whole or as VFs."),
    "TaintsNotSupported": _card("The API server keeps no taints of devices (DRADeviceTaints): tainted GPUs are withdrawn."),
    "SharingNotSupported": _card("The API server knows no shared devices (DRAConsumableCapacity): GPUs go to one claim at a time."),
    "SettingsApplied": _node("A changed settings file is in force.", warning=False),
    "SettingsPartly": _node("A part of a changed settings file is in force; the rest waits for a restart, or was refused.", warning=False),
    "SettingsRefused": _node("Nothing of a changed settings file could be put in force now."),
    "SettingsInvalid": _node("A changed settings file cannot be used; what was in force stays."),
    "SettingsUnchanged": _node("The settings file says again what is in force.", warning=False),
    "Decommissioning": _node("The driver is to be removed, and waits for what is still in use.", warning=False),
    "DecommissionFailed": _node(
        "Files of a driver that is to be removed cannot be removed yet; or, where that was called off, not be written again yet."
    ),
    "Decommissioned": _node("The driver is to be removed and has left nothing on the node.", warning=False),
    "BackInService": _node("The driver is not to be removed any more: its GPUs are offered again.", warning=False),
    "SlicesMissing": _cluster("The plugin is meant to run on a node and publishes nothing.", On.NODE),
    "SlicesMissingEnded": _cluster("That is over.", On.NODE, warning=False),
    "SlicesStale": _cluster("What a node publishes is not complete, or nobody serves it.", On.NODE),
    "SlicesStaleEnded": _cluster("That is over.", On.NODE, warning=False),
    "ClaimOnDeadNode": _cluster("A claim holds GPUs of a node that is gone or not Ready.", On.CLAIM),
    "ClaimOnDeadNodeEnded": _cluster("That is over.", On.CLAIM, warning=False),
    "NoSuitableNode": _cluster("No node has what the pod's claims ask for (classic DRA).", On.CLAIM, On.POD),
    "HandleTooLong": _cluster("A claim asks for more devices than its status can name (classic DRA).", On.CLAIM),
    "UnknownHandle": _cluster("An allocated claim cannot be understood; nothing more is allocated on its node (classic DRA).", On.CLAIM),
    "InvalidParameters": _cluster("Parameters of a claim or class are wrong (classic DRA).", On.CLAIM, On.POD),
    "ParametersNotFound": _cluster("Parameters that a claim or class names do not exist (classic DRA).", On.CLAIM, On.POD),
    "ClaimRefused": _cluster("A claim is refused for a reason without a word of its own (classic DRA).", On.CLAIM, On.POD),
}
"""In the order of `Reason`, which is that of the reference."""

FINDINGS: Final = tuple(reason for reason, meaning in MEANINGS.items() if meaning.finding)


def of_error(error: DriverError, otherwise: Reason) -> Reason:
    """The reason of an Event about an error. Errors have more words than Events: those of claims alone stand in a text."""
    for reason in get_args(Reason):
        if reason == error.reason:
            found: Reason = reason
            return found
    return otherwise
