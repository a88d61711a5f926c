"""Which pods name which claims and templates, so that nobody has to look through all of them."""

from __future__ import annotations

from tools.simcluster import pod_claims
from tools.simcluster.kinds import POD, Json, Kind
from tools.simcluster.store import Change, Key, Store


class Users:
    """Tell `note` of every write, before anybody asks."""

    def __init__(self, store: Store) -> None:
        self._claims: dict[Key, set[Key]] = {}
        self._templates: dict[Key, set[Key]] = {}
        for pod in store.each(POD):
            self._enter(pod)

    def note(self, kind: Kind, change: Change) -> None:
        if kind is not POD:
            return
        if change.before is not None:
            self._strike(change.before)
        if change.type != "DELETED":
            self._enter(change.object)

    def of_claim(self, claim: Key) -> list[Key]:
        return sorted(self._claims.get(claim, ()))

    def of_template(self, template: Key) -> list[Key]:
        return sorted(self._templates.get(template, ()))

    def _enter(self, pod: Json) -> None:
        for table, key in self._named(pod):
            table.setdefault(key, set()).add(key_of(pod))

    def _strike(self, pod: Json) -> None:
        for table, key in self._named(pod):
            if (users := table.get(key)) is not None:
                users.discard(key_of(pod))
                if not users:
                    del table[key]

    def _named(self, pod: Json) -> list[tuple[dict[Key, set[Key]], Key]]:
        if not pod["spec"].get("resourceClaims"):
            return []
        namespace = pod["metadata"]["namespace"]
        found = [(self._claims, (namespace, claim)) for _, claim in pod_claims.claim_names(pod) if claim]
        found += [(self._templates, (namespace, entry.template)) for entry in pod_claims.entries(pod) if entry.template]
        return found


def key_of(body: Json) -> Key:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]
