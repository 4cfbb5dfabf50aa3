"""What an idle worker costs a server: one statement for each poll, however many tasks it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from store_support import EVERY_EVENT, Bench, EvenChance, Postman, an_add, answer
from test_ledger import Taker

from yaotask.clock import SECOND
from yaotask.jobs import Claim
from yaotask.store import direct, statements
from yaotask.store.direct import execute, in_style
from yaotask.store.hints import EVERYWHERE
from yaotask.store.ledger import Ledger
from yaotask.store.protocol import Glance, Started
from yaotask.values import dumps

pytest_plugins = ["store_fixtures"]
pytestmark = [pytest.mark.only_on("postgresql", "mariadb"), pytest.mark.timeout(60)]

TASKS = [f"task{number}" for number in range(50)]
WORKER = "INSERT INTO yaotask_workers (key, incarnation, host, pid, started_at) VALUES (1, 'one', '', 1, 0)"


@contextmanager
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """What the ledger asks the server meanwhile."""
    seen: list[tuple[str, Any]] = []
    run = direct.run

    def note(cursor: Any, statement: str, values: Any) -> None:
        seen.append((statement, values))
        run(cursor, statement, values)

    with monkeypatch.context() as patch:
        patch.setattr(direct, "run", note)
        yield seen


@pytest.fixture
def takers() -> dict[str, Taker]:
    return {task: Taker() for task in TASKS}


@pytest.fixture
def ledger(bench: Bench, takers: dict[str, Taker]) -> Ledger:
    bench.write(WORKER)
    ledger = Ledger(bench.store, bench.clock, EvenChance())
    ledger.employ(1, takers, Postman(*TASKS))
    ledger.turn()
    return ledger


def poll(bench: Bench, ledger: Ledger) -> None:
    bench.clock.advance(2)
    while ledger.turn() == 0.0:
        pass


# --- how much is asked -------------------------------------------------------------------------------


def test_an_idle_poll_is_one_statement(bench: Bench, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked(monkeypatch) as seen:
        for _ in range(3):
            poll(bench, ledger)

    glance = in_style(bench.store.dialect.statements.GLANCE or "", name(bench))
    assert [statement for statement, _ in seen] == [glance] * 3


def test_a_poll_finds_what_others_have_added_and_asks_of_no_other_task(
    bench: Bench, ledger: Ledger, takers: dict[str, Taker], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(2, task="task7")
    with asked(monkeypatch) as seen:
        poll(bench, ledger)

    assert takers["task7"].ids == [1, 2]
    assert {values["task"] for _, values in seen if "task" in values} == {"task7"}


def test_a_poll_finds_what_is_due(bench: Bench, ledger: Ledger, takers: dict[str, Taker]) -> None:
    bench.add(task="task7", run_at=bench.clock.now() + 3 * SECOND)
    poll(bench, ledger)
    before = list(takers["task7"].ids)
    poll(bench, ledger)

    assert (before, takers["task7"].ids) == ([], [1])


def test_a_poll_finds_what_others_have_cancelled(bench: Bench, ledger: Ledger, takers: dict[str, Taker]) -> None:
    bench.add(task="task7")
    poll(bench, ledger)
    (claim,) = takers["task7"].claims
    bench.cycle(worker=1, started=[started(bench, claim)])
    bench.errand(lambda cycle: cycle.cancel("task7", 1))
    poll(bench, ledger)

    assert takers["task7"].cancelled_claims == [(claim.key, claim.fence)]


# --- hints -------------------------------------------------------------------------------------------


def test_of_tasks_that_a_hint_names_jobs_are_claimed_without_a_look(
    bench: Bench, ledger: Ledger, takers: dict[str, Taker], monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("task7", "task8"):
        bench.add(task=task)
    ledger.hinted(frozenset({"task7", "nobody's"}))
    with asked(monkeypatch) as seen:
        ledger.turn()

    assert (takers["task7"].ids, takers["task8"].ids) == ([1], [])
    looks = (bench.store.dialect.statements.GLANCE or "", statements.ANY_READY)
    assert not {statement for statement, _ in seen} & {in_style(look, name(bench)) for look in looks}


def test_a_hint_of_tasks_that_nobody_runs_costs_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.hinted(frozenset({"nobody's", ""}))
    with asked(monkeypatch) as seen:
        ledger.turn()

    assert seen == []


def test_a_hint_that_names_none_lets_the_ledger_look_everywhere(
    bench: Bench, ledger: Ledger, takers: dict[str, Taker]
) -> None:
    bench.add(task="task7")
    ledger.hinted(frozenset({"task8"}))
    ledger.hinted()
    ledger.turn()

    assert takers["task7"].ids == [1]


def test_who_adds_says_of_which_task_or_to_look_everywhere_where_hooks_are_to_be_told(bench: Bench) -> None:
    adder, told = Ledger(bench.store, bench.clock, EvenChance()), list[object]()
    adder.hint = told.append
    for add in (an_add(task="task7"), an_add(task="task8", events=EVERY_EVENT)):
        adder.add(add)
        adder.turn()

    assert told == [{"task7"}, EVERYWHERE]


def test_what_callers_own_transactions_have_left_is_to_be_looked_for_everywhere(bench: Bench, ledger: Ledger) -> None:
    told: list[object] = []
    ledger.hint = told.append
    with bench.store.readers.connect() as connection:
        execute(connection, "BEGIN")
        with bench.store.borrow(connection) as cycle:
            cycle.add(an_add(task="nobody's", size=5))
        execute(connection, "COMMIT")
    # Something of ours comes with them.
    bench.add(task="task7")
    poll(bench, ledger)

    assert told == [EVERYWHERE]


def test_hints_that_nobody_comes_to_hear_are_kept_as_one(
    bench: Bench, ledger: Ledger, takers: dict[str, Taker]
) -> None:
    bench.add(task="task7")
    for number in range(100_000):
        ledger.hinted(frozenset({f"other{number}"}))
    kept = len(ledger._lookout._hints)
    ledger.turn()

    assert kept < 1_000
    assert takers["task7"].ids == [1]


# --- what is seen ------------------------------------------------------------------------------------


def test_a_glance_sees_what_single_looks_see(bench: Bench) -> None:
    store, soon = bench.store, bench.clock.now() + SECOND
    bench.add(3, task="ready")
    bench.add(task="heard", events=EVERY_EVENT)
    bench.add(task="future", run_at=soon)
    bench.add(task="taken")
    claim = bench.claim_one(task="taken")
    bench.cycle(worker=1, started=[started(bench, claim)])
    tasks = ["ready", "heard", "future", "taken", "none", "Ready", "ready "]
    calm = glance(bench, 1, tasks, ["ready", "none"])
    bench.errand(lambda cycle: cycle.cancel("taken", 1))
    seen = glance(bench, 1, tasks, ["none", "heard"])

    ready = frozenset(task for task in tasks if store.any_ready(task))

    assert calm == Glance(soon, None, ready, asked_to_stop=False, owed=False)
    assert calm.ready == {"ready"}
    assert seen == Glance(soon, store.next_event(("none", "heard")), ready, asked_to_stop=True, owed=False)
    assert seen.next_event == bench.clock.now()
    assert not glance(bench, 2, tasks, []).asked_to_stop


def test_names_that_json_must_escape_are_seen(bench: Bench) -> None:
    task = "a\"b'c\\d:e%(f)s 任务"
    bench.adds(an_add(task=task))

    assert glance(bench, 1, [task], [task]).ready == {task}


@pytest.mark.parametrize("analyzed", [False, True])
def test_a_glance_reads_no_table_from_end_to_end(bench: Bench, analyzed: bool) -> None:
    for _ in range(2):
        answer(bench.adds(an_add(3_000, events=EVERY_EVENT))[0])
    bench.add(3_000)
    bench.add(3_000, run_at=bench.clock.now() + 3600 * SECOND)
    if analyzed:
        analyze(bench)
    values = {"worked": dumps(["mail", *TASKS]), "told": dumps(["mail", *TASKS]), "worker": 1}

    assert whole_reads(bench, bench.store.dialect.statements.GLANCE or "", values) == []


def name(bench: Bench) -> str:
    return "mysql" if bench.store.dialect.name == "mysql" else "postgresql"


def glance(bench: Bench, worker: int, tasks: list[str], told: list[str]) -> Glance:
    seen = bench.store.glance(worker, tasks, told)
    assert seen is not None
    return seen


def started(bench: Bench, claim: Claim) -> Started:
    return Started(claim.key, claim.fence, bench.clock.now())


def analyze(bench: Bench) -> None:
    tables = ("yaotask_jobs", "yaotask_events")
    with bench.store.reading() as connection:
        if name(bench) == "mysql":
            connection.exec_driver_sql(f"ANALYZE TABLE {', '.join(tables)}")
        else:
            connection.exec_driver_sql(f"ANALYZE {', '.join(tables)}")


def whole_reads(bench: Bench, statement: str, values: dict[str, Any]) -> list[str]:
    """The steps of a plan that read all of a table of ours."""
    with bench.store.reading() as connection:
        rows = connection.exec_driver_sql(in_style(f"EXPLAIN {statement}", name(bench)), values).mappings().all()
    if name(bench) == "postgresql":
        return [row["QUERY PLAN"] for row in rows if "Seq Scan on yaotask" in row["QUERY PLAN"]]
    ours = ("job", "event", "earlier", "yaotask_jobs")
    return [str(dict(row)) for row in rows if row["table"] in ours and row["type"] in ("ALL", "index")]
