"""Rules that the whole package keeps and no ready-made linter knows, each with the code it would refuse."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import yaotask

PACKAGE = Path(yaotask.__path__[0])
# These are projects of users, who may tell the time as they like.
PROJECTS = ("templates/", "chaos/project/")
FILES = sorted(
    file.relative_to(PACKAGE).as_posix()
    for file in PACKAGE.rglob("*.py")
    if not file.relative_to(PACKAGE).as_posix().startswith(PROJECTS)
)

TIME = {
    *(f"time.{name}" for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")),
    *("time.sleep", "time.localtime", "time.gmtime", "threading.Timer"),
    *("anyio.sleep", "anyio.sleep_until", "anyio.current_time"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
}
CHANCE = {"random", "secrets", "uuid", "os.urandom", "os.getrandom"}
LOOPS = {"asyncio", "trio"}
CODE_FROM_DATA = {
    *("pickle", "marshal", "shelve", "dill", "cloudpickle", "eval", "exec"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
}
# What starts something that a simulation could not hold, and who may: each hides it behind words of its own.
THREADS = {"threading.Thread", "_thread", "concurrent.futures"}
PROCESSES = {
    *(f"subprocess.{name}" for name in ("Popen", "run", "call", "check_call", "check_output")),
    *("os.fork", "os.forkpty", "os.posix_spawn", "os.posix_spawnp", "multiprocessing", "anyio.open_process"),
    *("anyio.run_process", "anyio.to_process"),
}
MAY_START_THREADS = {
    *("store/ledger_thread.py", "runtime/slots.py", "runtime/keeper.py", "runtime/pulse.py", "runtime/alarm.py"),
    *("runtime/herald.py", "worker.py", "child.py", "following.py", "chaos/caller.py", "chaos/line.py"),
    *("chaos/nemesis.py", "chaos/programs.py"),
}
MAY_START_PROCESSES = {"processes.py", "cli/chaos.py", "chaos/programs.py"}
# What is refused, where it is allowed all the same, and what to do instead.
REFUSED_NAMES: list[tuple[set[str], set[str], str]] = [
    (TIME, {"clock.py"}, "take time from a Clock"),
    (CHANCE, {"chance.py"}, "take chance from a Chance"),
    (LOOPS, {"mainloop.py", "invoke.py", "hosting.py"}, "use anyio, which runs on both loops"),
    (CODE_FROM_DATA, set(), "data must not become code"),
    (THREADS, MAY_START_THREADS, "start tasks by a Spawner, or be named among those that may start threads"),
    (PROCESSES, MAY_START_PROCESSES, "start processes by processes.py"),
]
SQL_CALLS = {"text", "execute", "executemany", "executescript", "exec_driver_sql", "scalar", "scalars"}


def findings(source: str, file: str = "module.py") -> list[str]:
    """Each breach of a rule in one file of the package, as `line: what is wrong`."""
    tree = ast.parse(source)
    found = [
        *_names(tree, file),
        *(fault for node in ast.walk(tree) for rule in (_shell, _formatted_sql, _swallowed) for fault in rule(node)),
    ]
    return [f"{line}: {fault}" for line, fault in sorted(found)]


def _names(tree: ast.Module, file: str) -> Iterator[tuple[int, str]]:
    for line, name in _dotted_names(tree):
        for refused, doors, cure in REFUSED_NAMES:
            if file not in doors and any(name == one or name.startswith(f"{one}.") for one in refused):
                yield line, f"{name}: {cure}"


def _dotted_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that is imported or used, by the full name of what it was imported as."""
    imported = {"eval": "eval", "exec": "exec"}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    imported[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
                    yield node.lineno, alias.name
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    imported[alias.asname or alias.name] = f"{module}.{alias.name}"
                    yield node.lineno, f"{module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and (parts := _parts(node)) and parts[0] in imported:
            yield node.lineno, ".".join((imported[parts[0]], *parts[1:]))


def _parts(node: ast.expr) -> list[str]:
    """`a.b.c` as its names; nothing for an attribute of something that has no name."""
    match node:
        case ast.Name(id=name):
            return [name]
        case ast.Attribute(value=value, attr=name) if above := _parts(value):
            return [*above, name]
    return []


def _shell(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.keyword(arg="shell", value=ast.Constant(value=False)):
            return
        case ast.keyword(arg="shell", value=value):
            yield value.lineno, "shell=: give the program and its arguments as a list"


def _formatted_sql(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Call) and (_parts(node.func) or [""])[-1] in SQL_CALLS:
        for argument in node.args:
            if _is_formatted(argument):
                yield argument.lineno, "formatted SQL: bind the values"


def _is_formatted(node: ast.expr) -> bool:
    match node:
        case ast.JoinedStr():
            return True
        case ast.BinOp(left=left, right=right, op=ast.Mod() | ast.Add()):
            return any(isinstance(side, (ast.Constant, ast.JoinedStr)) or _is_formatted(side) for side in (left, right))
        case ast.Call(func=ast.Attribute(attr="format" | "format_map" | "join")):
            return True
    return False


def _swallowed(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.ExceptHandler(type=None):
            yield node.lineno, "bare except: name what is expected"
        case ast.ExceptHandler(type=ast.expr() as type_, body=body) if _is_broad(type_):
            if all(isinstance(step, (ast.Pass, ast.Continue)) or _is_ellipsis(step) for step in body):
                yield node.lineno, "swallowed exception: say it, or name what is expected"
        case ast.Call(func=func, args=args) if _parts(func)[-1:] == ["suppress"] and any(map(_is_broad, args)):
            yield node.lineno, "swallowed exception: say it, or name what is expected"


def _is_broad(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return any(map(_is_broad, node.elts))
    return _parts(node)[-1:] in (["Exception"], ["BaseException"])


def _is_ellipsis(step: ast.stmt) -> bool:
    return isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant) and step.value.value is ...


@pytest.mark.parametrize("file", FILES)
def test_the_package_keeps_its_rules(file: str) -> None:
    assert findings((PACKAGE / file).read_text(encoding="utf-8"), file) == []


@pytest.mark.parametrize(
    "source",
    [
        # time
        "import time\nnow = time.time()",
        "import time as t\nnow = t.monotonic()",
        "from time import sleep",
        "from time import perf_counter as count",
        "import time\nread = time.time_ns",
        "from datetime import datetime\ndatetime.now(UTC)",
        "from datetime import datetime as d\nd.utcnow()",
        "import datetime\ndatetime.date.today()",
        "import anyio\nasync def f():\n    await anyio.sleep(1)",
        "from anyio import sleep",
        "import threading\nthreading.Timer(1, f)",
        # chance
        "import random",
        "def f():\n    from random import randint",
        "import uuid",
        "from secrets import token_hex",
        "import os\nos.urandom(8)",
        # threads and processes
        "import threading\nthreading.Thread(target=f)",
        "from threading import Thread",
        "from concurrent.futures import ThreadPoolExecutor",
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['ls'])",
        "from subprocess import Popen",
        "import multiprocessing",
        # loops
        "import asyncio",
        "from asyncio import get_running_loop",
        "import asyncio.events",
        "import trio",
        # data as code
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "exec('x = 1')",
        "import yaml\nyaml.load(text)",
        "from yaml import unsafe_load",
        "import yaml\nclass Ours(yaml.Loader): ...",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=flag)",
        # SQL
        "text(f'SELECT {column}')",
        "sqlalchemy.text(f'SELECT {column}')",
        "connection.execute(f'DELETE FROM {table}')",
        "connection.exec_driver_sql('SELECT %s' % column)",
        "connection.exec_driver_sql('SELECT ' + column)",
        "text('SELECT {}'.format(column))",
        "text(', '.join(columns))",
        "connection.execute('SELECT ' + column + ' FROM jobs')",
        # exceptions
        "try:\n    f()\nexcept:\n    raise",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept BaseException:\n    ...",
        "for x in y:\n    try:\n        f()\n    except (ValueError, Exception):\n        continue",
        "with suppress(Exception):\n    f()",
        "with contextlib.suppress(KeyError, BaseException):\n    f()",
    ],
)
def test_what_breaks_a_rule_is_found(source: str) -> None:
    assert findings(source)


@pytest.mark.parametrize(
    "source",
    [
        "import time\nname = time.tzname",
        "from datetime import datetime\ndatetime.fromtimestamp(0, UTC)",
        "from yaotask.clock import Clock\ndef f(clock: Clock):\n    clock.monotonic()",
        "async def f(clock):\n    await clock.sleep(1)",
        "self.chance.uuid()",
        "secrets = {'password'}\nsecrets.add('token')",
        "import anyio\nasync def f():\n    await anyio.sleep_forever()",
        "from . import random_names",
        "import yaml\nyaml.compose(text, Loader=yaml.SafeLoader)",
        "import ast\nast.literal_eval('1')",
        "from subprocess import TimeoutExpired",
        "import threading\nthreading.Lock()",
        "text('SELECT 1')",
        "connection.execute(statement, {'id': f'{task}.{id}'})",
        "connection.execute(CLAIM, rows)",
        "try:\n    f()\nexcept KeyError:\n    pass",
        "try:\n    f()\nexcept Exception as error:\n    log.warning('failed: %s', error)",
        "with suppress(FileNotFoundError):\n    f()",
    ],
)
def test_what_keeps_the_rules_is_left_alone(source: str) -> None:
    assert findings(source) == []


def test_the_doors_may_do_what_they_are_for_and_nothing_else() -> None:
    assert findings("import time\ntime.time()", "clock.py") == []
    assert findings("import uuid", "chance.py") == []
    assert findings("import uuid", "clock.py")
    assert findings("import time\ntime.time()", "store/clock.py")
    assert findings("import asyncio", "clock.py")
    assert findings("from threading import Thread", "runtime/slots.py") == []
    assert findings("from threading import Thread", "runtime/pool.py")


def test_every_file_of_the_package_is_looked_at() -> None:
    assert {"clock.py", "resolve.py", "definitions/model.py", "store/__init__.py"} <= set(FILES)
