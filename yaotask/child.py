"""A process that runs jobs and calls hooks for a worker, one after the other, and may die of them.

There may be many, and a dead one is replaced while its job waits: what few handlers need is imported when one does.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable, Collection
from contextlib import closing
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, cast

from yaotask import invoke, processes, requests
from yaotask.chance import SystemChance
from yaotask.channel import Channel, Message
from yaotask.clock import Clock, SystemClock
from yaotask.context import Job, Owner, job_name
from yaotask.errors import HandlerNotFound, NoCurrentJob, UnknownTask, YaotaskError
from yaotask.events import Delivery
from yaotask.jobs import Claim, Outcome, Succeeded
from yaotask.observers import logs
from yaotask.project import Project
from yaotask.runtime import wire
from yaotask.runtime.attempt import Attempt
from yaotask.runtime.bench import Bench, Benches
from yaotask.runtime.execute import execute_here
from yaotask.store.forks import forks
from yaotask.store.protocol import Finish, Progress

if TYPE_CHECKING:
    from yaotask.app import App
    from yaotask.store.transactions import Transaction

log = logging.getLogger(__name__)

DONE, FAULTY, ORPHANED = 0, 1, 1


def main(arguments: list[str]) -> int:
    """Live as a child; the exit status."""
    channel, hello = processes.adopted(arguments)
    try:
        with closing(Project(hello["root"], hello["settings"], hello["sound"])) as project:
            logs.configure(project.settings.log)
            logs.take_in_users(job_name)
            with closing(Child(project, channel)) as child:
                child.live()
    except YaotaskError as error:
        channel.send({"complaint": str(error)})
        return FAULTY
    return DONE


class Child:
    """Runs jobs in this thread, which is the main one, so that handlers may use signals; another hears the worker."""

    def __init__(self, project: Project, channel: Channel) -> None:
        self._project = project
        self._channel = channel
        self._clock, self._chance = SystemClock(), SystemChance()
        self._owner = Owner(self._app)
        self._makes = Benches(project, self._clock, self._chance, self._owner)
        self._wire = Wire(channel)
        self._limit = Limit(self._clock)
        self._benches: dict[str, Bench] = {}
        self._orders: SimpleQueue[Message | None] = SimpleQueue()
        self._attempt: Attempt | None = None
        self._is_at_work = False
        self._is_asked_to_stop = False
        self._pid = os.getpid()

    def live(self) -> None:
        """Until the worker wants no more."""
        threading.Thread(target=self._listen, name="yaotask-worker", daemon=True).start()
        # What it takes to import the scripts is not of any job's time; what is wrong with one, its jobs will say.
        self._project.broken()
        if any(definition.transaction for definition in self._project.catalog.tasks.values()):
            _ = self._owner.app
        logs.revive()
        self._channel.send({"ready": True})
        with invoke.keeping_a_loop(_loop_ended):
            while (order := self._orders.get()) is not None:
                if "hook" in order:
                    self._call_hook(order["path"], Delivery(*order["hook"]))
                else:
                    self._obey(Claim(*order["run"]), order["started"])

    def close(self) -> None:
        """Write what jobs have asked for."""
        if self._owner.has_app:
            self._owner.app.close()

    def transaction(self) -> Transaction:
        """See Vault."""
        return cast("App", self._owner.app).works.access.opened.store.transaction()

    def _app(self) -> App:
        # With all that a store needs, SQLAlchemy first of all.
        # What is forked while another thread imports would wait for that thread, which it has not.
        with forks.held_off():
            make: Callable[..., App] = importlib.import_module("yaotask.app").app_of
        return make(self._project, self._clock, self._chance, self._owner)

    def _listen(self) -> None:
        while (message := self._channel.receive()) is not None:
            if "cancel" in message:
                self._is_asked_to_stop = True
                if (attempt := self._attempt) is not None:
                    attempt.ask_to_stop()
            else:
                self._is_at_work, self._is_asked_to_stop = True, False
                self._orders.put(message)
        if self._is_at_work:
            # The worker is gone, and its jobs are for others.
            os._exit(ORPHANED)
        self._orders.put(None)

    def _obey(self, claim: Claim, started: int) -> None:
        try:
            bench = self._bench(claim.task)
        except (HandlerNotFound, UnknownTask) as error:
            self._is_at_work = False
            self._channel.send({"refused": str(error)})
        else:
            self._run(claim, started, bench)

    def _call_hook(self, path: str, delivery: Delivery) -> None:
        error = self._makes.call_hook(path, delivery)
        if os.getpid() != self._pid:
            os._exit(DONE)
        self._is_at_work = False
        self._channel.send({"told": error})

    def _bench(self, task: str) -> Bench:
        bench = self._benches.get(task)
        if bench is None:
            bench = self._benches[task] = self._makes.bench(task, self._wire, self, self._limit)
        return bench

    def _run(self, claim: Claim, started: int, bench: Bench) -> None:
        requests.hear()
        policy = bench.policy
        job = Job(claim, bench.desk, started, policy.attempts_of(claim), policy.timeout_of(claim))
        attempt = self._attempt = self._limit.attempt = Attempt(job, self._clock.monotonic(), None)
        if self._is_asked_to_stop:
            attempt.ask_to_stop()
        others = set(threading.enumerate())
        outcome = execute_here(job, bench.handler, policy, bench.start)
        if os.getpid() != self._pid:
            # What the handler forked must not go on as a second child.
            os._exit(0 if type(outcome) is Succeeded else 1)
        self._end(attempt, outcome, bench, others)

    def _end(self, attempt: Attempt, outcome: Outcome, bench: Bench, others: Collection[threading.Thread]) -> None:
        last: Message = {"lost": True}
        if attempt.job.open_transaction is not None:
            outcome = bench.desk.conclude(attempt, outcome)
            last = self._wire.last_word() or last
        if attempt.close():
            bench.desk.leave_word(attempt.job)
            last = {"outcome": wire.written(outcome)}
        self._limit.lift()
        self._attempt, self._is_at_work = None, False
        # A thread that it waited for goes on: no other job shall be beside it.
        is_spent = attempt.cancelling and invoke.is_async(bench.handler.function) and _has_more_than(others)
        self._channel.send({**last, "spent": True} if is_spent else last)


def _has_more_than(threads: Collection[threading.Thread]) -> bool:
    """Whether users' code has more threads than these."""
    return any(one not in threads and not one.name.startswith("yaotask-") for one in threading.enumerate())


def _loop_ended(error: BaseException) -> NoReturn:
    """What a handler has left on the loop has ended it: that is no fault of the job that runs, which is tried again."""
    log.critical("the event loop of this process was ended by users' code", exc_info=error)
    os._exit(FAULTY)


class Wire:
    """Takes what the desk has for the store to the worker, whose ledger writes it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pid = os.getpid()
        self._last: Message | None = None

    def progress(self, note: Progress) -> None:
        """Before the end: a channel keeps the order. Raises NoCurrentJob in a process that the handler has forked."""
        if os.getpid() != self._pid:
            # It may outlive the job, and its parent may send meanwhile.
            raise NoCurrentJob("this process was forked from one that runs the job, and has none itself")
        self._channel.send({"progress": note.changes})

    def finish(self, finish: Finish) -> None:
        """A transaction could not be committed."""
        self._last = {"outcome": wire.written(finish.outcome)}

    def committed(self, outcome: Outcome) -> None:
        """A transaction was committed, and with it the end of the attempt."""
        self._last = {"committed": wire.written(outcome)}

    def last_word(self) -> Message | None:
        """What became of the transaction, where it was to be committed and its claim still held."""
        last, self._last = self._last, None
        return last


class Limit:
    """Cuts off the transaction of the job that runs, where it is open for too long."""

    def __init__(self, clock: Clock) -> None:
        self.attempt: Attempt | None = None
        self._clock = clock
        self._lifted: threading.Event | None = None

    def wake_by(self, moment: float) -> None:
        """At this moment its time is up."""
        opened: Any = self.attempt.job.open_transaction if self.attempt is not None else None
        if opened is not None:
            self._lifted, left = threading.Event(), moment - self._clock.monotonic()
            call = (self._lifted, left, opened.transaction.expire)
            threading.Thread(target=_call_unless, args=call, name="yaotask-limit", daemon=True).start()

    def lift(self) -> None:
        """The job has ended."""
        lifted, self._lifted = self._lifted, None
        if lifted is not None:
            lifted.set()


def _call_unless(lifted: threading.Event, seconds: float, function: Callable[[], object]) -> None:
    if not lifted.wait(max(0.0, seconds)):
        function()
