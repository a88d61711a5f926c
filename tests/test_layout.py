"""The shape of the tree: a test for every module, short modules, honest names. What import-linter and ruff cannot see."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LONGEST = 400
"""Lines of a module; one that grows beyond it holds two nouns."""

DRAWERS = ("manager", "helper", "handler", "util", "common", "misc")
"""Words that say nothing of what is inside. Compounds of ours end in one of them only by accident."""

TESTED_ELSEWHERE = {
    "dra/classic/names.py": "tests/nursery_apps/controller/test_bookkeeper.py",
    "dra/devices.py": "tests/dra/test_discovery.py",
    "dra/drm_nodes.py": "tests/dra/test_discovery.py",
    "dra/errors.py": "tests/dra/test_preparation.py",
    "dra/gpu_memory.py": "tests/dra/test_discovery.py",
    "dra/health/facts.py": "tests/dra/health/test_verdict.py",
    "dra/health/figures.py": "tests/dra/health/test_readings.py",
    "dra/health/gts.py": "tests/dra/health/test_readings.py",
    "dra/health/limits.py": "tests/dra/health/test_thresholds.py",
    "dra/health/monitors.py": "tests/dra/health/test_readings.py",
    "dra/health/rates.py": "tests/dra/health/test_thresholds.py",
    "dra/health/told.py": "tests/nursery_apps/node/health/test_stream.py",
    "dra/kernel_tree.py": "tests/contracts/test_kernel_tree.py",
    "dra/kube/claims.py": "tests/dra/test_allocation.py",
    "dra/kube/classic.py": "tests/nursery_apps/controller/test_allocator.py",
    "dra/kube/events.py": "tests/nursery_apps/test_announcer.py",
    "dra/kube/meta.py": "tests/contracts/test_kube_api.py",
    "dra/kube/node.py": "tests/nursery_apps/node/test_own_node.py",
    "dra/kube/watched.py": "tests/dra/test_cluster_watch.py",
    "dra/names.py": "tests/dra/test_slices.py",
    "dra/pcie_slot.py": "tests/dra/health/test_readings.py",
    "dra/pool.py": "tests/dra/test_slice_plan.py",
    "dra/records.py": "tests/dra/test_journal.py",
    "dra/slice_contents.py": "tests/dra/test_slices.py",
    "dra/slice_features.py": "tests/nursery_apps/node/test_publisher.py",
    "dra/sriov.py": "tests/dra/test_discovery.py",
    "dra/sysfs.py": "tests/dra/test_discovery.py",
    "nursery_apps/controller/claim_writer.py": "tests/nursery_apps/controller/test_allocator.py",
    "nursery_apps/controller/classic.py": "tests/nursery_apps/controller/test_allocator.py",
    "nursery_apps/controller/flags.py": "tests/nursery_apps/controller/test_main.py",
    "nursery_apps/controller/kinds.py": "tests/nursery_apps/controller/test_allocator.py",
    "nursery_apps/controller/parts.py": "tests/scenarios/test_classic_stories.py",
    "nursery_apps/controller/stores.py": "tests/nursery_apps/controller/test_allocator.py",
    "nursery_apps/controller/tainter.py": "tests/nursery_apps/controller/test_alert_receiver.py",
    "nursery_apps/controller/waiting.py": "tests/nursery_apps/controller/test_allocator.py",
    "nursery_apps/credentials.py": "tests/nursery_apps/edges/test_kubeconfig.py",
    "nursery_apps/edges/kube_link.py": "tests/nursery_apps/edges/test_kube_api.py",
    "nursery_apps/edges/state_dir.py": "tests/contracts/test_state_dir.py",
    "nursery_apps/edges/text_files.py": "tests/nursery_apps/test_fresh.py",
    "nursery_apps/edges/udev.py": "tests/contracts/test_device_events.py",
    "nursery_apps/edges/unix_socket.py": "tests/contracts/test_grpc.py",
    "nursery_apps/node/allocations.py": "tests/nursery_apps/node/test_desk.py",
    "nursery_apps/node/app.py": "tests/scenarios/test_node_stories.py",
    "nursery_apps/node/card_owner.py": "tests/nursery_apps/node/test_cards.py",
    "nursery_apps/node/health/kernel_files.py": "tests/nursery_apps/node/health/test_watch.py",
    "nursery_apps/node/health/monitor.py": "tests/nursery_apps/node/health/test_watch.py",
    "nursery_apps/node/rebinder.py": "tests/nursery_apps/node/test_cards.py",
    "nursery_apps/node/claim_desk.py": "tests/nursery_apps/node/test_desk.py",
    "nursery_apps/node/claim_lookup.py": "tests/nursery_apps/node/test_reconciler.py",
    "nursery_apps/node/claim_reader.py": "tests/scenarios/test_known_bugs.py",
    "nursery_apps/node/classic/side.py": "tests/scenarios/test_classic_stories.py",
    "nursery_apps/node/dra_side.py": "tests/scenarios/test_node_stories.py",
    "nursery_apps/node/kept_features.py": "tests/nursery_apps/node/test_publisher.py",
    "nursery_apps/node/offering.py": "tests/nursery_apps/node/test_publisher.py",
    "nursery_apps/node/parts.py": "tests/scenarios/test_node_stories.py",
    "nursery_apps/node/preparer.py": "tests/nursery_apps/node/test_desk.py",
    "nursery_apps/node/reporter.py": "tests/scenarios/test_node_stories.py",
    "nursery_apps/node/structured.py": "tests/scenarios/test_node_stories.py",
    "nursery_apps/rpc.py": "tests/contracts/test_grpc.py",
    "nursery_apps/seams.py": "tests/contracts/test_kube_api.py",
    "nursery_apps/tls.py": "tests/nursery_apps/edges/test_kube_api.py",
    "dra/explaining/classic_claims.py": "tests/scenarios/test_kubectl_stories.py",
    "dra/explaining/classic_gpus.py": "tests/scenarios/test_kubectl_stories.py",
    "dra/explaining/cluster.py": "tests/dra/explaining/test_explain.py",
    "dra/explaining/gpus.py": "tests/dra/explaining/test_slice_gpus.py",
    "dra/explaining/happenings.py": "tests/dra/explaining/test_explain.py",
    "dra/explaining/pod_claims.py": "tests/dra/explaining/test_explain.py",
    "dra/explaining/structured_claims.py": "tests/dra/explaining/test_explain.py",
    "dra/explaining/verdicts.py": "tests/dra/explaining/test_requests.py",
    "dra/structured/allocator.py": "tests/tools/simcluster/test_allocator.py",
    "dra/structured/amounts.py": "tests/tools/simcluster/test_capacities.py",
    "dra/structured/capacities.py": "tests/tools/simcluster/test_capacities.py",
    "dra/structured/expressions.py": "tests/tools/simcluster/test_allocator.py",
    "dra/structured/holdings.py": "tests/tools/simcluster/test_counters.py",
    "dra/structured/pools.py": "tests/tools/simcluster/test_allocator.py",
    "dra/structured/release.py": "tests/tools/simcluster/test_allocator.py",
    "dra/structured/shapes.py": "tests/tools/simcluster/test_api_server.py",
    "nursery_apps/kubectl/doctor.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/kube_reader.py": "tests/nursery_apps/kubectl/test_reading.py",
    "nursery_apps/kubectl/command.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/kubectl/commands.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/kubectl/flags.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/kubectl/listing.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/kubectl/mapping.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/kubectl/problems.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/kubectl/who.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/kubectl/why.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/kubectl/words.py": "tests/nursery_apps/kubectl/test_main.py",
    "nursery_apps/version.py": "tests/tools/releasing/test_releasing.py",
}
"""Module -> the file that shows its behaviour, where another name says better what is shown."""

TESTED_TOGETHER = {
    "dra/sim_kernel": "tests/contracts/test_kernel_tree.py",
    "nursery_apps/edges/grpc_on_trio": "tests/contracts/test_grpc.py",
}
"""Packages that keep one promise between them."""


def modules(*folders: str) -> list[str]:
    """Paths of the modules below, as the repository spells them; generated ones left out."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py") if not path.stem.endswith("_pb2"))
    return sorted(str(path.relative_to(ROOT)) for path in found)


SHIPPED = modules("dra", "nursery_apps")


@pytest.mark.parametrize("module", [module for module in SHIPPED if not module.endswith("__init__.py")])
def test_every_module_has_its_test(module: str) -> None:
    folder, name = os.path.split(module)
    own = f"tests/{folder}/test_{name.strip('_').removesuffix('__.py').removesuffix('.py')}.py"
    elsewhere = TESTED_ELSEWHERE.get(module) or TESTED_TOGETHER.get(folder)
    if (ROOT / own).exists():
        assert module not in TESTED_ELSEWHERE, f"{module} has {own} now: take it out of TESTED_ELSEWHERE"
    else:
        assert elsewhere is not None, f"{module} has no {own}; write it, or say in TESTED_ELSEWHERE what shows its behaviour"
        assert (ROOT / elsewhere).exists(), f"{module} is said to be shown by {elsewhere}, which is gone"


def test_the_list_of_exceptions_names_modules_that_exist() -> None:
    assert [module for module in (*TESTED_ELSEWHERE, *TESTED_TOGETHER) if not (ROOT / module).exists()] == []


@pytest.mark.parametrize("module", [*SHIPPED, *modules("tools")])
def test_modules_are_short(module: str) -> None:
    lines = len((ROOT / module).read_text().splitlines())
    assert lines <= LONGEST, f"{module} has {lines} lines, at most {LONGEST}: find the second noun in it"


@pytest.mark.parametrize("module", SHIPPED)
def test_names_say_what_is_inside(module: str) -> None:
    classes = [node.name for node in ast.walk(ast.parse((ROOT / module).read_text())) if isinstance(node, ast.ClassDef)]
    words = {word.lower() for name in (Path(module).stem, *classes) for word in re.findall(r"[A-Z]?[a-z]+", name)}
    assert words.isdisjoint({*DRAWERS, *(f"{word}s" for word in DRAWERS)}), f"{module}: {sorted(words)}"


@pytest.mark.parametrize("module", [module for module in SHIPPED if module.endswith("__init__.py")])
def test_packages_hold_a_docstring_and_nothing_else(module: str) -> None:
    body = ast.parse((ROOT / module).read_text()).body
    assert body == [] or (len(body) == 1 and isinstance(body[0], ast.Expr)), f"{module}: a name is imported from where it is defined"


def test_no_package_in_tests_shadows_the_real_one() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_commands_can_be_run_and_say_what_they_run_with() -> None:
    commands = [path for path in (ROOT / "tools").iterdir() if path.is_file()] + [ROOT / ".ci" / "run"]
    for command in commands:
        assert os.access(command, os.X_OK), f"{command} is not executable"
        assert command.read_bytes().startswith(b"#!"), f"{command} does not say what runs it"


def test_the_repository_holds_no_file_that_is_made_on_each_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [name for name in listed if re.search(r"(^|/)(\.venv|__pycache__|\.hypothesis|[^/]*\.egg-info)(/|$)", name)] == []
