"""The fake kernel, and what stat(2) wants to know of it."""

from __future__ import annotations

from dra.sim_kernel import tree
from dra.sim_kernel.kernel import SimKernel


class EntryKernel(SimKernel):
    """The seam hides what an entry is until it is used; a file system is asked that first, and asking must trip no fault."""

    def entry(self, path: str) -> tree.Entry:
        """The entry at a path, a link itself; only to be looked at.

        Raises:
            OSError: as `tree.Tree.lookup`.
        """
        with self._lock:
            return self._tree.lookup(path, follow=False)[1]
