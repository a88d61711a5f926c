"""What a path names."""

from __future__ import annotations

import msgspec

from tools.simcluster import shapes
from tools.simcluster.kinds import Json, Kind


class Target(msgspec.Struct, frozen=True):
    kind: Kind
    version: str
    namespace: str
    name: str
    subresource: str

    def wire(self, held: Json) -> Json:
        return shapes.to_wire(self.kind, self.version, held)
