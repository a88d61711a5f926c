"""From a claim's allocation to our grants: which results are ours, what they may be given, and what must be refused."""

from __future__ import annotations

from collections.abc import Mapping

from dra import cdi, opaque_config
from dra.devices import Gpu, Kind, State
from dra.errors import ClaimRefused, HardwareFault, NotYet
from dra.kube.claims import ResourceClaim, Result
from dra.names import DRIVER_NAME, ClaimUid, DeviceName, PoolName, bdf_of_device_name
from dra.records import Grant


def check_identity(claim: ResourceClaim, uid: ClaimUid) -> None:
    """Whether the object read by name is the claim the kubelet means.

    Raises:
        ClaimRefused: another claim has taken its name, or it is not allocated.
    """
    where = f"claim {claim.metadata.namespace}/{claim.metadata.name}"
    if claim.metadata.uid != uid:
        raise ClaimRefused(f"{where} was replaced: asked for UID {uid}, the API server has {claim.metadata.uid}", reason="ClaimReplaced")
    if claim.status is None or claim.status.allocation is None:
        raise ClaimRefused(f"{where} is not allocated", reason="ClaimNotAllocated")


def results_of(claim: ResourceClaim, pool: PoolName) -> list[Result]:
    """The results of this driver, all of which must be of this node's pool.

    Raises:
        ClaimRefused: none is, or one is of another node.
    """
    allocation = claim.status.allocation if claim.status is not None else None
    ours = [result for result in (allocation.devices.results or [] if allocation else []) if result.driver == DRIVER_NAME]
    where = f"claim {claim.metadata.namespace}/{claim.metadata.name}"
    if not ours:
        raise ClaimRefused(f"{where} holds no device of {DRIVER_NAME}", reason="NoDevices")
    for result in ours:
        if result.pool != pool:
            raise ClaimRefused(f"{where}: device {result.device} is of pool {result.pool}, this node's is {pool}", reason="WrongPool")
    return ours


def grants(
    claim: ResourceClaim, uid: ClaimUid, pool: PoolName, known: Mapping[DeviceName, Gpu], *, profiles: Mapping[DeviceName, str] = {}
) -> tuple[Grant, ...]:
    """What the claim is to hold.

    Args:
        known: lends the parent of VFs, of those too that are only planned; a device missing there is granted by name (see `require`).
        profiles: of the VFs whose profile is known.

    Raises:
        ClaimRefused: malformed, not allocated, not ours, or with configuration that cannot be honoured.
    """
    check_identity(claim, uid)
    assert claim.status is not None and claim.status.allocation is not None
    config = claim.status.allocation.devices.config or []
    admin_requests = {request.name for request in claim.spec.devices.requests or [] if request.is_admin}
    made: dict[tuple[DeviceName, bool, bool, str | None, str], Grant] = {}
    for result in results_of(claim, pool):
        base = result.request.partition("/")[0]
        device = DeviceName(result.device)
        bdf = bdf_of_device_name(device)
        if bdf is None:
            raise ClaimRefused(f"device {device!r} was never published by this driver", reason="UnknownDevice")
        # Kubernetes 1.31 keeps adminAccess only in the request.
        admin = bool(result.admin_access) or base in admin_requests
        effective = opaque_config.effective(config, result.request, admin=admin, shared=result.share_id is not None)
        if effective.profile and effective.profile != (profile := profiles.get(device)):
            has = f"has {profile}" if profile else "is no VF of a known profile"
            raise ClaimRefused(f"request {result.request!r} relies on profile {effective.profile}: {device} {has}", reason="WrongProfile")
        gpu = known.get(device)
        key = (device, admin, effective.monitor, result.share_id, effective.driver)
        requests: tuple[str, ...] = (base,)
        if (earlier := made.get(key)) is not None:
            requests = tuple(dict.fromkeys((*earlier.requests, base)))
        made[key] = Grant(
            requests=requests,
            pool=pool,
            device=device,
            bdf=bdf,
            parent=gpu.parent if gpu is not None else None,
            admin=admin,
            monitor=effective.monitor,
            share_id=result.share_id,
            driver=effective.driver,
            cdi_ids=(cdi.qualified(cdi.device_of(uid, device, monitor=effective.monitor, driver=effective.driver)),),
        )
    return tuple(made.values())


def require(grant: Grant, gpu: Gpu | None) -> Gpu:
    """The GPU behind a grant, fit to be handed to a container.

    Raises:
        NotYet: it may still come: not on the bus, its device nodes are not made, or it is not bound to the driver that was asked for.
        HardwareFault: it is there and broken.
        ClaimRefused: it is there and must not be handed out.
    """
    if gpu is None or gpu.name != grant.device:
        raise NotYet(f"{grant.device} is not on this node (unplugged?)", reason="DeviceAbsent")
    if grant.admin:
        return gpu
    if grant.driver:
        return _require_bound(grant, gpu)
    match gpu.state:
        case State.HEALTHY | State.DIRTY:
            if gpu.kind is Kind.PF and gpu.vfs_now:
                raise ClaimRefused(f"{grant.device} has {gpu.vfs_now} VFs: it cannot be handed out whole", reason="DeviceCarved")
            return gpu
        case State.NO_NODES:
            raise NotYet(f"{grant.device} has no device nodes yet (driver {gpu.driver})", reason="DeviceNotReady")
        case State.NO_DRIVER:
            raise NotYet(f"{grant.device} has no kernel driver bound", reason="DeviceNotReady")
        case State.PASSTHROUGH:
            raise ClaimRefused(f"{grant.device} is bound to {gpu.driver}: it belongs to a virtual machine", reason="DeviceInPassthrough")
        case State.WEDGED:
            raise HardwareFault(f"{grant.device} is wedged: rebind its driver or reset it", reason="DeviceWedged")
        case State.SURVIVABILITY:
            raise HardwareFault(f"{grant.device} is in survivability mode: its firmware must be flashed", reason="DeviceInSurvivability")


def _require_bound(grant: Grant, gpu: Gpu) -> Gpu:
    """The same for a function that goes to a virtual machine. What only the machine as a whole shows (modules, the other functions of the
    IOMMU group) is `dra.binding.refusal`'s to say."""
    if gpu.vfs_now:
        raise ClaimRefused(f"{grant.device} has {gpu.vfs_now} VFs: it cannot be handed out whole", reason="DeviceCarved")
    if grant.driver == "xe-vfio-pci" and gpu.kind is Kind.PF:
        raise ClaimRefused(f"{grant.device} is a whole card, and xe-vfio-pci takes VFs only: ask for vfio-pci", reason="DriverUnfit")
    if gpu.iommu_group is None:
        raise ClaimRefused(f"{grant.device} is in no IOMMU group: the node's IOMMU is off", reason="NoIommu")
    if gpu.driver != grant.driver:
        if gpu.boot_vga and gpu.state is not State.PASSTHROUGH:
            raise ClaimRefused(f"{grant.device} shows the node's console: it cannot be given to a virtual machine", reason="ConsoleGpu")
        raise NotYet(f"{grant.device} is bound to {gpu.driver or 'no driver'}, not yet to {grant.driver}", reason="DeviceNotReady")
    if not gpu.vfio_nodes:
        raise NotYet(f"{grant.device} has no nodes below /dev/vfio yet", reason="DeviceNotReady")
    return gpu
