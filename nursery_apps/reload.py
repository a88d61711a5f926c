"""Settings that change while the program runs: SIGHUP or a changed file -> read, check, plan, apply the safe parts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import trio

from dra import settings_plan
from dra.settings import NodePluginConfiguration, SettingsInvalid
from dra.settings_plan import Plan, Verdict
from nursery_apps.latest import Latest
from nursery_apps.seams import RunBlocking, StateDir

log = logging.getLogger(__name__)

APPLIED_FILE: Final = "applied-settings.json"
"""In the state directory: what is in force, for `gpu-node-plugin plan` to compare with."""
SETTLE_SECONDS: Final = 0.1
"""Writing a file makes several events; it is read when they are over."""


class Result(msgspec.Struct, frozen=True):
    """How the last reload went."""

    outcome: str
    """applied, partly (something waits for a restart or was refused), refused, invalid, unchanged."""
    lines: tuple[str, ...]


class SettingsSource(Protocol):
    def read(self) -> NodePluginConfiguration:
        """Read and check the file; blocking.

        Raises:
            SettingsInvalid: it cannot be used.
        """

    async def watch(self, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake when the file may have changed, until cancelled."""


class Reloader:
    """Owns `settings`. `hang_up` is what SIGHUP calls."""

    def __init__(
        self,
        current: NodePluginConfiguration,
        source: SettingsSource | None,
        *,
        plan: Callable[[NodePluginConfiguration, NodePluginConfiguration], Plan],
        state: StateDir,
        run_blocking: RunBlocking,
        on_result: Callable[[Result], None],
    ) -> None:
        """`source` is None without a settings file: SIGHUP then says that there is nothing to read."""
        self.settings: Latest[NodePluginConfiguration] = Latest(current)
        self._source = source
        self._plan = plan
        self._state = state
        self._run_blocking = run_blocking
        self._on_result = on_result
        self._last_text = "\n".join(settings_plan.render(Plan((), current)))
        """What was said last: a file that is touched, or read again at start, is not news."""
        self._asked = trio.Event()
        self._by_signal = False

    def hang_up(self) -> None:
        """SIGHUP came: read the file even if it looks the same."""
        self._by_signal = True
        self._wake()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reload whenever asked, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._source is not None:
                await nursery.start(self._source.watch, self._wake)
                self._wake()  # it may have changed between the first reading and the subscription
            await self._remember(self.settings.value)
            task_status.started()
            while True:
                await self._asked.wait()
                await trio.sleep(SETTLE_SECONDS)
                self._asked = trio.Event()
                by_signal, self._by_signal = self._by_signal, False
                await self._reload(by_signal)

    def _wake(self) -> None:
        self._asked.set()

    async def _reload(self, by_signal: bool) -> None:
        if self._source is None:
            log.info("plan: nothing to reload: no settings file was given (--config)")
            return
        try:
            wanted = await self._run_blocking(self._source.read)
        except SettingsInvalid as error:
            if str(error) != self._last_text or by_signal:
                log.error("%s; the settings in force are kept", error)
                self._on_result(Result("invalid", (str(error),)))
            self._last_text = str(error)
            return
        made = self._plan(self.settings.value, wanted)
        text = "\n".join(settings_plan.render(made))
        if text == self._last_text and not by_signal:
            return  # the file was touched, or the same refusal stands again
        self._last_text = text
        for line in settings_plan.render(made):
            log.info("plan: %s", line)
        changed = self.settings.set(made.effective)
        # Told before the next checkpoint: a claim prepared meanwhile would make the plan's "nobody uses it" untrue.
        self._on_result(Result(_outcome(made), tuple(settings_plan.render(made))))
        if changed:
            await self._remember(made.effective)

    async def _remember(self, settings: NodePluginConfiguration) -> None:
        data = msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"
        try:
            await self._run_blocking(lambda: self._state.replace(APPLIED_FILE, data))
        except OSError as error:
            log.warning("cannot note the settings in force (%s): `plan` will compare with older ones", error)


def _outcome(made: Plan) -> str:
    verdicts = {entry.verdict for entry in made.entries}
    if not verdicts:
        return "unchanged"
    if verdicts == {Verdict.APPLY}:
        return "applied"
    return "partly" if Verdict.APPLY in verdicts or Verdict.RESTART in verdicts else "refused"
