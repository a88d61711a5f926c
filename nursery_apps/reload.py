"""Settings that change while the program runs: SIGHUP or a changed file -> read, check, plan, apply the safe parts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import trio

from dra import settings_plan
from dra.settings import SettingsInvalid
from dra.settings_plan import Plan, Verdict
from nursery_apps.latest import Latest
from nursery_apps.seams import RunBlocking, StateDir

log = logging.getLogger(__name__)

S = TypeVar("S", bound=msgspec.Struct)
S_co = TypeVar("S_co", covariant=True)

APPLIED_FILE: Final = "applied-settings.json"
"""In the state directory: what is in force, for `gpu-node-plugin plan` to compare with."""
SETTLE_SECONDS: Final = 0.1
"""Writing a file makes several events; it is read when they are over."""


class Result(msgspec.Struct, frozen=True):
    """How the last reload went."""

    outcome: str
    """applied, partly (something waits for a restart or was refused), refused, invalid, unchanged."""
    lines: tuple[str, ...]


class SettingsSource(Protocol[S_co]):
    def read(self) -> S_co:
        """Read and check the file; blocking.

        Raises:
            SettingsInvalid: it cannot be used.
        """

    async def watch(self, wake: Callable[[], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake when the file may have changed, until cancelled."""


class Reloader(Generic[S]):
    """Owns `settings`. `hang_up` is what SIGHUP calls."""

    def __init__(
        self,
        current: S,
        source: SettingsSource[S] | None,
        *,
        plan: Callable[[S, S], Plan[S]],
        state: StateDir | None,
        run_blocking: RunBlocking,
        on_result: Callable[[Result], None],
    ) -> None:
        """
        Args:
            source: None without a settings file: SIGHUP then says that there is nothing to read.
            state: where to note what is in force; None: nobody compares with it.
        """
        self.settings: Latest[S] = Latest(current)
        self._source = source
        self._plan = plan
        self._state = state
        self._run_blocking = run_blocking
        self._on_result = on_result
        self._last_text = "\n".join(settings_plan.render(Plan((), current)))
        """What was said last: a file that is touched, or read again at start, is not news."""
        self._asked = trio.Event()
        self._by_signal = False
        self._forgetful = False
        self._noting = trio.Lock()

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

    async def forget(self) -> None:
        """Remove the note of what is in force, and make none until `keep`.

        Raises:
            OSError: it cannot be removed.
        """
        async with self._noting:
            self._forgetful = True
            if (state := self._state) is not None:
                await self._run_blocking(lambda: state.remove(APPLIED_FILE))

    async def keep(self) -> None:
        """Note it again."""
        self._forgetful = False
        await self._remember(self.settings.value)

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

    async def _remember(self, settings: S) -> None:
        if (state := self._state) is None:
            return
        data = msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"
        try:
            async with self._noting:
                if not self._forgetful:
                    await self._run_blocking(lambda: state.replace(APPLIED_FILE, data))
        except OSError as error:
            log.warning("cannot note the settings in force (%s): `plan` will compare with older ones", error)


def _outcome(made: Plan[S]) -> str:
    verdicts = {entry.verdict for entry in made.entries}
    if not verdicts:
        return "unchanged"
    if verdicts == {Verdict.APPLY}:
        return "applied"
    return "partly" if Verdict.APPLY in verdicts or Verdict.RESTART in verdicts else "refused"
