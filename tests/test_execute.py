"""How an attempt ends: what handlers return and raise, as outcomes."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest
from runtime_support import CLAIM, POLICY, Notes, a_handler, a_job, a_policy

from yaotask import Fail, Ignore, Retry, current_job, invoke
from yaotask.backoff import Backoff
from yaotask.clock import SECOND, microseconds
from yaotask.errors import NoCurrentJob
from yaotask.jobs import Claim, Failed, Failure, Ignored, Outcome, RetryAfter, Succeeded
from yaotask.resolve import Resolver
from yaotask.runtime.execute import Policy, ScopeCancelled, execute, execute_here, retry_or_fail, timed_out
from yaotask.runtime.failures import failure
from yaotask.settings import Limits

LAST_TRY: dict[str, Any] = {"attempt": 4}
LATEST: contextvars.ContextVar[str] = contextvars.ContextVar("latest", default="nothing")


def run(function: Callable[..., Any], policy: Policy = POLICY, **claim: Any) -> Outcome:
    """What comes of calling it in a thread."""
    return execute_here(a_job(policy=policy, **claim), a_handler(function), policy, contextvars.copy_context())


async def arun(function: Callable[..., Any], policy: Policy = POLICY, **claim: Any) -> Outcome:
    """What comes of calling it on the loop."""
    return await execute(a_job(policy=policy, **claim), a_handler(function), policy, contextvars.copy_context())


def run_raising(error: BaseException, policy: Policy = POLICY, **claim: Any) -> Outcome:
    def handler(task_id: int) -> NoReturn:
        raise error

    return run(handler, policy, **claim)


def failure_of(outcome: Outcome) -> Failure:
    assert isinstance(outcome, Failed | RetryAfter)
    return outcome.failure


# --- returning -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), ({"message": "ok"}, '{"message":"ok"}'), ((1, 2), "[1,2]"), ("任务", '"任务"'), (True, "true")],
)
async def test_what_a_handler_returns_is_the_response(value: Any, text: str) -> None:
    async def ahandler(task_id: int) -> Any:
        return value

    assert run(lambda task_id: value) == Succeeded(text)
    assert await arun(ahandler) == Succeeded(text)


class Odd(dict[str, Any]):
    def items(self) -> NoReturn:
        raise RuntimeError("changed meanwhile")


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), iter([1]), float("nan"), 2**63, {"a": {1: 2}}])
def test_a_result_that_is_not_json_fails_at_once(value: Any) -> None:
    failure = failure_of(run(lambda task_id: value))

    assert failure.type == "ResultNotJson"
    assert "$" in failure.message


def test_a_result_that_cannot_even_be_read_fails_at_once() -> None:
    outcome = run(lambda task_id: Odd(a=1))

    assert isinstance(outcome, Failed)
    assert "RuntimeError" in outcome.failure.message


def test_a_result_that_is_too_large_fails_and_names_the_setting() -> None:
    outcome = run(lambda task_id: "x" * 100, a_policy(limits=Limits(result_bytes=50)))

    assert isinstance(outcome, Failed)
    assert "limits.result_bytes" in outcome.failure.message


def test_text_that_no_database_takes_is_mended_and_told(caplog: pytest.LogCaptureFixture) -> None:
    assert run(lambda task_id: "a\0b\ud800") == Succeeded('"a␀b\ufffd"')
    assert "mail.12" in caplog.text


def test_what_set_result_was_given_counts_unless_something_is_returned() -> None:
    def handler(task_id: int, *then: Any) -> Any:
        current_job().set_result("set")
        return then[0] if then else None

    assert run(handler) == Succeeded("'set'")
    assert run(handler, args=[7]) == Succeeded("7")


# --- what handlers are called with -------------------------------------------------------------------------


def test_a_handler_gets_the_id_the_arguments_and_the_payload_by_name() -> None:
    assert run(lambda *args, **named: [args, named], args=["a", 1], payload={"to": "b"}) == Succeeded(
        '[[12,"a",1],{"to":"b"}]'
    )


def test_a_parameter_called_payload_gets_all_of_it() -> None:
    assert run(lambda task_id, payload: payload, payload={"to": "b"}) == Succeeded('{"to":"b"}')
    assert run(lambda task_id, payload: payload) == Succeeded("{}")


async def test_a_handler_knows_its_job_and_nobody_knows_it_afterwards() -> None:
    async def handler(task_id: int) -> str:
        await anyio.lowlevel.checkpoint()
        return current_job().name

    assert await arun(handler) == Succeeded('"mail.12"')
    assert run(lambda task_id: current_job().name) == Succeeded('"mail.12"')
    with pytest.raises(NoCurrentJob):
        current_job()


async def test_context_variables_of_one_job_do_not_reach_the_next() -> None:
    def handler(task_id: int) -> str:
        before = LATEST.get()
        LATEST.set("leaked")
        return before

    async def ahandler(task_id: int) -> str:
        await anyio.lowlevel.checkpoint()
        return handler(task_id)

    assert [run(handler), run(handler)] == [Succeeded('"nothing"')] * 2
    assert [await arun(ahandler), await arun(ahandler)] == [Succeeded('"nothing"')] * 2


# --- raising ---------------------------------------------------------------------------------------------


class Bounce(Exception):
    pass


class HardBounce(Bounce):
    pass


class Untellable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Exiting(dict[str, int]):
    def __len__(self) -> int:
        raise SystemExit(3)

    __iter__ = items = __len__  # type: ignore[assignment]


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Bounce()])
def test_whatever_is_raised_in_a_thread_is_a_failed_try(error: BaseException) -> None:
    assert isinstance(run_raising(error), RetryAfter)
    assert isinstance(run_raising(error, **LAST_TRY), Failed)


async def test_sys_exit_on_a_loop_is_a_failed_try() -> None:
    async def handler(task_id: int) -> None:
        raise SystemExit(3)

    assert failure_of(await arun(handler)).type == "SystemExit"


async def interrupt(task_id: int) -> None:
    raise KeyboardInterrupt


class Interrupting(dict[str, int]):
    def __len__(self) -> int:
        raise KeyboardInterrupt

    __iter__ = items = __len__  # type: ignore[assignment]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


async def return_what_interrupts(task_id: int) -> Interrupting:
    return Interrupting()


async def raise_what_interrupts(task_id: int) -> None:
    raise Unspeakable


INTERRUPTING = [interrupt, return_what_interrupts, raise_what_interrupts]


@pytest.mark.parametrize("handler", INTERRUPTING)
async def test_a_keyboard_interrupt_on_a_loop_passes(handler: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        await arun(handler)


@pytest.mark.parametrize("handler", INTERRUPTING)
async def test_where_signals_are_heard_it_is_the_handlers_own(handler: Any) -> None:
    invoke.expect_no_interrupt()

    assert isinstance(await arun(handler, **LAST_TRY), Failed)


@pytest.mark.parametrize("handler", INTERRUPTING)
def test_in_a_thread_it_is_always_the_handlers_own(handler: Any) -> None:
    assert isinstance(run(handler, **LAST_TRY), Failed)


def test_the_failure_says_type_and_message() -> None:
    failure = failure_of(run_raising(ValueError("bad")))

    assert (failure.type, failure.message) == ("ValueError", "bad")
    assert str(failure) == "bad"
    assert "raise error" in str(failure.traceback)
    assert str(failure.traceback).endswith("\nValueError: bad")


def test_fail_ends_the_job_with_its_response() -> None:
    assert run_raising(Fail("bad address", response={"code": 5})) == Failed(
        failure_of(run_raising(Fail("bad address"))), '{"code":5}'
    )


def test_a_response_of_fail_that_cannot_be_stored_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    outcome = run_raising(Fail("bad address", response={1, 2}))

    assert isinstance(outcome, Failed)
    assert outcome.result is None
    assert "mail.12" in caplog.text


def test_ignore_ends_the_job_as_ignored() -> None:
    assert run_raising(Ignore("already sent")) == Ignored("already sent")


class Curt(Fail):
    def __init__(self, code: int) -> None:
        self.code = code


class CurtRetry(Retry):
    def __init__(self, code: int) -> None:
        self.code = code


def test_subclasses_that_skip_our_init_count_as_what_they_are() -> None:
    assert isinstance(run_raising(Curt(5)), Failed)
    assert isinstance(run_raising(CurtRetry(5)), RetryAfter)


@pytest.mark.parametrize("error", [Bounce("x"), HardBounce("x")])
def test_fail_on_and_ignore_on_take_subclasses(error: Exception) -> None:
    failed = run_raising(error, a_policy(fail_on=(ValueError, Bounce)))
    ignored = run_raising(error, a_policy(ignore_on=(Bounce,)))

    assert isinstance(failed, Failed)
    assert ignored == Ignored("x")


def test_ignore_on_wins_over_fail_on_and_what_is_in_neither_is_retried() -> None:
    policy = a_policy(fail_on=(Bounce,), ignore_on=(HardBounce,))

    assert run_raising(HardBounce("x"), policy) == Ignored("x")
    assert isinstance(run_raising(ValueError(), policy), RetryAfter)


# --- arguments that do not fit -----------------------------------------------------------------------------


async def test_arguments_that_do_not_fit_fail_without_retry() -> None:
    def handler(task_id: int) -> None: ...

    async def ahandler(task_id: int) -> None: ...

    for outcome in (run(handler, args=[1]), await arun(ahandler, args=[1])):
        assert isinstance(outcome, Failed)
        assert outcome.failure.type == "InvalidPayload"
        assert "too many positional arguments" in outcome.failure.message


def test_a_type_error_inside_the_handler_is_retried() -> None:
    assert isinstance(run(lambda task_id: len(task_id)), RetryAfter)


# --- asking for a retry --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (2, 2 * SECOND),
        (0.5, SECOND // 2),
        ("5m", 300 * SECOND),
        (timedelta(hours=1), 3600 * SECOND),
        (timedelta(seconds=-5), 0),
        (None, SECOND // 5),
    ],
)
def test_a_retry_comes_when_the_handler_wants(after: Any, expected: int) -> None:
    outcome = run_raising(Retry("later", after=after))

    assert isinstance(outcome, RetryAfter)
    assert (outcome.after, outcome.at, outcome.failure.message) == (expected, None, "later")


@pytest.mark.parametrize(
    "wish",
    [
        {"after": "soon"},
        {"after": -1},
        {"after": float("nan")},
        {"after": True},
        {"after": timedelta.max},
        {"at": datetime(2027, 1, 1)},  # noqa: DTZ001 - it is refused for that
        {"at": 5},
    ],
)
def test_a_wish_that_makes_no_sense_is_logged_and_the_definition_counts(
    wish: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = run_raising(Retry(**wish))

    assert isinstance(outcome, RetryAfter)
    assert (outcome.after, outcome.at) == (SECOND // 5, None)
    assert "mail.12" in caplog.text


def test_a_retry_may_name_its_instant() -> None:
    moment = datetime(2027, 1, 1, tzinfo=UTC)
    outcome = run_raising(Retry(at=moment))

    assert isinstance(outcome, RetryAfter)
    assert outcome.at == microseconds(moment)


def test_a_retry_that_is_not_left_is_a_failure() -> None:
    assert isinstance(run_raising(Retry(after=1), **LAST_TRY), Failed)


# --- counting tries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_the_task", "of_the_job", "attempt", "another"),
    [(3, None, 3, True), (3, None, 4, False), (0, None, 1, False), (3, 0, 1, False), (0, 2, 2, True), (0, 2, 3, False)],
)
def test_there_is_one_try_and_so_many_retries(
    of_the_task: int, of_the_job: int | None, attempt: int, another: bool
) -> None:
    claim = CLAIM._replace(attempts=of_the_job, attempt=attempt)
    outcome = retry_or_fail(Failure("ValueError", "bad"), claim, a_policy(attempts=of_the_task))

    assert isinstance(outcome, RetryAfter) is another


def test_waits_grow_as_the_definition_says() -> None:
    policy = a_policy(attempt_after=timedelta(seconds=1), backoff=Backoff("quadratic"))
    waits = [retry_or_fail(Failure("E", ""), CLAIM._replace(attempt=n), policy) for n in (1, 2, 3)]

    assert [outcome.after // SECOND for outcome in waits if isinstance(outcome, RetryAfter)] == [1, 4, 9]


@pytest.mark.parametrize(("claim", "limit"), [(CLAIM, "30s"), (CLAIM._replace(timeout=500), "500ms")])
def test_a_timeout_is_a_failed_try_and_says_its_limit(claim: Claim, limit: str) -> None:
    again, last = timed_out(claim, POLICY), timed_out(claim._replace(attempt=4), POLICY)

    assert isinstance(again, RetryAfter)
    assert isinstance(last, Failed)
    assert last.failure.type == "TimeoutError"
    assert limit in last.failure.message


# --- cancellation ------------------------------------------------------------------------------------------------


async def test_a_cancelled_handler_is_told_apart() -> None:
    async def handler(task_id: int) -> None:
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(ScopeCancelled):
            await arun(handler)


async def test_a_handler_that_swallows_its_cancellation_ends_as_it_likes() -> None:
    async def handler(task_id: int) -> str:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            pass
        return "stayed"

    with anyio.CancelScope() as scope:
        scope.cancel()
        outcome = await arun(handler)

    assert outcome == Succeeded('"stayed"')


def test_waiting_for_a_task_that_was_cancelled_is_a_failed_try() -> None:
    async def handler(task_id: int) -> None:
        task = asyncio.ensure_future(asyncio.sleep(9))
        task.cancel()
        await task

    async def main() -> Outcome:
        return await arun(handler)

    assert failure_of(asyncio.run(main())).type == "asyncio.exceptions.CancelledError"


# --- telling what went wrong ---------------------------------------------------------------------------------------


def test_what_a_handler_holds_is_let_go_where_it_leaves_no_memory_to_tell_of_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Much:
        pass

    taken: list[weakref.ref[Much]] = []

    def handler(task_id: int) -> None:
        much = Much()
        taken.append(weakref.ref(much))
        raise ValueError("no")

    def told(*arguments: Any) -> Failure:
        if taken[-1]() is not None:
            raise MemoryError
        return failure(*arguments)

    monkeypatch.setattr("yaotask.runtime.execute.failure", told)

    assert failure_of(run(handler)).type == "ValueError"


def test_an_exception_that_cannot_be_told_still_ends_the_try() -> None:
    failure = failure_of(run_raising(Untellable()))

    assert failure.message == "(its message cannot be told: RuntimeError)"


def test_a_message_that_exits_when_it_is_read_ends_only_the_try() -> None:
    failure = failure_of(run_raising(Leaving()))

    assert failure.message == "(its message cannot be told: SystemExit)"


def test_a_result_that_exits_when_it_is_read_ends_only_the_job() -> None:
    failure = failure_of(run(lambda task_id: Exiting(a=1)))

    assert failure.type == "ResultNotJson"
    assert failure.message.endswith("cannot be read: SystemExit")


def test_text_that_no_database_takes_is_mended_in_failures_too() -> None:
    failure = failure_of(run_raising(ValueError("a\0b\ud800")))

    assert failure.message == "a␀b\ufffd"
    assert "\0" not in str(failure.traceback)


def test_a_huge_message_is_cut_and_leaves_room_for_where_it_was_raised() -> None:
    policy = a_policy(limits=Limits(error_bytes=2_000))
    failure = failure_of(run_raising(ValueError("x" * 100_000), policy))

    assert len(failure.message.encode()) <= 2_000
    assert len(str(failure.traceback).encode()) <= 2_000
    assert "raise error" in str(failure.traceback)
    assert "[cut from" in str(failure.traceback)


def test_of_a_long_traceback_the_end_is_kept() -> None:
    def dig(deep: int) -> int:
        return 1 // deep if deep == 0 else dig(deep - 1)

    policy = a_policy(limits=Limits(error_bytes=1_500))
    failure = failure_of(run(lambda task_id: dig(100), policy))

    assert len(str(failure.traceback).encode()) <= 1_500
    assert str(failure.traceback).endswith("ZeroDivisionError: integer division or modulo by zero")
    assert str(failure.traceback).count("dig(deep - 1)") > 2


def test_an_endless_recursion_is_a_failed_try() -> None:
    def dig(task_id: int) -> int:
        return dig(task_id) + 1

    assert failure_of(run(dig)).type == "RecursionError"


async def test_our_own_frames_are_not_in_the_traceback() -> None:
    async def ahandler(task_id: int) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("bad")

    for outcome in (run_raising(ValueError("bad")), await arun(ahandler)):
        assert "/yaotask/" not in str(failure_of(outcome).traceback).replace("/tests/", "")
        assert "test_execute.py" in str(failure_of(outcome).traceback)


def test_names_of_exceptions_of_scripts_are_as_users_write_them(project: Callable[..., Path]) -> None:
    script = """
        class Bounce(Exception):
            pass

        def Send(task_id):
            raise Bounce("no such box")
    """
    resolver = Resolver(project(scripts={"mail": script}))
    failure = failure_of(run(resolver.resolve("scripts.mail.Send")))
    resolver.close()

    assert failure.type == "scripts.mail.Bounce"
    assert str(failure.traceback).endswith("scripts.mail.Bounce: no such box")
    assert "_yaotask_scripts_" not in str(failure.traceback)


def test_nothing_is_said_of_a_job_that_has_no_words() -> None:
    desk = Notes.empty()
    execute_here(a_job(desk), a_handler(lambda task_id: None), POLICY, contextvars.copy_context())

    assert (desk.stored, desk.announced) == ([], [])
