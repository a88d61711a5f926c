"""The verbs, with the rules the real server has for them; synchronous, on objects in the held shape."""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from tools.simcluster import claim_rules, custom_kinds, gated, kinds, names, pod_claims, refusals, slice_rules
from tools.simcluster.classic import rules as classic_rules
from tools.simcluster.kinds import (
    CLAIM,
    DEFINITION,
    DEVICE_CLASS,
    EVENT,
    NAMESPACE,
    NODE,
    POD,
    RESOURCE_GROUP,
    SCHEDULING,
    SLICE,
    TAINT_RULE,
    TEMPLATE,
    Json,
    Kind,
    Served,
)
from tools.simcluster.refusals import Cause
from tools.simcluster.releases import Release
from tools.simcluster.store import Store

_SUFFIX: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Letters of generated names: no vowels and no 0, 1, 3, as with Kubernetes, so that no words come out."""
_SERVER_OWNED: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "namespace", "name")


class Registry:
    def __init__(self, store: Store, release: Release, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.store, self._now = store, now
        self.release = release
        """May be exchanged: gates are switched and servers upgraded over the same objects."""
        self.said: dict[tuple[str, str, str], str] = {}
        """Events that the control plane wrote: UID of what it is about, reason, message -> name."""
        self._random = random.Random()
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.create(NAMESPACE, {"metadata": {"name": name}})

    def timestamp(self, *, micro: bool = False) -> str:
        """RFC 3339 in UTC: `2026-01-31T09:00:00Z`."""
        return self._now().isoformat(timespec="microseconds" if micro else "seconds").replace("+00:00", "Z")

    # --- reading -----------------------------------------------------------------------------------------------------------------

    def served(self) -> Served:
        """What the release serves, and custom resources."""
        found = kinds.served(self.release)
        custom_kinds.serve(self.store, found)
        return found

    def kinds(self) -> list[Kind]:
        """All that can have objects, each once."""
        return [*kinds.ALL, *(custom_kinds.kind(definition) for definition in self.store.each(DEFINITION))]

    def upgrade(self, release: Release) -> None:
        """Another release over the same objects. Between v1alpha2 and what came after it nothing is converted: claims and classes go."""
        if release.is_classic != self.release.is_classic:
            for kind in kinds.ALL:
                for body in self.store.all(kind) if kind.group == RESOURCE_GROUP else ():
                    self.store.remove(kind, body["metadata"].get("namespace", ""), body["metadata"]["name"])
        self.release = release
        self.store.wake()

    def kind(self, api_version: str, name: str) -> Kind:
        """The kind of a manifest with this apiVersion and kind, whichever version of its group that is.

        Raises:
            Refused: 404, it is not served.
        """
        for listed in self.served().get(api_version.rpartition("/")[0], {}).values():
            for found in listed:
                if found.kind == name:
                    return found
        raise refusals.Refused(404, "NotFound", f'no matches for kind "{name}" in version "{api_version}"')

    def get(self, kind: Kind, name: str, namespace: str = "") -> Json:
        found = self.store.get(kind, namespace, name)
        if found is None:
            raise refusals.not_found(kind, name)
        return found

    # --- creating ----------------------------------------------------------------------------------------------------------------

    def create(self, kind: Kind, body: Json, namespace: str = "", *, dry_run: bool = False) -> Json:
        """
        Raises:
            Refused: 400, 403, 404, 409 or 422.
        """
        metadata = _metadata(body)
        name = metadata.get("name") or ""
        if not name and (prefix := metadata.get("generateName")):
            # 58 characters and five of our own make the 63 of a label.
            name = prefix[:58] + "".join(self._random.choices(_SUFFIX, k=5))
        if not name:
            raise refusals.invalid(
                kind, "", [Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")]
            )
        if metadata.get("resourceVersion"):
            raise refusals.bad_request("resourceVersion should not be set on objects to be created")
        if kind.namespaced:
            if metadata.get("namespace", namespace) != namespace:
                raise refusals.bad_request("the namespace of the provided object does not match the namespace sent on the request")
            if self.store.get(NAMESPACE, "", namespace) is None:
                raise refusals.not_found(NAMESPACE, namespace)
        if not names.subdomain(name):
            raise refusals.invalid(kind, name, [Cause("metadata.name", f'Invalid value: "{name}": {names.SUBDOMAIN_RULE}')])
        if self.store.get(kind, namespace, name) is not None:
            raise refusals.exists(kind, name)
        metadata = {key: value for key, value in metadata.items() if key not in _SERVER_OWNED and value not in (None, [], {}, "")}
        metadata |= {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": self.timestamp(), "generation": 1}
        if kind.namespaced:
            metadata["namespace"] = namespace
        new = {**body, "metadata": metadata}
        if kind in (CLAIM, TAINT_RULE, POD, SCHEDULING, DEFINITION) or (kind.is_custom and kind.has_status):
            new.pop("status", None)
        new = self._finished(kind, new, None)
        self._check(kind, new, None)
        return new if dry_run else self.store.put(kind, new)

    # --- changing ----------------------------------------------------------------------------------------------------------------

    def replace(self, kind: Kind, name: str, body: Json, namespace: str = "", *, subresource: str = "", dry_run: bool = False) -> Json:
        """PUT: what `body` says, within what the (sub)resource lets one change. No write if nothing differs.

        Raises:
            Refused: 400, 403, 404, 409 or 422.
        """
        old = self.get(kind, name, namespace)
        metadata = _metadata(body)
        if metadata.get("name", name) != name or metadata.get("namespace", namespace) != namespace:
            raise refusals.bad_request("the name or namespace of the object does not match the one in the URL")
        was = old["metadata"]
        if metadata.get("uid") not in (None, "", was["uid"]):
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {was['uid']}"
            raise refusals.conflict(kind, name, why)
        version = metadata.get("resourceVersion")
        if version and version != was["resourceVersion"]:
            raise refusals.conflict(kind, name)
        if not version and (kind.needs_version or (kind is TAINT_RULE and not subresource and self.release.minor >= 37)):
            text = "Invalid value: 0: must be specified for an update"
            raise refusals.invalid(kind, name, [Cause("metadata.resourceVersion", text)])
        if subresource == "status":
            new = {**old, "status": body.get("status") or {}}
            new["metadata"] = {**was, "managedFields": metadata.get("managedFields", was.get("managedFields"))}
            if kind in (NODE, POD):
                new["metadata"] |= {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
        else:
            kept = {key: was[key] for key in _SERVER_OWNED if key in was}
            allowed = {key: value for key, value in metadata.items() if key not in _SERVER_OWNED and value not in (None, [], {}, "")}
            new = {**body, "metadata": {**allowed, **kept}}
            if kind.has_status:
                new.pop("status", None)
                if "status" in old:
                    new["status"] = old["status"]
        new["metadata"] = {key: value for key, value in new["metadata"].items() if value is not None}
        new["metadata"]["resourceVersion"] = was["resourceVersion"]
        new = self._finished(kind, new, old)
        self._check(kind, new, old)
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": was.get("generation", 1) + 1}
        if dry_run:
            return new
        if was.get("deletionTimestamp") and not new["metadata"].get("finalizers") and was.get("finalizers"):
            self.store.put(kind, new)
            return self._remove(kind, namespace, name)
        return self.store.put(kind, new)

    def amend(self, kind: Kind, held: Json, change: Callable[[Json], None], *, subresource: str = "") -> Json:
        """Read, change a copy, write: what a controller does when it is alone. The newest state is what is changed.

        Raises:
            Refused: as `replace`; 404 if the object is gone.
        """
        metadata = held["metadata"]
        now = copy.deepcopy(self.get(kind, metadata["name"], metadata.get("namespace", "")))
        change(now)
        return self.replace(kind, metadata["name"], now, metadata.get("namespace", ""), subresource=subresource)

    # --- deleting ----------------------------------------------------------------------------------------------------------------

    def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Returns the object as it was last, or as it is while finalizers or a kubelet hold it.

        Raises:
            Refused: 404, or 409 for a precondition that fails.
        """
        old = self.get(kind, name, namespace)
        was = old["metadata"]
        if uid and uid != was["uid"]:
            raise refusals.conflict(kind, name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {was['uid']}")
        if resource_version and resource_version != was["resourceVersion"]:
            why = f"Precondition failed: ResourceVersion in precondition: {resource_version}, ResourceVersion in object meta: "
            raise refusals.conflict(kind, name, why + was["resourceVersion"])
        if dry_run:
            return old
        grace = 0
        if kind is POD and old.get("spec", {}).get("nodeName") and old.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            grace = old["spec"].get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
        if grace > 0 or was.get("finalizers"):
            if was.get("deletionTimestamp") and was.get("deletionGracePeriodSeconds", 0) <= grace:
                return old
            marked = {**was, "deletionTimestamp": self.timestamp(), "deletionGracePeriodSeconds": grace}
            return self.store.put(kind, {**old, "metadata": marked})
        return self._remove(kind, namespace, name)

    def _remove(self, kind: Kind, namespace: str, name: str) -> Json:
        """A definition takes its objects with it."""
        if kind is DEFINITION:
            custom = custom_kinds.kind(self.get(DEFINITION, name))
            for body in self.store.all(custom):
                self.store.remove(custom, body["metadata"].get("namespace", ""), body["metadata"]["name"])
        return self.store.remove(kind, namespace, name)

    # --- rules -------------------------------------------------------------------------------------------------------------------

    def _finished(self, kind: Kind, new: Json, old: Json | None) -> Json:
        """Defaults, and without what a gate or a schema forbids."""
        if kind.is_custom:
            return custom_kinds.complete(self.store, kind, new)
        if kind is DEFINITION:
            return custom_kinds.defaulted(new, self.timestamp())
        if kind.group == RESOURCE_GROUP and self.release.is_classic:
            return classic_rules.defaulted(kind, new)
        new = gated.drop(kind, new, old, self.release)
        if kind is SLICE:
            return slice_rules.defaulted(new, old, self.timestamp())
        if kind in (CLAIM, TEMPLATE):
            return claim_rules.defaulted(kind, new)
        if kind is POD:
            spec = {
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "schedulerName": "default-scheduler",
                **new.get("spec", {}),
            }
            new = {**new, "spec": spec, "status": {"phase": "Pending", **new.get("status", {})}}
            return pod_claims.known(new, is_classic=self.release.is_classic)
        if kind is EVENT:
            return {"involvedObject": {}, **new}
        if kind is NAMESPACE:
            labels = {**new["metadata"].get("labels", {}), "kubernetes.io/metadata.name": new["metadata"]["name"]}
            return {**new, "metadata": {**new["metadata"], "labels": labels}, "status": {"phase": "Active", **new.get("status", {})}}
        return new

    def _check(self, kind: Kind, new: Json, old: Json | None) -> None:
        name = new["metadata"]["name"]
        causes: list[Cause] = []
        if kind.is_custom:
            causes = custom_kinds.faults(self.store, kind, new)
        elif kind is DEFINITION:
            causes = custom_kinds.definition_faults(new, old)
        elif kind.group == RESOURCE_GROUP and self.release.is_classic:
            causes = classic_rules.faults(kind, new, old)
        elif kind is SLICE:
            causes = slice_rules.faults(new, old, self.release)
        elif kind in (CLAIM, TEMPLATE):
            causes = claim_rules.faults(kind, new, old, self.release)
            self._check_admin_access(kind, new, old)
        elif kind is DEVICE_CLASS:
            causes = claim_rules.class_faults(new, self.release)
        elif kind is EVENT:
            causes = _event_faults(new)
        elif kind is POD and old is not None and (was := old["spec"].get("nodeName")) and new["spec"].get("nodeName") != was:
            causes = [Cause("spec.nodeName", "Forbidden: pod updates may not change fields other than a few", "FieldValueForbidden")]
        elif kind is POD and old is None and self.release.is_classic:
            causes = pod_claims.faults(new)
        if causes:
            raise refusals.invalid(kind, name, causes)

    def _check_admin_access(self, kind: Kind, new: Json, old: Json | None) -> None:
        label = self.release.admin_label
        if old is not None or label is None or not claim_rules.wants_admin_access(kind, new):
            return
        namespace = self.get(NAMESPACE, new["metadata"]["namespace"])
        if (namespace["metadata"].get("labels") or {}).get(label) != "true":
            where = "spec.devices.requests[0].exactly.adminAccess" if kind is CLAIM else "spec.spec.devices.requests[0].exactly.adminAccess"
            text = f"Forbidden: admin access to devices requires the `{label}: true` label on the containing namespace"
            raise refusals.invalid(kind, new["metadata"]["name"], [Cause(where, text, "FieldValueForbidden")])


def _event_faults(event: Json) -> list[Cause]:
    """An event lives where what it is about lives; about what has no namespace, in `default`."""
    about, namespace = event["involvedObject"].get("namespace", ""), event["metadata"]["namespace"]
    if about in (namespace, "") and (about or namespace == "default"):
        return []
    return [Cause("involvedObject.namespace", f'Invalid value: "{about}": does not match event.namespace')]


def _metadata(body: Any) -> Json:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(metadata, dict):
        raise refusals.bad_request("the object provided is unrecognized: no metadata")
    return metadata
