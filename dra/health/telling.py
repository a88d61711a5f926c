"""A verdict in the words of those who are told: taints, what selectors see, a line for people."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import msgspec

from dra import slice_limits
from dra.devices import Gpu
from dra.health.facts import Severity
from dra.health.told import DeviceHealth, Level, Told
from dra.health.verdict import UNRESPONSIVE, Ailment, Verdict
from dra.names import DRIVER_NAME, Bdf
from dra.pool import Effect, Taint

MESSAGE_BYTES: Final = 1024
"""What a kubelet keeps of a device's message; it would cut a longer one in the middle of a character (KEP-4680)."""

Word = Literal["none", "NoSchedule", "NoExecute"]


class Effects(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is done about a GPU, by how it is: no taint, no new pods, or eviction of those that use it as well."""

    degraded: Annotated[Word, msgspec.Meta(description="Of a GPU that works, but worse than it should.", examples=["NoSchedule"])] = "none"
    failed: Annotated[Word, msgspec.Meta(description="Of one on which work is lost.", examples=["NoSchedule"])] = "NoExecute"
    unknown: Annotated[Word, msgspec.Meta(description="Of one that does not answer.", examples=["NoSchedule"])] = "none"


class Opinion(msgspec.Struct, frozen=True):
    """What is held against the GPUs of a node, and what is done about it."""

    verdicts: Mapping[Bdf, Verdict] = {}
    effects: Effects = Effects()

    def of(self, gpu: Gpu) -> Verdict | None:
        """None: nobody judges it. A VF that is only planned is as its card is."""
        return self.verdicts.get(gpu.bdf) or (self.verdicts.get(gpu.parent) if gpu.parent is not None else None)

    def taints(self, gpu: Gpu) -> tuple[Taint, ...]:
        verdict = self.of(gpu)
        return taints(verdict, self.effects) if verdict is not None else ()

    def healthy(self, gpu: Gpu) -> bool | None:
        verdict = self.of(gpu)
        return healthy(verdict) if verdict is not None else None


NO_OPINION: Final = Opinion()


def taints(verdict: Verdict, effects: Effects) -> tuple[Taint, ...]:
    """One for each condition whose severity has an effect, its key the condition's, so that tolerations can be written once. At most as
    many as a device may have, by effect and then by severity the gravest.

    While it heals a taint stays as it was: who tolerates the value `failed` would be evicted for getting better.
    """
    found = []
    for ailment in verdict.ailments:
        if (word := _effect(ailment, effects)) != "none":
            value = "degraded" if ailment.severity is Severity.DEGRADED else "failed"
            found.append(Taint(f"{DRIVER_NAME}/{ailment.condition}", Effect(word), value))
    found.sort(key=lambda taint: taint.effect is not Effect.NO_EXECUTE)  # ailments are in order of severity, and stay so
    return tuple(found[: slice_limits.TAINTS])


def healthy(verdict: Verdict) -> bool | None:
    """For the published attribute `health`, in the words of Intel's driver; one that is only degraded works. None: nobody can tell."""
    return None if verdict.level is Level.UNKNOWN else verdict.level is not Level.FAILED


def told(opinion: Opinion, devices: Iterable[Gpu], before: Told, now: float) -> Told:
    """How these devices are; what nobody judges is left out.

    Args:
        before: what this returned last, for since when things are so.
        now: seconds since the epoch.
    """
    found = {}
    for gpu in devices:
        if (verdict := opinion.of(gpu)) is None:
            continue
        last = before.get(gpu.name)
        since = last.since if last is not None and last.level is verdict.level else now
        found[gpu.name] = DeviceHealth(verdict.level, message(verdict), since)
    return found


def message(verdict: Verdict) -> str:
    """For a pod's status and for Events; empty if there is nothing to say."""
    said = "; ".join(map(_sentence, verdict.ailments))
    return said.encode(errors="replace")[:MESSAGE_BYTES].decode(errors="ignore")


def _sentence(ailment: Ailment) -> str:
    of = f" of its card {ailment.of}" if ailment.of is not None else ""
    since = datetime.datetime.fromtimestamp(ailment.since, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    over = ", over now and watched for a while" if ailment.healing else ""
    text = f": {ailment.text}" if ailment.text else ""
    return f"{ailment.condition}{of}{text} (since {since}{over})"


def _effect(ailment: Ailment, effects: Effects) -> Word:
    if ailment.condition == UNRESPONSIVE:
        return effects.unknown
    return effects.failed if ailment.severity is Severity.FAILED else effects.degraded
