"""The Job that runs before the driver is removed may do what it does, and runs what there is."""

from __future__ import annotations

from nursery_apps.controller import flags
from tests.manifests.rendered import one, read, rights

DOCS = read("cleanup")


def never(options: object) -> int:
    raise AssertionError


def test_it_may_do_what_it_does_and_no_more() -> None:
    assert rights(one(DOCS, "ClusterRole")) == {
        *(("resourceslices", verb) for verb in ("list", "watch", "delete")),
        *((kind, verb) for kind in ("resourceclaims", "nodes") for verb in ("list", "watch")),
        *(("devicetaintrules", verb) for verb in ("list", "delete")),
    }
    assert rights(one(DOCS, "Role")) == {
        *(("configmaps", verb) for verb in ("get", "patch")),
        *(("pods", verb) for verb in ("list", "watch")),
        *(("gpuallocationstates", verb) for verb in ("list", "watch", "delete")),
        *(("leases", verb) for verb in ("list", "delete")),
    }


def test_it_runs_the_command_on_the_settings_that_it_may_change() -> None:
    [container] = one(DOCS, "Job")["spec"]["template"]["spec"]["containers"]
    options = flags.parser({}, run=never, plan=never, taint=never, cleanup=never).parse_args(container["args"])
    assert container["command"] == ["gpu-controller"]
    assert [rule["resourceNames"] for rule in one(DOCS, "Role")["rules"] if rule["resources"] == ["configmaps"]] == [
        [options.settings_config_map]
    ]
