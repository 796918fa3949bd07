"""Ask the engine for one thing after the other, with progress on a terminal and Ctrl+C that ends in order."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, TextIO

from qstudio.core.errors import UserError
from qstudio.engine.client import EngineClient, Job
from qstudio.engine.messages import Failure, JobState, Progress


class EngineFault(Exception):  # noqa: N818 - named after what it reports
    """A job failed and the user's input is not to blame."""

    def __init__(self, failure: Failure) -> None:
        """Keep the failure with its details for the log."""
        self.failure = failure
        super().__init__(failure.sentence())


class Interrupted(Exception):  # noqa: N818 - a wish, not a fault
    """The person asked to stop."""

    def __init__(self, number: int, said: UserError | None = None) -> None:
        """Keep the signal's number, from which the exit status is made, and what to say where something is left."""
        self.number = number
        self.said = said
        super().__init__(signal.Signals(number).name)


class Asker:
    """One engine, used from one thread; a signal cancels what is running, a second one does not wait for it."""

    def __init__(self, engine: EngineClient, terminal: TextIO | None) -> None:
        """`terminal` is where progress is shown; None shows none."""
        self._engine = engine
        self._terminal = terminal
        self._job: Job | None = None
        self._signal = 0
        self._before: dict[int, Any] = {}
        self._bar: Any = None

    def __enter__(self) -> Asker:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not in the main thread: whoever called us handles signals
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._close_bar()
        self._engine.close()

    def ask(self, request: Any) -> Any:
        """Return the answer to a request.

        Raises:
            UserError: The input is at fault.
            EngineFault: The program is.
            Interrupted: The person stopped it.
        """
        if self._signal:
            raise Interrupted(self._signal)
        self._job = job = self._engine.submit(request, on_progress=self._show)
        try:
            self._engine.wait(job)
        except KeyboardInterrupt:
            raise Interrupted(self._signal or signal.SIGINT) from None
        finally:
            self._job = None
            self._close_bar()
        if self._signal or job.state is JobState.CANCELLED:
            raise Interrupted(self._signal or signal.SIGINT)
        if job.state is JobState.DONE:
            return job.value
        failure = job.error or Failure("the engine stopped without a word")
        if failure.user_fault:
            raise UserError(failure.what, failure.where, failure.fix)
        raise EngineFault(failure)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal:
            raise KeyboardInterrupt
        self._signal = number
        if self._job is not None:
            self._engine.cancel(self._job)

    def _show(self, progress: Progress) -> None:
        if self._terminal is None:
            return
        if self._bar is None:
            from tqdm import tqdm

            layout = "{desc:<24} {bar} {percentage:3.0f} %{postfix}"
            self._bar = tqdm(
                file=self._terminal, desc=progress.note, leave=False, bar_format=layout, dynamic_ncols=True, total=1.0
            )
        self._bar.total = max(progress.total, 1e-9)
        self._bar.n = min(progress.done, self._bar.total)
        left = "" if progress.seconds_left is None else f"{_clock(progress.seconds_left)} left"
        self._bar.set_description_str(progress.note, refresh=False)
        self._bar.set_postfix_str(left, refresh=False)
        self._bar.refresh()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
