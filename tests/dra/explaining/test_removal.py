"""What the plugin of a node said last of the driver's removal."""

from __future__ import annotations

import pytest

from dra.explaining.removal import leaving
from tests.fakes import gpu_clusters as world
from tests.fakes.gpu_clusters import said_of_node

EARLY, LATE = "2026-11-26T11:00:00Z", "2026-11-26T11:30:00Z"


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([], ""),
        ([said_of_node("n1", "Decommissioning", "claim a is awaited")], "claim a is awaited"),
        ([said_of_node("n2", "Decommissioning", "claim a is awaited")], ""),
        ([said_of_node("n1", "GPUFailed", "hot")], ""),
        ([said_of_node("n1", "Decommissioned", "clean", LATE), said_of_node("n1", "Decommissioning", "a is awaited", EARLY)], "clean"),
        ([said_of_node("n1", "Decommissioning", "a is awaited", EARLY), said_of_node("n1", "BackInService", "no more", LATE)], ""),
        ([said_of_node("n1", "BackInService", "no more", EARLY), said_of_node("n1", "Decommissioning", "again", LATE)], "again"),
    ],
)
def test_the_newest_word_holds(events: list[world.Json], told: str) -> None:
    assert leaving(world.cluster(events=events), "n1") == told
