"""The engine as two processes, seen from the window's side. Imports no torch, no onnx and no Qt."""

from __future__ import annotations

import atexit
import multiprocessing.util  # noqa: F401 - its exit handler must be registered before ours, so that ours runs first
import pickle
import time
from collections.abc import Callable
from typing import Any

from qstudio.engine.boot import BootOptions
from qstudio.engine.client import Job
from qstudio.engine.cores import available_cores
from qstudio.engine.desk import Desk
from qstudio.engine.envelopes import Cancel, Finished, LogLines, Partial, Ready, Shutdown, Started, Submit
from qstudio.engine.jobs import spec_of
from qstudio.engine.lane import Lane
from qstudio.engine.link import Died, Link, Unreadable
from qstudio.engine.messages import Failure, JobState, Progress
from qstudio.engine.words import death_sentence, failure_of, how_it_ended

PROCESSES = ("inspect", "run")

_STOP_GRACE_S = 1.0
"""After a forced stop has asked the system to end a process, how long until it is killed."""

_FAILED_STARTS = 2
"""Deaths in a row before Ready, after which a process is not started again by itself."""

_ATTEMPTS = 3
"""How often a job is sent to processes that die before they say that they have begun it."""


class ProcessEngine:
    """An `EngineClient` whose jobs run in two spawned processes: neither a crash nor a long job harms the window.

    All methods belong to one thread, the one that calls `dispatch`; none of them waits for a process, except `wait`
    and `close`.
    """

    def __init__(self, threads: int | None = None, niceness: int = 5) -> None:
        """Start the "inspect" process in the background; "run" follows once the first job is done, or asked for.

        Args:
            threads: Threads of numerical libraries in each process; None = one less than there are cores, so that the
                window has one to itself.
            niceness: How far the processes stand back behind the window where both want the processor.
        """
        self.on_log: Callable[[str, str], None] | None = None
        self.on_process_died: Callable[[str, str], None] | None = None
        self._threads = threads or max(available_cores() - 1, 1)
        self._niceness = niceness
        self._desk = Desk()
        self._lanes = {name: Lane(name) for name in PROCESSES}
        self._jobs: dict[int, Job] = {}
        self._attempts: dict[int, int] = {}
        self._links: list[Link] = []
        self._closed = False
        _OPEN.append(self)
        self._start(self._lanes["inspect"])

    # ---- asking

    def submit(
        self,
        request: Any,
        *,
        slot: str = "",
        on_finished: Callable[[Job], None] | None = None,
        on_partial: Callable[[Any], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_state: Callable[[Job], None] | None = None,
    ) -> Job:
        """Queue a request and return at once.

        Raises:
            KeyError: There is no job for this type of request.
        """
        job, older = self._desk.admit(request, slot, on_finished, on_partial, on_progress, on_state)
        if older is not None:
            self.cancel(older)
        if self._closed:
            self._desk.finish_later(job, JobState.CANCELLED)
            return job
        lane = self._lanes[job.process]
        lane.waiting.append(job)
        self._jobs[job.id] = job
        if lane.link is None:
            lane.failed_starts = 0
            self._start(lane)
        self._send_next(lane)
        return job

    def cancel(self, job: Job) -> None:
        """Ask a job to stop; a queued one is CANCELLED at once, a running one becomes CANCELLING."""
        if job.state.is_final:
            return
        lane = self._lanes[job.process]
        if job in lane.waiting:
            lane.waiting.remove(job)
            self._jobs.pop(job.id, None)
            self._desk.finish_later(job, JobState.CANCELLED)
        elif lane.link is not None and job in lane.in_flight:
            self._desk.change_later(job, JobState.CANCELLING)
            lane.link.send(Cancel(job.id))

    def force_stop(self, job: Job) -> None:
        """End the job's process and start a new one: the job is KILLED, others of that process are queued again."""
        if job.state.is_final:
            return
        lane = self._lanes[job.process]
        if job in lane.waiting:
            lane.waiting.remove(job)
        elif job in lane.in_flight:
            lane.in_flight.remove(job)
            self._queue_again(lane)
            self._replace(lane)
        self._jobs.pop(job.id, None)
        self._desk.finish_later(
            job, JobState.KILLED, error=Failure(f"{spec_of(job.request).title} was stopped by force")
        )

    def restart(self, process: str) -> None:
        """Start a process that is not there any more; one that is alive goes on."""
        lane = self._lanes[process]
        if lane.link is None and not self._closed:
            lane.failed_starts = 0
            self._start(lane)

    # ---- hearing

    def dispatch(self) -> int:
        """Run the callbacks of what has arrived (20 ms of them at most); return how many messages were handled."""
        return self._desk.dispatch()

    def set_wake(self, wake: Callable[[], None] | None) -> None:
        """Set what is called (from any thread) when there is something to dispatch."""
        self._desk.set_wake(wake)

    def wait(self, job: Job, timeout: float | None = None) -> Job:
        """Dispatch until the job is final (scripts and tests).

        Raises:
            TimeoutError: It was not final in `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self.dispatch()
            if self._desk.is_told(job):
                return job
            left = 0.5 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{spec_of(job.request).title} was not done in {timeout:g} seconds")
            # In slices: on Windows Ctrl+C does not interrupt a wait without an end.
            self._desk.sleep(min(left, 0.5))

    def pid(self, process: str) -> int | None:
        """Return the process's id, None while there is none."""
        link = self._lanes[process].link
        return link.pid if link is not None else None

    def is_ready(self, process: str) -> bool:
        """Return whether the process listens."""
        link = self._lanes[process].link
        return link is not None and link.ready

    # ---- the end

    def close(self, timeout: float = 3.0) -> None:
        """Shut down in order: ask, wait, terminate, kill. Jobs that are not done are CANCELLED; no child is left."""
        if self._closed:
            return
        self._closed = True
        _OPEN.remove(self)
        for lane in self._lanes.values():
            if lane.link is not None:
                if lane.link.ready:
                    lane.link.send(Shutdown())
                else:
                    # Still loading: there is nothing to lose, and it would not listen for a while.
                    lane.link.stop(timeout / 4)
                lane.link = None
            lane.waiting.clear()
            lane.in_flight.clear()
        start = time.monotonic()
        for link in self._links:
            if not link.join(start + timeout / 2 - time.monotonic()):
                link.stop(timeout / 4)
        for link in self._links:
            if not link.join(start + timeout - time.monotonic()):
                link.kill()
                link.join(timeout)
        self._links.clear()
        for job in tuple(self._jobs.values()):
            self._desk.finish_later(job, JobState.CANCELLED)
        self._jobs.clear()

    # ---- processes

    def _start(self, lane: Lane) -> None:
        warm = ("torch", "onnxruntime")
        options = BootOptions(lane.name, self._threads, "", self._niceness, warm)
        lane.link = Link(options, self._receive)
        self._links.append(lane.link)
        lane.link.start()

    def _replace(self, lane: Lane) -> None:
        """Give the lane another process; the old one is being ended and what it still says does not count."""
        if lane.link is not None:
            lane.link.stop(_STOP_GRACE_S)
        self._start(lane)

    def _queue_again(self, lane: Lane) -> None:
        """Put what was in flight back to the head of the queue; what was being cancelled is done with."""
        for job in reversed(lane.in_flight):
            if job.state is JobState.CANCELLING:
                self._jobs.pop(job.id, None)
                self._desk.finish_later(job, JobState.CANCELLED)
            else:
                self._desk.change_later(job, JobState.QUEUED)
                lane.waiting.insert(0, job)
        lane.in_flight.clear()

    def _send_next(self, lane: Lane) -> None:
        while lane.link is not None and lane.link.ready:
            job = lane.take_next()
            if job is None:
                return
            try:
                data = pickle.dumps(job.request, pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                self._jobs.pop(job.id, None)
                self._desk.finish_later(job, JobState.FAILED, failure_of(error, "sending the request"))
                continue
            lane.in_flight.append(job)
            self._attempts[job.id] = self._attempts.get(job.id, 0) + 1
            lane.link.send(Submit(job.id, data))

    # ---- messages

    def _receive(self, link: Link, message: Any) -> None:
        """Take a message from a link's thread."""
        self._desk.post(self._handle, link, message)

    def _handle(self, link: Link, message: Any) -> None:
        lane = self._lanes[link.process]
        if isinstance(message, LogLines):
            link.seen(len(message.lines))
            if self.on_log is not None:
                for line in message.lines:
                    self.on_log(link.process, line)
            return
        if isinstance(message, Died) and link in self._links:
            self._links.remove(link)
        if lane.link is not link:
            return
        if isinstance(message, Died):
            self._on_died(lane, message)
        elif isinstance(message, Ready):
            link.ready = True
            lane.failed_starts = 0
            self._send_next(lane)
        elif isinstance(message, Unreadable):
            self._on_unreadable(lane, message)
        else:
            self._on_job_message(lane, message)

    def _on_job_message(self, lane: Lane, message: Started | Progress | Partial | Finished) -> None:
        job = self._jobs.get(message.job)
        if job is None:
            return
        if isinstance(message, Started):
            self._attempts.pop(job.id, None)
            if job.state is JobState.QUEUED:
                self._desk.change(job, JobState.RUNNING)
        elif isinstance(message, Progress):
            self._desk.tell_progress(job, message)
        elif isinstance(message, Partial):
            self._desk.tell_partial(job, message.value)
        else:
            self._release(lane, job)
            self._start_run_early(lane)
            # The next job goes out first: the process works while this side tells what it has.
            self._send_next(lane)
            self._desk.finish(job, message.state, message.value, message.error)

    def _start_run_early(self, lane: Lane) -> None:
        """Start "run" once "inspect" has answered: early enough for the first run, late enough not to delay a start."""
        run = self._lanes["run"]
        if lane.name == "inspect" and run.link is None and run.failed_starts == 0:
            self._start(run)

    def _release(self, lane: Lane, job: Job) -> None:
        lane.in_flight.remove(job)
        self._jobs.pop(job.id, None)
        self._attempts.pop(job.id, None)

    def _on_unreadable(self, lane: Lane, message: Unreadable) -> None:
        if lane.in_flight:
            job = lane.in_flight[-1]
            self._release(lane, job)
            self._send_next(lane)
            title = spec_of(job.request).title
            self._desk.finish(
                job, JobState.FAILED, error=Failure(f"{title} has an answer that cannot be read ({message.reason})")
            )

    def _on_died(self, lane: Lane, died: Died) -> None:
        was_ready = lane.link is not None and lane.link.ready
        lane.link = None
        lane.failed_starts = 0 if was_ready else lane.failed_starts + 1
        restart = lane.failed_starts < _FAILED_STARTS
        victim = self._victim(lane)
        title = spec_of(victim.request).title if victim is not None else ""
        if victim is not None:
            lane.in_flight.remove(victim)
        self._queue_again(lane)
        if restart:
            self._start(lane)
        sentence = death_sentence(lane.name, died.exit_code, title, restart)
        if died.reason:
            sentence = f"The {lane.name} process could not be started ({died.reason})."
        details = "\n".join(died.log)
        if self.on_process_died is not None:
            self._desk.post(self._tell_died, lane.name, sentence)
        if victim is not None:
            self._jobs.pop(victim.id, None)
            self._attempts.pop(victim.id, None)
            what = f"the {lane.name} process ended {how_it_ended(died.exit_code)} while {title}"
            failure = Failure(what, fix="It has been started again; try once more", details=details)
            self._desk.finish(victim, JobState.KILLED, error=failure)
        if not restart:
            self._give_up(lane, sentence, details)

    def _victim(self, lane: Lane) -> Job | None:
        """Return the job that the process was busy with when it died."""
        if not lane.in_flight:
            return None
        last = lane.in_flight[-1]
        if last.state is JobState.QUEUED and self._attempts.get(last.id, 0) < _ATTEMPTS:
            # Sent, but not begun: it goes to the next process.
            started = [job for job in lane.in_flight if job.state is not JobState.QUEUED]
            return started[-1] if started else None
        return last

    def _give_up(self, lane: Lane, sentence: str, details: str) -> None:
        waiting, lane.waiting = lane.waiting, []
        for job in waiting:
            self._jobs.pop(job.id, None)
            failure = Failure(sentence, fix="See the log, then try again", details=details)
            self._desk.finish(job, JobState.FAILED, error=failure)

    def _tell_died(self, process: str, sentence: str) -> None:
        if self.on_process_died is not None:
            self.on_process_died(process, sentence)


_OPEN: list[ProcessEngine] = []
"""Engines that nobody has closed yet."""


@atexit.register
def _close_open_engines() -> None:
    """Close what a script forgot, before multiprocessing waits for children that wait for their parent."""
    for engine in tuple(_OPEN):
        engine.close(1.0)
