"""The command table. A new command is a module with a `COMMAND` and a line here."""

from __future__ import annotations

from typing import Final

from nursery_apps.kubectl import doctor, listing, mapping, planning, who, why
from nursery_apps.kubectl.command import Command

COMMANDS: Final[tuple[Command, ...]] = (listing.COMMAND, who.COMMAND, why.COMMAND, mapping.COMMAND, doctor.COMMAND, planning.COMMAND)
