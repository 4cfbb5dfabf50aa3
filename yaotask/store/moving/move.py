"""The steps of a move, in their order.

The store that is left is settled and closed, so that nothing in it changes any more; its tables are copied, a batch
at a time; both sides are compared; and only then can the other one be used. Whatever ends this in the middle, the
same move begun again goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

from sqlalchemy import Table, func, select
from sqlalchemy.engine import Connection

from yaotask.chance import Chance
from yaotask.clock import Clock
from yaotask.jobs import JobState
from yaotask.store import opening, tables
from yaotask.store.moving import copying, source, target, words
from yaotask.store.moving.copying import Copy, Note
from yaotask.store.moving.side import MoveRefused, Side, counts, held, must_be_alone, opened
from yaotask.store.moving.words import ARRIVING, COPIED, LEAVING, Arriving, Leaving
from yaotask.store.opening import Place

__all__ = ["MoveRefused", "Moved", "Step", "move", "undo"]


class Step(NamedTuple):
    """How far a move is, for people: `done` of `total` rows."""

    what: str
    done: int
    total: int


T = TypeVar("T")
Tell = Callable[[Step], None]


class Moved(NamedTuple):
    """What was moved: `jobs` by state, `rows` by table, and the `checksum` that both sides have."""

    store_id: str
    jobs: Mapping[str, int]
    rows: Mapping[str, int]
    checksum: str


def move(here: Place, there: Place, clock_of: Callable[[], Clock], chance: Chance, tell: Tell) -> Moved:
    """Carry a store to another place, or go on with that. Each side has a clock of its own, which follows its server's.

    Raises MoveRefused where another process does so, where nodes run, where the other place holds something else, or
    where the sides differ in the end; StorageError where one of them fails, and then the same move can be begun again.
    """
    with opened(here, clock_of(), chance) as one, opened(there, clock_of(), chance) as other:
        store_id = source.must_be_store(one)
        one.ask(opening.must_be_current)
        if not _is_complete(one, other, store_id):
            target.must_be_another(other, store_id)
        with held(one, other):
            return _Move(one, other, chance, tell).run()


def _is_complete(here: Side, there: Side, store_id: str) -> bool:
    """Whether the one store was moved, and the other may be where it went."""
    # In this order: a move that comes to its end meanwhile opens the other side last.
    if not target.is_complete(there, store_id):
        return False
    left = here.ask(words.leaving)
    return left is not None and left.result is not None


def undo(here: Place, clock: Clock, chance: Chance) -> None:
    """Let a store that was left be used again, whatever became of the other.

    Raises MoveRefused where it was not left, or is just being moved.
    """
    with opened(here, clock, chance) as side:
        source.must_be_store(side)
        with held(side):
            if side.ask(words.leaving) is None:
                raise MoveRefused(f"{side.name} was not moved: there is nothing to undo")
            side.write(partial(words.reopen, word=LEAVING))


class _Move:
    def __init__(self, here: Side, there: Side, chance: Chance, tell: Tell) -> None:
        self.here = here
        self.there = there
        self.chance = chance
        self.tell = tell

    def run(self) -> Moved:
        here, there = self.here, self.there
        store_id = source.must_be_store(here)
        left = here.ask(words.leaving)
        if left is not None and left.result is not None:
            return self._end(left, Moved(**left.result))
        word = self._word(left, store_id)
        source.must_know_states(here)
        target.prepare(there, Arriving(word.move, store_id, word.here, word.there))
        if not here.ask(words.is_closed):
            source.settle(here)
        source.close(here, word)
        notes = self._copy(word.move)
        self._compare(notes)
        self._analyze(notes)
        moved = self._moved(store_id, notes)
        # In this order: in between, both say what is to be done.
        here.write(partial(words.note_result, word=word, result=moved._asdict()))
        return self._end(word, moved)

    def _end(self, word: Leaving, moved: Moved) -> Moved:
        """Let the other side be used; an earlier try may have come that far. Raises MoveRefused where it is another."""
        if target.is_filled(self.there, word.move):
            set_counters = self.there.store.dialect.database.set_counters
            self.there.write(partial(target.complete, move=word.move, set_counters=set_counters))
        elif not target.is_complete(self.there, moved.store_id):
            raise MoveRefused(
                f"{self.here.name} was moved to {word.there} already: write that as `store:` into yaotask.yml"
            )
        return moved

    def _moved(self, store_id: str, notes: Mapping[str, Note]) -> Moved:
        checksum = copying.add(*(note.sum for note in notes.values()))
        rows = {name: note.rows for name, note in notes.items()}
        return Moved(store_id, _by_state(self.there), rows, f"{checksum:032x}")

    def _word(self, left: Leaving | None, store_id: str) -> Leaving:
        """The word of this move. Raises MoveRefused where it may not be; nothing was changed yet."""
        here, there = self.here, self.there
        if left is None:
            must_be_alone(here)
        filled = target.must_fit(there, left, store_id)
        place = there.store.dialect.place
        if left is None:
            name = filled.move if filled else self.chance.uuid()
            return Leaving(name, here.name, there.name, place, here.ask(here.store.now))
        if filled is None and left.place != place:
            raise MoveRefused(
                f"{here.name} is being moved to {left.there}: go on with that, or give it up first:"
                f" {words.command('--undo', here.name)}"
            )
        return left

    # --- rows -----------------------------------------------------------------------------------------

    def _fill(self, move: str, work: Callable[[Connection], T]) -> T:
        """Write on the other side, as long as this move fills it."""

        def guarded(connection: Connection) -> T:
            words.must_be_arriving(connection, move)
            return work(connection)

        return self.there.write(guarded)

    def _copy(self, move: str) -> dict[str, Note]:
        """Copy what is not there yet; how far each table is at the end."""
        total, done = sum(counts(self.here).values()), 0
        notes = {}
        for table in COPIED:
            copy = Copy(f"{ARRIVING}.{table.name}", table, self.here.table(table), self.there.table(table))
            for note in self._batches(copy, move):
                self.tell(Step("copying", done + note.rows, total))
                notes[table.name] = note
            done += notes[table.name].rows
        return notes

    def _batches(self, copy: Copy, move: str) -> Iterator[Note]:
        """How far a table is: what was there before, and behind each batch."""
        note = self.there.ask(copy.note)
        yield note
        while rows := self.here.ask(partial(copy.read, after=note.after)):
            note = self._fill(move, partial(copy.write, rows=rows, before=note))
            yield note

    def _compare(self, notes: Mapping[str, Note]) -> None:
        """Read back what is there. Raises MoveRefused where it is not what was read here."""
        total, done, wrong = sum(note.rows for note in notes.values()), 0, []
        for name, note in notes.items():
            found = Note()
            for found in self._read_back(tables.metadata.tables[name]):
                self.tell(Step("comparing", min(done + found.rows, total), total))
            done += found.rows
            if (found.rows, found.sum) != (note.rows, note.sum):
                wrong.append(name)
        states = [_by_state(side) for side in (self.here, self.there)]
        if wrong or states[0] != states[1]:
            raise MoveRefused(
                f"{', '.join(wrong) or tables.jobs.name} of {self.there.name} is not what was copied there: let nobody"
                f" write there while the store is moved. Nothing of {self.here.name} is lost:"
                f" {target.emptying(self.there)}, and begin again"
            )

    def _analyze(self, notes: Mapping[str, Note]) -> None:
        """Let a server plan by what it has now; a file has no use for it."""
        dialect = self.there.store.dialect
        if not dialect.shared:
            return
        total, done = sum(note.rows for note in notes.values()), 0
        for name, note in notes.items():
            self.there.ask(partial(dialect.database.analyze, table=self.there.table(tables.metadata.tables[name]).name))
            done += note.rows
            self.tell(Step("analyzing", done, total))

    def _read_back(self, table: Table) -> Iterator[Note]:
        """How far a table was read on the other side, behind each batch."""
        note, there = Note(), self.there.table(table)
        while rows := self.there.ask(partial(copying.read, table=there, after=note.after)):
            note = note.behind(table, rows)
            yield note


def _by_state(side: Side) -> dict[str, int]:
    jobs = side.table(tables.jobs)
    query = select(jobs.c.state, func.count()).group_by(jobs.c.state).order_by(jobs.c.state)
    found = side.ask(lambda connection: connection.execute(query).all())
    return {JobState(state).name: total for state, total in found}
