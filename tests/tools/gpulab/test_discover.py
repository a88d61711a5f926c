"""The shipped plugin finds on a mounted machine what it finds on the one in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.fakes import machines
from tests.tools.gpulab import labs


def in_memory(machine: str) -> Any:
    command = [sys.executable, "-m", "nursery_apps.node", "discover", "--json", "--simulate", str(machines.FOLDER / f"{machine}.json")]
    return json.loads(subprocess.run(command, cwd=labs.ROOT, check=True, stdout=subprocess.PIPE).stdout)


@pytest.mark.parametrize("machine", ["server-4x-b60", "server-8x-flex170"])
def test_real_files_show_the_same_gpus(machine: str) -> None:
    mounted = json.loads(labs.output_of(machine, "gpu-node-plugin", "discover", "--json"))
    expected = in_memory(machine)
    if machine == "server-4x-b60":  # xe tells its memory by ioctl only, and there is none on mounted nodes
        for gpu in expected["gpus"]:
            assert gpu["memory_bytes"], "the machine in memory answers the query"
            gpu["memory_bytes"] = None
    assert mounted == expected
