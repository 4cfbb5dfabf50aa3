"""`yaotask chaos`: the real thing on your own machine, broken on purpose, and whether it kept its promises."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from yaotask.chance import Dice
from yaotask.chaos.conduct import ALL_WEIGHTS, Moment, Order, Run
from yaotask.chaos.killing import WEIGHTS
from yaotask.chaos.report import Report
from yaotask.chaos.serving import LINES, RESTART
from yaotask.cli import exits
from yaotask.cli.base import Command, Session
from yaotask.cli.text import cut, echo_json, is_terminal, pad
from yaotask.clock import SystemClock
from yaotask.errors import StorageUnavailable
from yaotask.observers.logs import escape
from yaotask.phrases import counted
from yaotask.processes import describe, kill_group
from yaotask.store import opening

MOST_SEED = 2**31
# Seconds that a user's command has to restart a server.
PATIENCE = 120.0


def _faults(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in names:
        if name not in ALL_WEIGHTS:
            raise click.BadParameter(f"there is no fault {name!r}; there are {', '.join(ALL_WEIGHTS)}")
    return names


def _command(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise click.BadParameter(f"not a command: {error}") from error
    if not words:
        raise click.BadParameter("not a command: it is empty")
    return words


def _is_server(store: str | None) -> bool:
    if store is None:
        return False
    try:
        return opening.place(Path.cwd(), store).file is None
    except StorageUnavailable as error:
        raise click.BadParameter(str(error).removeprefix("store: "), param_hint="'--store'") from error


def _possible(faults: tuple[str, ...] | None, *, is_server: bool, can_restart: bool) -> tuple[str, ...]:
    """What can be made; all of that where nobody said which. Raises UsageError for what was asked for and cannot."""
    possible = {**WEIGHTS, **(LINES if is_server else {}), **(RESTART if is_server and can_restart else {})}
    for name in faults or ():
        if name not in possible:
            needed = "--restart COMMAND" if is_server else "--store with the address of a server"
            raise click.UsageError(f"{name} needs {needed}")
    return faults or tuple(possible)


@click.command("chaos", cls=Command)
@click.option("--store", metavar="URL", help="An empty database; else a SQLite file that is made for it.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=1.0, help="How long things are broken.")
@click.option("--seed", type=click.IntRange(0), help="Draw the same faults again; times still differ.")
@click.option("--faults", callback=_faults, metavar="A,B", help=f"Only these, of {', '.join(ALL_WEIGHTS)}.")
@click.option("--nodes", type=click.IntRange(1), default=2, help="So many `yaotask run`.")
@click.option("--processes", type=click.IntRange(1), default=2, help="Workers of each node.")
@click.option("--callers", type=click.IntRange(1), default=2, help="Programs that add jobs.")
@click.option(
    "--restart",
    metavar="COMMAND",
    callback=_command,
    help="Restarts the database server, and comes back once it serves again.",
)
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Leave logs and histories there.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_obj
def chaos(
    session: Session,
    store: str | None,
    minutes: float,
    seed: int | None,
    faults: tuple[str, ...] | None,
    nodes: int,
    processes: int,
    callers: int,
    restart: list[str] | None,
    keep: Path | None,
    as_json: bool,
) -> int:
    """Break yaotask on purpose, on this machine, and see whether it keeps its promises.

    Nodes run jobs of a project that is made for it, while their processes are killed, stopped and ended. What callers
    were told, what handlers did, and what the database saw is then compared. Needs no project of yours, and touches
    nothing but the store that you give. Exit status 1 if any promise was broken, or nothing was tried.
    """
    seed = Dice().randrange(MOST_SEED) if seed is None else seed
    possible = _possible(faults, is_server=_is_server(store), can_restart=restart is not None)
    folder = Path(tempfile.mkdtemp(prefix="yaotask-chaos-")) if keep is None else keep.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    order = Order(
        store=store or opening.address_of(folder / "store.db"),
        folder=folder / f"seed-{seed}",
        seed=seed,
        seconds=minutes * 60,
        nodes=nodes,
        processes=processes,
        callers=callers,
        faults=possible,
        restart=None if restart is None else partial(restart_by, restart),
    )
    try:
        with _Display() as display:
            report = Run(order, SystemClock(), display.show).report()
    except BaseException:
        # A store that is refused at once has left nothing to look at.
        if any(folder.iterdir()):
            _tell_what_stays(folder)
        elif keep is None:
            folder.rmdir()
        raise
    _print(report, as_json)
    if not report.holds:
        _tell_what_stays(folder)
        return exits.FAILED
    if keep is None:
        shutil.rmtree(folder)
    return exits.DONE


def _tell_what_stays(folder: Path) -> None:
    click.echo(f"logs, histories and the store stay in {escape(str(folder))}", err=True)


def restart_by(command: Sequence[str], patience: float = PATIENCE) -> None:
    """Run the user's own command. Raises CallFailed where it cannot be started, fails, or does not come back."""
    try:
        # In a session of its own: it ends as a whole, and Ctrl-C is not for it.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)  # noqa: S603
    except OSError as error:
        raise _no_restart(command, f"cannot be started: {error.strerror}") from error
    try:
        status = process.wait(patience)
    except subprocess.TimeoutExpired as error:
        raise _no_restart(command, f"has not come back after {patience:g} s") from error
    finally:
        if process.returncode is None:
            kill_group(process.pid)
            process.wait()
    if status:
        raise _no_restart(command, f"ended with {describe(status)}")


def _no_restart(command: Sequence[str], why: str) -> exits.CallFailed:
    return exits.CallFailed(
        f"--restart: {shlex.join(command)} {why}; it must restart the server, and wait until it serves"
    )


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        echo_json(report.as_json())
        return
    for line in report.lines():
        click.echo(escape(line))


class _Display:
    """How far it is: one line that is written over on a terminal, else a line for each part."""

    def __init__(self) -> None:
        self._last = ""

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *_: object) -> None:
        if is_terminal(sys.stderr):
            click.echo("\r" + " " * _columns() + "\r", err=True, nl=False)

    def show(self, moment: Moment) -> None:
        """Say it where that is news."""
        jobs = ", ".join(f"{count:,} {state}" for state, count in moment.jobs.items())
        line = f"{moment.seconds:5.0f} s  {moment.doing}: {counted(moment.faults, 'fault')}; {jobs or 'no answer'}"
        if is_terminal(sys.stderr):
            click.echo("\r" + pad(cut(line, _columns()), _columns()), err=True, nl=False)
        elif moment.doing != self._last:
            click.echo(line, err=True)
        self._last = moment.doing


def _columns() -> int:
    # The last one is left free: some terminals wrap when it is written.
    return shutil.get_terminal_size().columns - 1


COMMANDS = {"chaos": chaos}
