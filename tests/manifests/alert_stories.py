"""For each alert what makes it fire, and what looks alike and must not: series as `promtool test rules` takes them, a value a minute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

Series = Mapping[str, str]
"""Series -> values in promtool's notation."""

N: Final = 'node="n1"'
PLUGIN: Final = 'job="intel-gpu-node-plugin", node="n1", pod="p1"'
OTHER: Final = 'job="intel-gpu-node-plugin", node="n2", pod="p2"'
C1: Final = 'job="intel-gpu-controller", node="c1", pod="gpu-c1"'
C2: Final = 'job="intel-gpu-controller", node="c2", pod="gpu-c2"'


class Story(msgspec.Struct, frozen=True):
    fires: Series
    labels: Mapping[str, str]
    """Of the alert that fires, besides those of the rule."""
    silent: tuple[Series, ...]
    at: str = "30m"


def _p(name: str, values: str, more: str = "", labels: str = PLUGIN) -> dict[str, str]:
    return {f"intel_gpu_dra_{name}{{{labels}{', ' if more else ''}{more}}}": values}


def _gauge(name: str, well: str = "0", ill: str = "1", brief: str = "0x26 1 0x20", more: str = "") -> Story:
    """An alert about one series of a plugin: ill for long, or well, or ill for a moment only."""
    labels = {"job": "intel-gpu-node-plugin", "node": "n1", "pod": "p1"}
    labels |= {key: value.strip('"') for key, _, value in (part.partition("=") for part in more.split(", ") if part)}
    return Story(_p(name, f"{ill}x200", more), labels, (_p(name, f"{well}x200", more), _p(name, brief, more)))


def _unless_it_goes(name: str, brief: str) -> Story:
    """An alert that is silent on a node which the driver has left on purpose."""
    story = _gauge(name, well="1", ill="0", brief=brief)
    gone, there = _p("decommissioned", "1x200"), _p("decommissioned", "0x200")
    return msgspec.structs.replace(story, fires={**story.fires, **there}, silent=(*story.silent, {**story.fires, **gone}))


def _buckets(slow: bool) -> Series:
    below, above = ("0+0x60", "0+10x60") if slow else ("0+10x60", "0+10x60")
    return {
        **_p("claim_operation_seconds_bucket", below, 'verb="prepare", le="20"'),
        **_p("claim_operation_seconds_bucket", above, 'verb="prepare", le="40"'),
        **_p("claim_operation_seconds_bucket", above, 'verb="prepare", le="+Inf"'),
    }


HAD_GPUS: Final = _p("devices", "4x10", 'state="healthy"')
THERE: Final = _p("gpu_info", "1x100", 'bdf="0000:03:00.0", pci_id="0x56c0", model="Flex 170", kind="pf", driver="i915"')
# While a plugin is updated both of its pods tell of the same GPU.
TWICE: Final = THERE | {key.replace('pod="p1"', 'pod="p3"'): value for key, value in THERE.items()}
TAINTED: Final = {"node": "n1", "pci_bdf": "0000:03:00.0", "pci_dev": "0x56c0"}
OWN: Final = TAINTED | {"bdf": "0000:03:00.0"}
CERTIFICATE: Final = "certificate_expiry_timestamp_seconds"
DAY: Final = 86400

STORIES: Final[Mapping[str, Story]] = {
    "IntelGpuPluginDown": Story(
        {f"up{{{PLUGIN}}}": "1x10 0x40", **HAD_GPUS},
        {"job": "intel-gpu-node-plugin", "node": "n1", "pod": "p1"},
        (
            {f"up{{{PLUGIN}}}": "1x50", **HAD_GPUS},
            {f"up{{{PLUGIN}}}": "0x50", f"up{{{OTHER}}}": "1x50", **_p("devices", "4x10", 'state="healthy"', OTHER)},  # no GPU there
            {f"up{{{PLUGIN}}}": "1x27 0 1x20", **HAD_GPUS},
        ),
    ),
    "IntelGpuPluginsVanished": Story(
        _p("registered", "1x5") | {f"up{{{PLUGIN}}}": "1x5"},
        {},
        (_p("registered", "1x5") | {f"up{{{PLUGIN}}}": "1x50"}, _p("registered", "1x5") | {f"up{{{PLUGIN}}}": "0x50"}),
    ),
    "IntelGpuPluginRestarting": Story(
        {f"process_start_time_seconds{{{PLUGIN}}}": "100x10 200x3 300x3 400x20"},
        {"job": "intel-gpu-node-plugin", "node": "n1", "pod": "p1"},
        ({f"process_start_time_seconds{{{PLUGIN}}}": "100x10 200x30"}, {f"process_start_time_seconds{{{C1}}}": "1x9 2x3 3x3 4x20"}),
    ),
    "IntelGpuPluginNotRegistered": _unless_it_goes("registered", "1x27 0 1x20"),
    "IntelGpuSlicesNotPublished": _unless_it_goes("slices_in_sync", "1x22 0x4 1x20"),
    "IntelGpuWatchStale": _gauge("watches_behind", brief="0x22 1x4 0x20"),
    "IntelGpuDevicesWithdrawn": _gauge("withdrawn_devices"),
    "IntelGpuValuesRefused": msgspec.structs.replace(_gauge("unpublishable_values"), at="90m"),
    "IntelGpuSettingsRefused": _gauge("last_reload_successful", well="1", ill="0", brief="1x27 0 1x20"),
    "IntelGpuPrepareFailing": Story(
        _p("claim_operations_total", "0+1x40", 'verb="prepare", outcome="DeviceNotReady"'),
        {"node": "n1"},
        (
            _p("claim_operations_total", "0+1x40", 'verb="prepare", outcome="ok"'),
            _p("claim_operations_total", "0+1x40", 'verb="prepare", outcome="InvalidConfig"'),  # the user's
            _p("claim_operations_total", "0x20 1x20", 'verb="prepare", outcome="DeviceNotReady"'),
            _p("claim_operations_total", "0+1x40", 'verb="settle", outcome="DeviceNotReady"'),
        ),
    ),
    "IntelGpuUnprepareFailing": Story(
        _p("claim_operations_total", "0+1x40", 'verb="unprepare", outcome="CdiUnwritable"'),
        {"node": "n1"},
        (
            _p("claim_operations_total", "0+1x40", 'verb="unprepare", outcome="ok"'),
            _p("claim_operations_total", "0x20 1x20", 'verb="unprepare", outcome="CdiUnwritable"'),
        ),
    ),
    "IntelGpuPrepareSlow": Story(_buckets(slow=True), {"node": "n1"}, (_buckets(slow=False),), at="45m"),
    "IntelGpuClaimsStuck": Story(
        _p("claims", "1x60", 'stage="granted"'),
        {"node": "n1"},
        (_p("claims", "4x60", 'stage="prepared"'), _p("claims", "_x20 1x5 _x40", 'stage="granted"')),
        at="45m",
    ),
    "IntelGpuClaimsParked": _gauge("claims", brief="_x26 1 _x20", more='stage="parked"'),
    "IntelGpuClaimsOrphaned": Story(
        _p("findings_total", "0x20 1x20", 'reason="OrphanedClaim"'),
        {"job": "intel-gpu-node-plugin", "node": "n1", "pod": "p1", "reason": "OrphanedClaim"},
        (_p("findings_total", "1x40", 'reason="OrphanedClaim"'), _p("findings_total", "0x20 1x20", 'reason="OrphanedFile"')),
    ),
    "IntelGpuJournalFailing": Story(
        _p("journal_errors_total", "0x25 1x20"),
        {"job": "intel-gpu-node-plugin", "node": "n1", "pod": "p1"},
        (_p("journal_errors_total", "3x40"), _p("journal_errors_total", "0x10 1x30")),
    ),
    "IntelGpuCardStuck": _gauge("stuck_cards"),
    "IntelGpuScanHung": _gauge("hung_scans"),
    "IntelGpuCarvingFailing": _gauge("faulty_cards"),
    "IntelGpuFailed": Story(
        _p("gpu_health", "1x40", 'bdf="0000:03:00.0", level="failed"'),
        {"job": "intel-gpu-node-plugin", "node": "n1", "pod": "p1", "bdf": "0000:03:00.0", "level": "failed"},
        tuple(_p("gpu_health", "1x40", f'bdf="0000:03:00.0", level="{level}"') for level in ("ok", "degraded", "unknown")),
    ),
    "IntelGpuDegraded": Story(
        _p("gpu_health", "1x90", 'bdf="0000:03:00.0", level="degraded"'),
        {"job": "intel-gpu-node-plugin", "node": "n1", "pod": "p1", "bdf": "0000:03:00.0", "level": "degraded"},
        (
            _p("gpu_health", "1x90", 'bdf="0000:03:00.0", level="ok"'),
            _p("gpu_health", "_x60 1x30", 'bdf="0000:03:00.0", level="degraded"'),
        ),
        at="85m",
    ),
    "IntelGpuUnresponsive": _gauge("gpus_unresponsive"),
    "IntelGpuFlapping": Story(
        _p("gpu_health_changes_total", "0x10 1x20 2x20 3x20", 'bdf="0000:03:00.0", level="failed"'),
        {"node": "n1", "bdf": "0000:03:00.0"},
        (
            _p("gpu_health_changes_total", "0x10 1x60", 'bdf="0000:03:00.0", level="failed"'),
            _p("gpu_health_changes_total", "0x10 1x20 2x20 3x20", 'bdf="0000:03:00.0", level="ok"'),
        ),
        at="70m",
    ),
    "IntelGpuControllerDown": Story(
        {f"up{{{C1}}}": "0x40", f"up{{{C2}}}": "1x40"},
        {"job": "intel-gpu-controller", "node": "c1", "pod": "gpu-c1"},
        ({f"up{{{C1}}}": "1x40"}, {f"up{{{C1}}}": "1x25 0x4 1x20"}, {f"up{{{PLUGIN}}}": "0x40"}),
    ),
    "IntelGpuNoLeader": Story(
        _p("leading", "0x40", labels=C1) | _p("leading", "1x5 0x40", labels=C2),
        {},
        (
            _p("leading", "0x40", labels=C1) | _p("leading", "1x40", labels=C2),
            _p("leading", "1x28 0 0", labels=C1) | _p("leading", "0x29 1 1", labels=C2),  # one hands over to the other
            _p("registered", "1x40"),  # no controller is installed
        ),
    ),
    "IntelGpuDecisionsFailing": Story(
        _p("queue_failing", "2x40", labels=C1),
        {"job": "intel-gpu-controller", "node": "c1", "pod": "gpu-c1"},
        (_p("queue_failing", "0x40", labels=C1), _p("queue_failing", "2x24 0 2x20", labels=C1)),
    ),
    "IntelGpuNodesNotReady": Story(
        _p("nodes", "1x40", 'ready="false"', C1),
        {"job": "intel-gpu-controller", "node": "c1", "pod": "gpu-c1", "ready": "false"},
        (_p("nodes", "3x40", 'ready="true"', C1), _p("nodes", "0x25 1x4 0x20", 'ready="false"', C1)),
    ),
    "IntelGpuSlicesMissing": Story(
        _p("incidents", "1x40", 'reason="SlicesMissing"', C1) | _p("incidents", "0x40", 'reason="SlicesStale"', C1),
        {"reason": "SlicesMissing"},
        (_p("incidents", "0x40", 'reason="SlicesMissing"', C1), _p("incidents", "1x40", 'reason="ClaimOnDeadNode"', C1)),
    ),
    "IntelGpuClaimOnDeadNode": Story(
        _p("incidents", "1x40", 'reason="ClaimOnDeadNode"', C1) | _p("incidents", "0x40", 'reason="ClaimOnDeadNode"', C2),
        {},
        (_p("incidents", "0x40", 'reason="ClaimOnDeadNode"', C1), _p("incidents", "0x20 1x5 0x20", 'reason="ClaimOnDeadNode"', C1)),
    ),
    "IntelGpuAlertsNotTaken": Story(
        _p("alert_notifications_total", "0x25 1x20", 'outcome="failed"', C1),
        {"outcome": "failed"},
        (
            _p("alert_notifications_total", "0+1x40", 'outcome="applied"', C1),
            _p("alert_notifications_total", "1x40", 'outcome="failed"', C1),
        ),
    ),
    "IntelGpuWebhookFailing": Story(
        _p(CERTIFICATE, "0x40", 'service="webhook"', C1),
        {"job": "intel-gpu-controller", "node": "c1", "pod": "gpu-c1", "service": "webhook"},
        (
            _p(CERTIFICATE, f"{30 * DAY}x40", 'service="webhook"', C1),
            _p(CERTIFICATE, "0x40", 'service="alerts"', C1),
            _p("admission_reviews_total", "0+1x40", 'outcome="refused"', C1),
        ),
    ),
    "IntelGpuCertificateExpiring": Story(
        _p(CERTIFICATE, f"{6 * DAY}x100", 'service="webhook"', C1),
        {"job": "intel-gpu-controller", "node": "c1", "pod": "gpu-c1", "service": "webhook"},
        (
            _p(CERTIFICATE, f"{30 * DAY}x100", 'service="webhook"', C1),
            _p(CERTIFICATE, "0x100", 'service="webhook"', C1),  # another alert's
        ),
        at="90m",
    ),
    "IntelGpuTooHot": Story(
        _p("gpu_temperature_celsius", "104x40", 'bdf="0000:03:00.0", model="Flex 170", sensor="pkg"') | TWICE,
        OWN,
        (
            _p("gpu_temperature_celsius", "90x40", 'bdf="0000:03:00.0", model="Flex 170", sensor="pkg"') | TWICE,
            _p("gpu_temperature_celsius", "90x27 104 90x20", 'bdf="0000:03:00.0", model="Flex 170", sensor="pkg"') | TWICE,
        ),
    ),
    "IntelGpuPcieErrors": Story(
        _p("gpu_pcie_errors_total", "0x20 3x20", 'bdf="0000:03:00.0", model="Flex 170", severity="nonfatal"') | TWICE,
        OWN,
        (_p("gpu_pcie_errors_total", "0+1x40", 'bdf="0000:03:00.0", model="Flex 170", severity="correctable"') | TWICE,),
    ),
    "IntelGpuHardwareErrors": Story(
        _p("gpu_hardware_errors_total", "0x20 3x20", 'bdf="0000:03:00.0", model="Flex 170", severity="fatal"') | TWICE,
        OWN,
        (_p("gpu_hardware_errors_total", "0x20 3x20", 'bdf="0000:03:00.0", model="Flex 170", severity="nonfatal"') | TWICE,),
    ),
    "IntelGpuXpumTooHot": Story(
        {f'hw_temperature_celsius{{{N}, pci_bdf="0000:03:00.0", hw_sensor_location="memory", statistic="max"}}': "104x40"} | TWICE,
        TAINTED,
        (
            {f'hw_temperature_celsius{{{N}, pci_bdf="0000:03:00.0", hw_sensor_location="memory", statistic="max"}}': "90x40"} | TWICE,
            {f'xpum_max_temperature_celsius{{{N}, pci_bdf="0000:04:00.0", location="gpu"}}': "104x40"} | TWICE,  # a card not of this driver
        ),
    ),
    "IntelGpuXpumErrors": Story(
        {f'xpum_resets_total{{{N}, pci_bdf="0000:03:00.0"}}': "0x20 1x20"} | TWICE,
        TAINTED,
        ({f'xpum_cache_errors_total{{{N}, pci_bdf="0000:03:00.0", type="correctable"}}': "0x20 1x20"} | TWICE,),
    ),
}
