"""The `health` part of a settings file."""

from __future__ import annotations

import difflib
from typing import Annotated, Final, Literal

import msgspec

from dra.durations import Duration, seconds
from dra.health.conditions import CONDITIONS
from dra.health.recovery import Mode
from dra.health.telling import Effects
from dra.health.verdict import Terms

Celsius = Annotated[int, msgspec.Meta(ge=40, le=150)]
Watts = Annotated[int, msgspec.Meta(ge=1, le=2000)]

SOCKET_LENGTH: Final = 107
"""Of a Unix socket's path (unix(7), sun_path, without its end)."""
BOUNDS: Final = {
    "health.period": (1, 300),  # a reading of a card, 80 small files, takes 3 to 4 ms of CPU: every 30 s, 8 cards cost 1 ms/s
    "health.holdDown": (0, 3600),
    "health.quiet": (1, 86400),
    "health.quietMost": (1, 7 * 86400),
}
"""Seconds allowed for each duration."""


class Limits(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """In place of what the kernel or the model's own table says."""

    temperature_degraded: Annotated[
        Celsius | None, msgspec.Meta(description="Degrees Celsius from which on a GPU is too hot.", examples=[95])
    ] = None
    temperature_failed: Annotated[
        Celsius | None, msgspec.Meta(description="Degrees Celsius from which on it is taken for failed.", examples=[110])
    ] = None
    power_degraded: Annotated[Watts | None, msgspec.Meta(description="Watts above which it draws too much.", examples=[200])] = None


class Xpumd(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    socket: Annotated[
        str,
        msgspec.Meta(
            description="Socket of Intel's XPU Manager daemon, whose word counts too; empty asks it nothing. It may be absent.",
            examples=["/run/xpumd/intelxpuinfo.sock"],
        ),
    ] = ""
    min_severity: Annotated[
        Literal["warning", "critical", "failed"],
        msgspec.Meta(description="The least of the daemon's severities that counts.", examples=["warning"]),
    ] = "critical"


class Recovery(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    mode: Annotated[
        Mode,
        msgspec.Meta(
            description="What is tried with a wedged card that nobody uses, if its kernel names it: binding its driver anew, or a reset of "
            "its bus as well.",
            examples=["rebind"],
        ),
    ] = "off"
    per_day: Annotated[int, msgspec.Meta(ge=1, le=24, description="How often it is tried with one card within a day.", examples=[2])] = 1


class Telemetry(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    enabled: Annotated[
        bool, msgspec.Meta(description="Metrics of temperature, power, frequency and the like, for each GPU.", examples=[False])
    ] = True
    claim_labels: Annotated[
        bool, msgspec.Meta(description="Name the claim and its pod in them; with many short pods that makes many series.", examples=[False])
    ] = True


class Health(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    enabled: Annotated[
        bool,
        msgspec.Meta(
            description="Watch how GPUs are. Switched off, one that cannot be used at all is withdrawn all the same.", examples=[False]
        ),
    ] = True
    period: Annotated[
        Duration, msgspec.Meta(description="How often the kernel's files are read; its events count at once. 1s to 5m.", examples=["5s"])
    ] = "30s"
    hold_down: Annotated[
        Duration, msgspec.Meta(description="How long a measurement must be bad before it counts. 0s to 1h.", examples=["10s"])
    ] = "10s"
    quiet: Annotated[
        Duration,
        msgspec.Meta(
            description="How long a GPU must be well again before that is believed; twice as long each time it falls ill soon after. "
            "1s to 24h.",
            examples=["2m"],
        ),
    ] = "60s"
    quiet_most: Annotated[
        Duration,
        msgspec.Meta(
            description="What that grows to at most, and after how long of being well it begins anew. 1s to 168h.", examples=["1h"]
        ),
    ] = "1h"
    effects: Effects = Effects()
    ignore: Annotated[
        tuple[str, ...],
        msgspec.Meta(description="Conditions ([health.md](health.md)) that are nothing to worry about here.", examples=[["link"]]),
    ] = ()
    limits: Limits = Limits()
    xpumd: Xpumd = Xpumd()
    recovery: Recovery = Recovery()
    telemetry: Telemetry = Telemetry()


def terms(health: Health) -> Terms:
    """What the verdict goes by."""
    quiet = seconds(health.quiet)
    return Terms(
        hold_down=seconds(health.hold_down),
        quiet=quiet,
        quiet_most=max(quiet, seconds(health.quiet_most)),
        ignore=frozenset(health.ignore),
    )


def faults(health: Health) -> tuple[str, ...]:
    """What is wrong in itself: a sentence each, with the place; empty if all is well."""
    found: list[str] = []
    for index, key in enumerate(health.ignore):
        if key not in CONDITIONS:
            close = difflib.get_close_matches(key, CONDITIONS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(CONDITIONS))}"
            found.append(f"{key[:60]!r} is no condition; {hint} - at `$.health.ignore[{index}]`")
    limits = health.limits
    if None not in (limits.temperature_degraded, limits.temperature_failed):
        assert limits.temperature_degraded is not None
        assert limits.temperature_failed is not None
        if limits.temperature_degraded > limits.temperature_failed:
            found.append("temperatureDegraded is above temperatureFailed - at `$.health.limits`")
    socket = health.xpumd.socket
    if socket and (not socket.startswith("/") or "\0" in socket or len(socket.encode(errors="replace")) > SOCKET_LENGTH):
        found.append(f"a socket is an absolute path of at most {SOCKET_LENGTH} bytes - at `$.health.xpumd.socket`")
    return tuple(found)
