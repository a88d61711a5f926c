"""An image of Debian's static busybox, made by hand: for tests' pods and as the sandbox of every pod."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import tarfile
from typing import Final

BUSYBOX: Final = "registry.local/busybox:1"
"""Not `latest`: with it the kubelet would want to pull."""
APPLETS: Final = ("cat", "dd", "echo", "env", "head", "id", "kill", "ls", "mknod", "sh", "sleep", "stat", "tail", "test", "true", "wget")


def write_busybox(path: pathlib.Path) -> None:
    """A docker-archive of one layer."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.add("/bin/busybox", "bin/busybox")
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name in ("tmp", "etc", "proc", "sys", "dev"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(directory)
    data = layer.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]},  # 68 years: the sandbox has to stay
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for name, blob in (
            ("layer.tar", data),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(blob)
            archive.addfile(entry, io.BytesIO(blob))
