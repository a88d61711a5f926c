"""What /version, /api and /apis say."""

from __future__ import annotations

from tools.simcluster.kinds import Json, Kind, Served
from tools.simcluster.releases import Release

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def version(release: Release) -> Json:
    return {
        "major": "1",
        "minor": str(release.minor),
        "gitVersion": release.git_version,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.24.0",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def core_versions() -> Json:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group(served: Served, name: str) -> Json | None:
    versions = served.get(name)
    if not versions or not name:
        return None
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": listed, "preferredVersion": listed[0]}


def groups(served: Served) -> Json:
    found = [group(served, name) for name in served if name]
    inner = [{key: value for key, value in each.items() if key not in ("kind", "apiVersion")} for each in found if each]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": inner}


def resources(served: Served, group_name: str, version_name: str) -> Json | None:
    found = served.get(group_name, {}).get(version_name)
    if found is None:
        return None
    listed = []
    for kind in found:
        listed.append(_resource(kind))
        if kind.has_status:
            listed.append(
                {
                    "name": f"{kind.plural}/status",
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": kind.kind,
                    "verbs": ["get", "patch", "update"],
                }
            )
    group_version = f"{group_name}/{version_name}" if group_name else version_name
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def _resource(kind: Kind) -> Json:
    return {
        "name": kind.plural,
        "singularName": kind.singular or kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": VERBS,
        **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
    }
