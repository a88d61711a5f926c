from __future__ import annotations

import msgspec

from dra import election
from dra.election import Seen
from dra.kube.classic import Lease


def lease(holder: str | None, *, renewed: str = "2026-01-01T00:00:00.000000Z", lasts: int = 15, transitions: int = 3) -> Lease:
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": lasts, "leaseTransitions": transitions}
    return msgspec.convert({"metadata": {"name": "l", "uid": "u", "resourceVersion": "9"}, "spec": spec}, Lease)


def test_a_lease_that_does_not_change_runs_out_by_the_clock_of_who_looks() -> None:
    seen = election.looked(None, lease("other"), now=100.0)
    assert not election.may_take(seen, "me", now=114.9)
    assert election.may_take(election.looked(seen, lease("other"), now=110.0), "me", now=115.0)
    renewed = election.looked(seen, lease("other", renewed="1970-01-01T00:00:00.000000Z"), now=114.0)
    assert not election.may_take(renewed, "me", now=120.0), "any change is a sign of life, whatever the times in it say"


def test_a_lease_is_free_when_it_is_ours_or_nobodys() -> None:
    for holder in ("me", "", None):
        assert election.may_take(Seen(lease(holder), 0.0), "me", now=0.0)


def test_a_lease_that_was_made_anew_is_looked_at_anew() -> None:
    seen = election.looked(None, lease("other"), now=0.0)
    anew = msgspec.structs.replace(lease("other"), metadata=msgspec.structs.replace(lease("other").metadata, uid="v"))
    assert election.looked(seen, anew, now=14.0).since == 14.0


def test_taking_over_counts_and_renewing_does_not() -> None:
    at = 1_800_000_000.5
    taken = election.taken(lease("other"), "me", at)
    assert taken["metadata"] == {"uid": "u", "resourceVersion": "9"}
    assert taken["spec"]["leaseTransitions"] == 4 and taken["spec"]["acquireTime"] == taken["spec"]["renewTime"] == election.timestamp(at)
    assert "leaseTransitions" not in election.taken(lease("me"), "me", at)["spec"]


def test_times_are_as_kubernetes_writes_them() -> None:
    assert election.timestamp(1_800_000_000.25) == "2027-01-15T08:00:00.250000Z"
