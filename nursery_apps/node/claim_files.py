"""The files of claims: the CDI file that the container runtime reads, and the device metadata that it mounts into containers.

Blocking: one piece of work for all files of a claim, for a thread; hops to it cost more than the files.
"""

from __future__ import annotations

from collections.abc import Mapping

from dra import cdi, claim_metadata, preparation
from dra.claim_metadata import MetadataFile
from dra.devices import Gpu
from dra.errors import HardwareFault
from dra.names import ClaimUid, DeviceName
from dra.preparation import Facts, Step
from dra.records import Record
from nursery_apps.seams import StateDir


class ClaimFiles:
    def __init__(self, cdi_dir: StateDir, metadata_dir: StateDir, metadata_path: str) -> None:
        """`metadata_path` is that of `metadata_dir` on the host, for the mounts of containers."""
        self._cdi_dir = cdi_dir
        self._metadata_dir, self._metadata_path = metadata_dir, metadata_path

    def has_cdi(self, uid: ClaimUid) -> bool:
        return self._cdi_dir.stamp(cdi.file_name(uid)) is not None

    def settle(
        self, uid: ClaimUid, record: Record | None, gpus: Mapping[DeviceName, Gpu], profiles: Mapping[DeviceName, str]
    ) -> tuple[Facts, Step | None]:
        """Write and remove until the files are what the record says; the facts by then, and the step that is not about files.

        Args:
            profiles: of the VFs whose profile is known.

        Raises:
            HardwareFault: a file cannot be written or removed.
        """
        name = cdi.file_name(uid)
        files: tuple[MetadataFile, ...] = ()
        if record is not None and any(grant.driver for grant in record.grants):  # nobody but virtual machines reads them
            files = claim_metadata.files(record, gpus, profiles=profiles)
        mounts = claim_metadata.mounts(files, self._metadata_path)
        wanted = cdi.render(record, gpus, mounts=mounts) if record is not None else None
        metadata = {file.name: file.data for file in files}
        try:
            while True:
                facts = Facts(uid, record, self._cdi_dir.read(name), wanted, self._metadata_of(uid), metadata)
                match preparation.next_step(facts):
                    case preparation.WriteMetadata(file, data):
                        self._metadata_dir.replace(file, data, mode=0o644)  # containers run as other users
                    case preparation.RemoveMetadata(file):
                        self._metadata_dir.remove(file)
                    case preparation.WriteCdi(data):
                        self._cdi_dir.replace(name, data, mode=0o644)  # runtimes may run as another user
                    case preparation.RemoveCdi():
                        self._cdi_dir.remove(name)
                    case left:
                        return facts, left
        except OSError as error:
            raise HardwareFault(
                f"file {error.filename or name}: {error.strerror}; free space or make the directory writable", reason="CdiUnwritable"
            ) from error

    def _metadata_of(self, uid: ClaimUid) -> dict[str, bytes]:
        mine = [name for name in self._metadata_dir.list() if claim_metadata.uid_of_file(name) == uid]
        return {name: data for name in mine if (data := self._metadata_dir.read(name)) is not None}
