"""A simulated kernel whose callers can die around a write: the machine goes on without them."""

from __future__ import annotations

from dra.sim_kernel.kernel import SimKernel
from tests.fakes.state_dir import Power, PowerCut


class CutKernel(SimKernel):
    """A kernel whose callers can be gone before a write, or after it and before they know."""

    power = Power()

    def write(self, path: str, text: str) -> None:
        self._point()
        super().write(path, text)
        self._point()

    def _point(self) -> None:
        if self.power.point():
            raise PowerCut
