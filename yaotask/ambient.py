"""The App that `process` uses: that of the running job, else the default one of this process."""

from __future__ import annotations

from typing import Any, cast

from yaotask import context
from yaotask.app import App

# The one state of yaotask that belongs to a module, so that scripts need no App of their own.
_default: dict[str, App] = {}


def current_app() -> App:
    """The App on whose behalf this code runs.

    In a handler, a hook or a script that yaotask called it is that project's; elsewhere it is made at the first use,
    and anew once it was closed, for the folder that YAOTASK_ROOT names or that is found upward. Raises NoProject
    where there is none.
    """
    owner = context.owner.get()
    return cast(App, owner.app) if owner is not None else _default_app()


def _default_app() -> App:
    app = _default.get("app")
    if app is not None and not app.works.access.is_closed:
        return app
    # Without a lock, which a fork could leave locked for ever: of two that are made at once, one is kept.
    made = App()
    kept = _default.setdefault("app", made)
    if kept is app:
        kept = _default["app"] = made
    if kept is not made:
        made.close()
    return kept


def process(name: str, /, *args: Any, **payload: Any) -> Any:
    """Call a process by name: `process("tasks.mail.add", "Hello")` returns the id of a new job.

    For threads; on a running loop it raises BlockingCall, but for the progress of one's own job. Raises UnknownName for
    a name that stands for nothing, and what the call raises.
    """
    return current_app().call(name, *args, **payload)


async def aprocess(name: str, /, *args: Any, **payload: Any) -> Any:
    """Like `process`, on a loop."""
    return await current_app().acall(name, *args, **payload)
