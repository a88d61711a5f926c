"""The life of a claim on this node: every stage, every event, every transition, in one table.

`docs/states.md` is drawn from TRANSITIONS by `tools/draw_states`; a transition that is not in the table is a programming error and says
so. What is *recorded* of a stage is only what cannot be seen: GRANTED and RELEASING are intents in the journal, PREPARED is GRANTED with
every fact in place (CDI file, device nodes), so a crash or a reboot between two steps needs no case of its own.
"""

from __future__ import annotations

import enum
from typing import Final


class Stage(enum.StrEnum):
    ABSENT = "absent"
    """Nothing of the claim on this node."""
    GRANTED = "granted"
    """The journal says which devices the claim holds; hardware or CDI file may still be missing."""
    PREPARED = "prepared"
    """Granted, and everything a container needs is in place. Seen, never recorded."""
    RELEASING = "releasing"
    """The journal says the claim is being taken apart; no way back."""
    PARKED = "parked"
    """The journal has something of the claim that cannot be believed; its devices, where known, stay guarded."""


class Happening(enum.StrEnum):
    PREPARE = "prepare"
    """The kubelet (or a retry of ours) wants the claim ready."""
    COMPLETE = "complete"
    """The last missing fact came true."""
    LOST = "lost"
    """A fact went away: reboot, CDI file deleted, device node renumbered."""
    UNPREPARE = "unprepare"
    CLEARED = "cleared"
    """Hardware and CDI file are clean and the record is gone."""
    CORRUPT = "corrupt"
    """A record failed its checksum or could not be read."""


TRANSITIONS: Final[dict[Stage, dict[Happening, Stage]]] = {
    Stage.ABSENT: {
        Happening.PREPARE: Stage.GRANTED,
        Happening.UNPREPARE: Stage.ABSENT,  # success for what never was: kubelet 1.31-1.33 asks for it in ordinary operation
        Happening.CORRUPT: Stage.PARKED,
    },
    Stage.GRANTED: {
        Happening.PREPARE: Stage.GRANTED,
        Happening.COMPLETE: Stage.PREPARED,
        Happening.LOST: Stage.GRANTED,
        Happening.UNPREPARE: Stage.RELEASING,
        Happening.CORRUPT: Stage.PARKED,
    },
    Stage.PREPARED: {
        Happening.PREPARE: Stage.PREPARED,
        Happening.COMPLETE: Stage.PREPARED,
        Happening.LOST: Stage.GRANTED,
        Happening.UNPREPARE: Stage.RELEASING,
        Happening.CORRUPT: Stage.PARKED,
    },
    Stage.RELEASING: {
        Happening.UNPREPARE: Stage.RELEASING,
        Happening.LOST: Stage.RELEASING,
        Happening.CLEARED: Stage.ABSENT,
        Happening.CORRUPT: Stage.PARKED,
    },
    Stage.PARKED: {
        Happening.PREPARE: Stage.GRANTED,  # the API server knows what the claim holds; the bad record is replaced
        Happening.UNPREPARE: Stage.RELEASING,
        Happening.CORRUPT: Stage.PARKED,
    },
}


def advance(stage: Stage, happening: Happening) -> Stage:
    """The stage after `happening`.

    Raises:
        AssertionError: the table does not know it: the caller is wrong, not the claim.
    """
    try:
        return TRANSITIONS[stage][happening]
    except KeyError:
        raise AssertionError(f"a claim that is {stage} cannot meet {happening}") from None
