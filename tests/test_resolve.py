"""Dotted paths: where they lead, and everything they must not lead to."""

from __future__ import annotations

import errno
import json
import os.path
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from yaotask.errors import HandlerNotFound, ResultNotJson
from yaotask.resolve import Resolver
from yaotask.spelling import as_written
from yaotask.values import encode_result

MakeResolver = Callable[..., Resolver]


@pytest.fixture
def resolver(project: Callable[..., Path]) -> Iterator[MakeResolver]:
    """Makes a Resolver for a project with these scripts; all of them are closed at the end."""
    made: list[Resolver] = []

    def make(scripts: dict[str, str] | None = None) -> Resolver:
        made.append(Resolver(project(scripts=scripts or {})))
        return made[-1]

    path = list(sys.path)
    yield make
    sys.path[:] = path
    for one in made:
        one.close()


def refusal(resolver: Resolver, path: str) -> str:
    """Why a path does not resolve."""
    with pytest.raises(HandlerNotFound) as caught:
        resolver.resolve(path)
    return str(caught.value)


def note(log: Path) -> str:
    """A statement by which a script leaves a mark in a file each time that it is executed."""
    return f"with open({str(log)!r}, 'a') as log: log.write('x')\n"


# --- where paths lead -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("mail", "scripts.mail.Send"),
        ("media/video", "scripts.media.video.Send"),
        ("media/__init__", "scripts.media.Send"),
        ("__init__", "scripts.Send"),
    ],
)
def test_a_path_names_a_function_of_a_file_below_scripts(resolver: MakeResolver, file: str, path: str) -> None:
    scripts = resolver({file: "def Send(id): return id + 1"})

    assert scripts.resolve(path)(1) == 2


@pytest.mark.parametrize("value", ["lambda id: id", "functools.partial(int, 1)", "print", "Callable()", "Send"])
def test_anything_that_can_be_called_may_be_a_handler(resolver: MakeResolver, value: str) -> None:
    text = f"""
    import functools
    class Callable:
        def __call__(self, id): return id
    async def Send(id): return id
    Handler = {value}
    """

    assert callable(resolver({"mail": text}).resolve("scripts.mail.Handler"))


def test_other_paths_name_functions_of_installed_modules(resolver: MakeResolver) -> None:
    assert resolver().resolve("json.dumps") is json.dumps
    assert resolver().resolve("os.path.join") is os.path.join


def test_the_project_folder_is_searched_after_everything_that_is_installed(
    resolver: MakeResolver, project: Callable[..., Path]
) -> None:
    root = project()
    (root / "json.py").write_text("dumps = None")
    (root / "only_here.py").write_text("def Run(id): return id")

    first, second = resolver(), resolver()

    assert sys.path.count(str(root)) == 1
    assert first.resolve("json.dumps") is json.dumps
    assert second.resolve("only_here.Run")(7) == 7
    sys.modules.pop("only_here")


# --- scripts among themselves ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expression"),
    [
        ("from scripts.helpers import double", "double"),
        ("from scripts.helpers import double as twice", "twice"),
        ("from scripts import helpers", "helpers.double"),
        ("import scripts.helpers", "scripts.helpers.double"),
        ("import os, scripts.helpers, sys", "scripts.helpers.double"),
        ("import scripts.helpers as helpers", "helpers.double"),
        ("import scripts", "__import__('importlib').import_module('.helpers', scripts.__name__).double"),
        ("from .helpers import double", "double"),
        ("from . import helpers", "helpers.double"),
    ],
)
@pytest.mark.parametrize("inside_a_function", [True, False])
def test_scripts_import_each_other(
    resolver: MakeResolver, statement: str, expression: str, inside_a_function: bool
) -> None:
    mail = f"def Send(id):\n    {statement}\n    return {expression}(id)"
    if not inside_a_function:
        mail = f"{statement}\ndef Send(id): return {expression}(id)"
    scripts = resolver({"helpers": "def double(n): return 2 * n", "mail": mail})

    assert scripts.resolve("scripts.mail.Send")(4) == 8


def test_scripts_in_folders_import_those_above_and_beside_them(resolver: MakeResolver) -> None:
    scripts = resolver(
        {
            "helpers": "ONE = 1",
            "media/codec": "TWO = 2",
            "media/video": """
                from ..helpers import ONE
                from .codec import TWO
                from scripts.media.codec import TWO as AGAIN
                def Run(id): return [ONE, TWO, AGAIN]
            """,
        }
    )

    assert scripts.resolve("scripts.media.video.Run")(1) == [1, 2, 2]


def test_scripts_that_import_each_other_in_a_circle_load_as_in_any_package(resolver: MakeResolver) -> None:
    scripts = resolver(
        {
            "ping": "import scripts.pong\ndef Run(id): return scripts.pong.answer()\ndef name(): return 'ping'",
            "pong": "import scripts.ping\ndef answer(): return 'pong to ' + scripts.ping.name()",
        }
    )

    assert scripts.resolve("scripts.ping.Run")(1) == "pong to ping"


def test_a_file_is_executed_once_however_it_is_reached(resolver: MakeResolver) -> None:
    counting = "import sys\nsys.executions = getattr(sys, 'executions', 0) + 1\n"
    scripts = resolver(
        {
            "counted": f"{counting}def Run(id): return sys.executions",
            "mail": "from scripts.counted import Run\nfrom .counted import Run as Again",
        }
    )
    try:
        assert scripts.resolve("scripts.mail.Again")(1) == 1
        assert scripts.resolve("scripts.counted.Run")(1) == 1
        assert scripts.resolve("scripts.counted.Run") is scripts.resolve("scripts.mail.Run")
    finally:
        del sys.executions  # type: ignore[attr-defined]


def test_an_installed_package_called_scripts_is_not_in_the_way(
    resolver: MakeResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ModuleType("scripts")
    monkeypatch.setitem(sys.modules, "scripts", installed)
    scripts = resolver({"helpers": "ONE = 1", "mail": "from scripts.helpers import ONE\ndef Send(id): return ONE"})

    assert scripts.resolve("scripts.mail.Send")(1) == 1
    assert sys.modules["scripts"] is installed


def test_two_projects_in_one_process_have_each_their_own_scripts(tmp_path: Path) -> None:
    resolvers = []
    for name in ("one", "two"):
        folder = tmp_path / name / "scripts"
        folder.mkdir(parents=True)
        (folder / "helpers.py").write_text(f"NAME = {name!r}")
        (folder / "mail.py").write_text("def Send(id):\n    from scripts.helpers import NAME\n    return NAME")
        resolvers.append(Resolver(tmp_path / name))

    assert [resolver.resolve("scripts.mail.Send")(1) for resolver in resolvers] == ["one", "two"]
    for resolver in resolvers:
        resolver.close()


def test_closing_leaves_nothing_behind_but_resolved_functions(resolver: MakeResolver) -> None:
    before, finders = set(sys.modules), list(sys.meta_path)
    scripts = resolver({"mail": "def Send(id): return id"})
    send = scripts.resolve("scripts.mail.Send")

    scripts.close()
    scripts.close()

    assert send(3) == 3
    assert sys.meta_path == finders
    assert {name for name in set(sys.modules) - before if "scripts" in name} == set()


def test_a_script_named_like_a_standard_module_shadows_nothing(resolver: MakeResolver) -> None:
    scripts = resolver(
        {
            "json": "def Dump(id): return 'ours'",
            "mail": "import json\nfrom .json import Dump\ndef Send(id): return json.dumps([Dump(id)])",
        }
    )

    assert scripts.resolve("scripts.json.Dump")(1) == "ours"
    assert scripts.resolve("scripts.mail.Send")(1) == '["ours"]'
    assert sys.modules["json"] is json


def test_what_python_keeps_of_an_ordinary_import_of_a_script_is_not_taken(
    resolver: MakeResolver, project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(scripts={"helpers": "ONE = 1", "mail": "from scripts.helpers import ONE\ndef Send(id): return ONE"})
    monkeypatch.syspath_prepend(root)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for name in ("scripts", "scripts.helpers", "scripts.mail"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        __import__(name)
    assert list((root / "scripts" / "__pycache__").glob("mail.*"))
    ordinary = sys.modules["scripts.helpers"]

    ours = resolver().resolve("scripts.mail.Send")

    ordinary.ONE = 2  # type: ignore[attr-defined]
    assert ours(1) == 1
    for name in ("scripts", "scripts.helpers", "scripts.mail"):
        sys.modules.pop(name)


# --- paths that are refused -----------------------------------------------------------------------

TRAPS = {
    "": "there is nothing between dots",
    "Send": "must name a module and a function in it, as in scripts.mail.Send",
    "scripts": "must name a module and a function in it",
    "scripts..x": "there is nothing between dots",
    ".scripts.mail.Send": "there is nothing between dots",
    "scripts.mail.": "there is nothing between dots",
    "scripts.mail.Send()": "'Send()' is not a name",
    "scripts.mail.Se nd": "'Se nd' is not a name",
    "scripts.my-mail.Send": "'my-mail' is not a name",
    "scripts.1mail.Send": "'1mail' is not a name",
    "scripts/mail.Send": "'scripts/mail' is not a name",
    "scripts.mail.Send\x00": "'Send\\x00' is not a name",
    "scripts.m\u0430il.Send": "'\u0430' is CYRILLIC SMALL LETTER A; names are ASCII only",
    "scripts.mail.Sen\uff44": "is FULLWIDTH LATIN SMALL LETTER D; names are ASCII only",
    "scripts.mail.__class__": "names that begin with __ are Python's own",
    "scripts.mail.__builtins__": "names that begin with __ are Python's own",
    "scripts.__init__.Send": "names that begin with __ are Python's own",
    "__main__.Send": "names that begin with __ are Python's own",
    "scripts.mail.os.system": 'scripts/mail.py is a file: there can be no "os" below it',
    "scripts.mail.Mailer.send": 'scripts/mail.py is a file: there can be no "Mailer" below it',
    "scripts.mail.os": "scripts.mail.os is a module, not a function",
    "scripts.mail.Mailer": "scripts.mail.Mailer is a class, not a function",
    "scripts.mail.Bounce": "scripts.mail.Bounce is a class, not a function",
    "scripts.mail.SENDER": "scripts.mail.SENDER is a value (str), not a function",
    "scripts.mail.NOTHING": "scripts.mail.NOTHING is a value (NoneType), not a function",
    "scripts.mail": "scripts.mail is scripts/mail.py; add the name of a function in it",
    "scripts.media": "scripts.media is scripts/media/; add the name of a file in it",
    "scripts.media.video": "scripts.media.video is scripts/media/video.py; add the name of a function in it",
    "scripts.mail.Sned": 'scripts/mail.py has no function "Sned"; did you mean "Send"?',
    "scripts.mail.send": 'scripts/mail.py has no function "send"; did you mean "Send"?',
    "scripts.mail.Quite": 'scripts/mail.py has no function "Quite"',
    "scripts.mial.Send": 'there is no scripts/mial.py; did you mean "scripts/mail.py"?',
    "scripts.Mail.Send": 'there is no scripts/Mail.py; did you mean "scripts/mail.py"?',
    "scripts.quite.Send": "there is no scripts/quite.py",
    "scripts.medai.video.Send": 'there is no scripts/medai.py; did you mean "scripts/media/"?',
    "scripts.media.vidoe.Send": 'there is no scripts/media/vidoe.py; did you mean "scripts/media/video.py"?',
    "script.mail.Send": 'there is no module "script"; did you mean "scripts"?',
    "Scripts.mail.Send": 'there is no module "Scripts"; did you mean "scripts"?',
    "no_such_module_here.Send": 'there is no module "no_such_module_here"',
    "json.decoder.JSONDecoder.decode": 'there is no module "json.decoder.JSONDecoder": a path names a module and one',
    "json.dunps": 'json has no function "dunps"; did you mean "dumps"?',
    "os.path": "os.path is a module, not a function",
    "collections.OrderedDict": "collections.OrderedDict is a class, not a function",
}


@pytest.mark.parametrize("path", TRAPS)
def test_a_path_that_leads_elsewhere_is_refused_with_the_reason(resolver: MakeResolver, path: str) -> None:
    scripts = resolver(
        {
            "mail": """
                import os
                class Mailer:
                    def send(self, id): ...
                class Bounce(Exception): ...
                SENDER, NOTHING = "me", None
                def Send(id): ...
                def _hidden(id): ...
            """,
            "media/video": "",
        }
    )

    assert TRAPS[path] in refusal(scripts, path)


def test_a_message_ends_where_there_is_nothing_to_suggest(resolver: MakeResolver) -> None:
    scripts = resolver({"mail": "def Send(id): ...", "_private": ""})

    assert refusal(scripts, "scripts.mail.Quite") == 'scripts/mail.py has no function "Quite"'
    assert refusal(scripts, "scripts.privat.Quite") == "there is no scripts/privat.py"


def test_a_script_that_raises_what_is_no_exception_is_broken_like_any_other(resolver: MakeResolver) -> None:
    scripts = resolver({"mail": "class Odd(BaseException): ...\nraise Odd('no')\ndef Send(id): ..."})

    assert "Odd: no" in refusal(scripts, "scripts.mail.Send")
    assert "Odd: no" in refusal(scripts, "scripts.mail.Send")


def test_a_proxy_beside_a_misspelled_function_is_asked_nothing(resolver: MakeResolver) -> None:
    proxy = """
        class Proxy:
            @property
            def __class__(self):
                raise RuntimeError("outside of a request")

        request = Proxy()
        def Send(id): ...
    """
    scripts = resolver({"mail": proxy})

    assert refusal(scripts, "scripts.mail.Sent").endswith('did you mean "Send"?')


def test_a_folder_that_the_system_does_not_show_is_a_reason(
    resolver: MakeResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = resolver({"private/mail": "def Send(id): ..."})

    def refuse(folder: Path) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    # Root may look anywhere.
    monkeypatch.setattr("yaotask.scripts._listed", refuse)

    assert refusal(scripts, "scripts.private.mail.Send") == (
        "scripts.private.mail cannot be looked for: Permission denied"
    )


def test_a_project_without_scripts_says_so(resolver: MakeResolver) -> None:
    assert refusal(resolver(), "scripts.mail.Send").startswith("there is no folder scripts/ in ")


@pytest.mark.parametrize("name", ["file.py", "folder", "package"])
def test_a_link_that_leads_out_of_scripts_is_refused(
    resolver: MakeResolver, project: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "__init__.py").touch()
    (outside / "inner.py").write_text("def Send(id): ...")
    folder = project(scripts={"mail": "from scripts.file import Send"}) / "scripts"
    (folder / "file.py").symlink_to(outside / "inner.py")
    (folder / "folder").symlink_to(outside)
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").symlink_to(outside / "__init__.py")
    scripts = resolver()
    path = f"scripts.{name.removesuffix('.py')}.Send"

    assert f"scripts/{name}" in refusal(scripts, path)
    assert refusal(scripts, path).endswith("is a link that leads out of scripts/")
    assert "is a link that leads out of scripts/" in refusal(scripts, "scripts.mail.Send")


def test_a_link_within_scripts_is_followed(resolver: MakeResolver, project: Callable[..., Path]) -> None:
    folder = project(scripts={"mail": "def Send(id): return id"}) / "scripts"
    (folder / "post.py").symlink_to(folder / "mail.py")

    assert resolver().resolve("scripts.post.Send")(1) == 1


def test_scripts_may_itself_be_a_link(resolver: MakeResolver, project: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mail.py").write_text("def Send(id): return id")
    (project() / "scripts").symlink_to(tmp_path / "elsewhere")

    assert resolver().resolve("scripts.mail.Send")(1) == 1


def test_a_link_to_nowhere_is_no_file(resolver: MakeResolver, project: Callable[..., Path]) -> None:
    folder = project(scripts={"mail": ""}) / "scripts"
    (folder / "gone.py").symlink_to(folder / "nowhere.py")

    assert refusal(resolver(), "scripts.gone.Send") == "there is no scripts/gone.py"


# --- modules that cannot be imported --------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "summary", "last_line"),
    [
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'", None),
        ("from scripts.nowhere import x", "ModuleNotFoundError: there is no scripts/nowhere.py", None),
        ("from scripts import nowhere", "ImportError: cannot import name 'nowhere' from 'scripts'", None),
        ("def Send(id:\n    pass", "SyntaxError: '(' was never closed", None),
        ("text = 'a\x00b'", "SyntaxError: source code string cannot contain null bytes", None),
        ("1 / 0", "ZeroDivisionError: division by zero", None),
        ("raise ValueError('one\\ntwo')", "ValueError: one", "two"),
        ("class Odd(Exception): ...\nraise Odd('no')", "scripts.mail.Odd: no", None),
        ("import sys\nsys.exit('stop')", "SystemExit: stop", None),
        ("raise SystemExit", "SystemExit", None),
        ("e = OSError('a')\ne.add_note('a note')\nraise e", "OSError: a", "a note"),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(
    resolver: MakeResolver, text: str, summary: str, last_line: str | None
) -> None:
    scripts = resolver({"mail": text})

    with pytest.raises(HandlerNotFound) as caught:
        scripts.resolve("scripts.mail.Send")

    assert str(caught.value).startswith(f"scripts/mail.py cannot be imported: {summary}")
    assert caught.value.trace is not None
    assert (last_line or summary) in caught.value.trace.splitlines()[-1]
    assert "yaotask" not in caught.value.trace.replace(str(Path(__file__).parent.parent), "")


def test_why_a_file_cannot_be_imported_is_text_that_can_be_told(resolver: MakeResolver) -> None:
    scripts = resolver({"mail": r"raise ValueError('\udcff')"})

    with pytest.raises(HandlerNotFound) as caught:
        scripts.resolve("scripts.mail.Send")

    assert str(caught.value).endswith("ValueError: \ufffd")
    assert str(caught.value.trace).endswith("ValueError: \ufffd")


def test_the_trace_shows_the_lines_of_the_project_that_led_to_the_fault(resolver: MakeResolver) -> None:
    scripts = resolver({"mail": "from scripts.helpers import x", "helpers": "def fall():\n    1 / 0\nfall()"})

    with pytest.raises(HandlerNotFound) as caught:
        scripts.resolve("scripts.mail.Send")

    shown = [line.strip() for line in str(caught.value.trace).splitlines()]
    assert [line for line in shown if line in ("from scripts.helpers import x", "fall()", "1 / 0")] == [
        "from scripts.helpers import x",
        "fall()",
        "1 / 0",
    ]
    assert not [line for line in shown if "importlib" in line]


def test_a_broken_file_is_not_executed_again(resolver: MakeResolver, tmp_path: Path) -> None:
    log = tmp_path / "log"
    scripts = resolver(
        {
            "broken": f"{note(log)}1 / 0",
            "one": "import scripts.broken",
            "two": "from .broken import x",
        }
    )
    first = refusal(scripts, "scripts.broken.Send")

    assert refusal(scripts, "scripts.broken.Send") == first
    assert refusal(scripts, "scripts.broken.Other") == first
    assert refusal(scripts, "scripts.one.Send").endswith(
        "ImportError: scripts.broken failed before: ZeroDivisionError: division by zero"
    )
    assert "scripts.broken failed before" in refusal(scripts, "scripts.two.Send")
    assert log.read_text() == "x"


def test_a_broken_installed_module_is_not_executed_again(
    resolver: MakeResolver, project: Callable[..., Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    (project() / "broken_library.py").write_text(f"{note(log)}import no_such_dependency")
    scripts = resolver()
    expected = "broken_library cannot be imported: ModuleNotFoundError: No module named 'no_such_dependency'"

    assert [refusal(scripts, "broken_library.Run") for _ in range(2)] == [expected, expected]
    assert log.read_text() == "x"


def test_an_interrupt_during_an_import_is_not_taken_for_a_fault_of_the_file(resolver: MakeResolver) -> None:
    scripts = resolver(
        {
            "mail": """
                import sys
                sys.imports = getattr(sys, "imports", 0) + 1
                if sys.imports == 1:
                    raise KeyboardInterrupt
                def Send(id): return id
            """
        }
    )
    try:
        with pytest.raises(KeyboardInterrupt):
            scripts.resolve("scripts.mail.Send")
        assert scripts.resolve("scripts.mail.Send")(1) == 1
    finally:
        del sys.imports  # type: ignore[attr-defined]


def test_names_that_a_module_computes_may_fail(resolver: MakeResolver) -> None:
    scripts = resolver({"mail": "def __getattr__(name): raise ImportError(f'no {name} here')"})

    assert refusal(scripts, "scripts.mail.Send") == (
        "Send of scripts/mail.py cannot be imported: ImportError: no Send here"
    )


@pytest.mark.parametrize("fault", ["", "1 / 0"])
def test_threads_that_ask_at_once_execute_a_file_once_and_agree(
    resolver: MakeResolver, tmp_path: Path, fault: str
) -> None:
    log = tmp_path / "log"
    scripts = resolver({"mail": f"{note(log)}{fault}\ndef Send(id): return id"})
    start, answers = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        try:
            answers.append(str(scripts.resolve("scripts.mail.Send")(1)))
        except HandlerNotFound as error:
            answers.append(f"{error}\n{error.trace}")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert log.read_text() == "x"


# --- exception classes ----------------------------------------------------------------------------


def test_exceptions_are_named_with_or_without_their_module(resolver: MakeResolver) -> None:
    scripts = resolver({"mail": "class Bounce(Exception): ..."})

    assert scripts.exception("ValueError") is ValueError
    assert scripts.exception("builtins.ValueError") is ValueError
    assert scripts.exception("json.JSONDecodeError") is json.JSONDecodeError
    assert scripts.exception("scripts.mail.Bounce").__name__ == "Bounce"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("ValeuError", 'builtins has no exception class "ValeuError"; did you mean "ValueError"?'),
        ("int", "builtins.int is a class, not an exception class"),
        ("print", "builtins.print is a function, not an exception class"),
        ("json.dumps", "json.dumps is a function, not an exception class"),
        ("scripts.mail.bounce", 'scripts/mail.py has no exception class "bounce"; did you mean "Bounce"?'),
        ("scripts.mail", "scripts.mail is scripts/mail.py; add the name of an exception class in it"),
        ("__class__", "names that begin with __ are Python's own"),
    ],
)
def test_what_is_no_exception_class_is_refused(resolver: MakeResolver, path: str, why: str) -> None:
    scripts = resolver({"mail": "class Bounce(Exception): ..."})

    with pytest.raises(HandlerNotFound) as caught:
        scripts.exception(path)

    assert why in str(caught.value)


def test_classes_of_scripts_are_shown_under_the_names_that_files_use(resolver: MakeResolver) -> None:
    bounce = resolver({"mail": "class Bounce(Exception): ..."}).exception("scripts.mail.Bounce")

    assert as_written(f"{bounce.__module__}.{bounce.__qualname__}: no such address") == (
        "scripts.mail.Bounce: no such address"
    )


def test_a_value_of_a_class_of_scripts_is_refused_under_that_name(resolver: MakeResolver) -> None:
    bounce = resolver({"mail": "class Bounce(Exception): ..."}).exception("scripts.mail.Bounce")

    with pytest.raises(ResultNotJson, match=r"is a scripts\.mail\.Bounce, which JSON does not have"):
        encode_result([bounce()], limit=100)
