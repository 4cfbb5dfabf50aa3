"""The hooks of the task `told`."""

from scripts.witness import note


def OnAdd(id):
    note("add", "told", id)


def OnSuccess(id, response):
    note("success", "told", id)


def OnError(id, error):
    note("error", "told", id)


def OnRetry(id, error, attempt, after_ms):
    note("retry", "told", id)


def OnCancel(id):
    note("cancel", "told", id)


def OnIgnore(id, reason):
    note("ignore", "told", id)
