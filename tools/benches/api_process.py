"""The API server of the embedded control plane alone, as a process: prints its address, runs until SIGTERM."""

from __future__ import annotations

import sys

import trio

from tools.simcluster import api_server, releases
from tools.simcluster.faults import Faults
from tools.simcluster.http_api import HttpApi
from tools.simcluster.kubeconfig import write
from tools.simcluster.registry import Registry
from tools.simcluster.store import Store


async def main(kubeconfig: str) -> None:
    async with trio.open_nursery() as nursery:
        api = HttpApi(Registry(Store(), releases.release("1.37")), Faults())
        address = await nursery.start(api_server.serve, api)
        write(kubeconfig, address)
        print(address, flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
