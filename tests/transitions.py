"""The table of transitions as triggers: a store that has them refuses each change of a job that is not in the table."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.engine import Connection

# The rules are written once; databases have their own words for being equal where both may be NULL.
_SAME = {"sqlite": "IS", "postgresql": "IS NOT DISTINCT FROM", "mysql": "<=>", "mariadb": "<=>"}

# Every change of a job that the table of transitions allows, by its row of the table.
_ALLOWED = """
    NEW.key = OLD.key AND NEW.task = OLD.task AND NEW.id = OLD.id AND CASE
    -- T2
    WHEN OLD.state IN (0, 5) AND NEW.state = 1 THEN NEW.fence > OLD.fence AND NEW.attempt = OLD.attempt + 1
        AND NEW.generation = OLD.generation AND NEW.worker IS NOT NULL AND NEW.started_at IS NULL
    -- T8
    WHEN OLD.state IN (0, 5) AND NEW.state = 6 THEN NEW.fence = OLD.fence + 1 AND NEW.attempt = OLD.attempt
        AND NEW.generation = OLD.generation
    -- T9, ended by whoever buries its worker
    WHEN OLD.state = 1 AND NEW.state = 6 AND NEW.fence = OLD.fence + 1 AND OLD.cancel_at IS NOT NULL
        THEN NEW.attempt = OLD.attempt AND NEW.generation = OLD.generation AND NEW.worker IS NULL
    -- T8 of a claim that was not started
    WHEN OLD.state = 1 AND NEW.state = 6 AND NEW.fence = OLD.fence + 1 THEN NEW.attempt = OLD.attempt - 1
        AND NEW.generation = OLD.generation AND OLD.started_at IS NULL
    -- T7
    WHEN OLD.state = 1 AND NEW.fence = OLD.fence + 1 THEN NEW.state IN (3, 5)
        AND NEW.attempt = CASE WHEN NEW.state = 5 THEN OLD.attempt - 1 ELSE OLD.attempt END
        AND NEW.generation = OLD.generation AND NEW.deaths = OLD.deaths + 1 AND NEW.losses >= OLD.losses
        AND NEW.losses >= 1 AND NEW.worker IS NULL
    -- T10
    WHEN OLD.state = 1 AND NEW.state IN (0, 5) AND NEW.attempt = OLD.attempt - 1 THEN NEW.fence = OLD.fence
        AND NEW.generation = OLD.generation AND NEW.worker IS NULL
        AND (NEW.state = 5) = (NEW.attempt > 0 OR OLD.losses > 0)
    -- T4, T5, T6, and the end of T9
    WHEN OLD.state = 1 AND NEW.state IN (2, 3, 5, 6, 7) THEN NEW.fence = OLD.fence AND NEW.attempt = OLD.attempt
        AND NEW.generation = OLD.generation AND NEW.worker IS NULL
    -- T11, round again
    WHEN OLD.state IN (3, 6) AND NEW.state = 0 THEN NEW.generation = OLD.generation + 1 AND NEW.fence = OLD.fence
        AND NEW.attempt = 0 AND NEW.losses = 0 AND NEW.deaths = 0 AND NEW.result IS NULL AND NEW.finished_at IS NULL
    -- T11, given up
    WHEN OLD.state = 3 AND NEW.state = 6 THEN NEW.generation = OLD.generation + 1 AND NEW.fence = OLD.fence
        AND NEW.attempt = OLD.attempt
    -- what has ended stays as it is
    WHEN OLD.state IN (2, 3, 6, 7) THEN NEW.state = OLD.state AND NEW.fence = OLD.fence
        AND NEW.attempt = OLD.attempt AND NEW.generation = OLD.generation
        AND NEW.result {same} OLD.result AND NEW.finished_at {same} OLD.finished_at
    -- T3, and becoming ready
    ELSE NEW.state = OLD.state AND NEW.fence = OLD.fence AND NEW.attempt = OLD.attempt
        AND NEW.generation = OLD.generation AND NEW.worker {same} OLD.worker
    END
"""

# Of each rule its name, when it looks, what must not be true, and what is said of it.
_RULES = (
    ("only_known_changes", "UPDATE", f"NOT ({_ALLOWED})", "no such transition"),
    (
        "only_two_ends_of_what_was_asked_to_stop",
        "UPDATE",
        "OLD.state = 1 AND OLD.cancel_at IS NOT NULL"
        " AND NOT (NEW.state IN (1, 2, 6) AND NEW.cancel_at = OLD.cancel_at)",
        "it was asked to stop",
    ),
    (
        "only_waiting_jobs",
        "INSERT",
        "NOT (NEW.state = 0 AND NEW.fence = 0 AND NEW.attempt = 0 AND NEW.generation = 0 AND NEW.worker IS NULL)",
        "a job begins as WAITING",
    ),
    ("only_ended_jobs", "DELETE", "OLD.state NOT IN (2, 3, 6, 7)", "only what has ended may go"),
)


def hold(connection: Connection) -> None:
    """From now on the database allows no other transition."""
    for name, moment, wrong, said in _RULES:
        refuse(connection, name, moment, wrong.replace("{same}", _SAME[connection.dialect.name]), said)


def release(connection: Connection, name: str = "only_known_changes") -> None:
    """Let a test put jobs into any state, or do whatever else the trigger of this name refuses."""
    table = " ON yaotask_jobs" if connection.dialect.name == "postgresql" else ""
    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}{table}")


def refuse(connection: Connection, name: str, moment: str, wrong: str, said: str) -> None:
    """A trigger on jobs: what is `wrong` is refused, and `said` of it."""
    write = {"sqlite": _sqlite, "postgresql": _postgresql}.get(connection.dialect.name, _mariadb)
    for statement in write(name, moment, wrong, said):
        connection.exec_driver_sql(statement)


def _sqlite(name: str, moment: str, wrong: str, said: str) -> Iterable[str]:
    yield f"""
        CREATE TRIGGER {name} BEFORE {moment} ON yaotask_jobs WHEN {wrong}
        BEGIN SELECT RAISE(ABORT, '{said}'); END
    """


def _postgresql(name: str, moment: str, wrong: str, said: str) -> Iterable[str]:
    yield f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF {wrong} THEN RAISE EXCEPTION '{said}' USING ERRCODE = 'integrity_constraint_violation'; END IF;
        RETURN {"OLD" if moment == "DELETE" else "NEW"};
        END $$
    """
    yield f"CREATE TRIGGER {name} BEFORE {moment} ON yaotask_jobs FOR EACH ROW EXECUTE FUNCTION {name}()"


def _mariadb(name: str, moment: str, wrong: str, said: str) -> Iterable[str]:
    # 1451: its driver tells what is not allowed by this number alone.
    yield f"""
        CREATE TRIGGER {name} BEFORE {moment} ON yaotask_jobs FOR EACH ROW BEGIN
        IF {wrong} THEN SIGNAL SQLSTATE '23000' SET MESSAGE_TEXT = '{said}', MYSQL_ERRNO = 1451; END IF;
        END
    """
