"""`yaotask doctor`: what is wrong with a project where it runs, and what to do."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from yaotask.app import App
from yaotask.cli import exits
from yaotask.cli.base import Command, Session
from yaotask.cli.text import echo_json, is_terminal
from yaotask.doctor.examine import examine
from yaotask.doctor.finding import Finding
from yaotask.observers.logs import escape

COLOURS = {"ok": "green", "warn": "yellow", "fault": "red"}
MARGIN = max(map(len, COLOURS)) + 2


@click.command("doctor", cls=Command)
@click.option("--full", is_flag=True, help="Read the whole database to see whether it is sound.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def doctor(session: Session, full: bool, as_json: bool) -> int:
    """Look for what keeps jobs from being run, and say what to do.

    Nothing is changed. Exit status 1 if anything is at fault; warnings do not count.
    """
    # What scripts print as they are imported is not our output.
    with contextlib.redirect_stdout(sys.stderr), App(session.root) as app:
        findings = list(examine(app, whole=full))
    if as_json:
        echo_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    return exits.FAILED if _count(findings, "fault") else exits.DONE


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        click.echo(f"{_level(finding)}{escape(f'{finding.about}: {finding.what}')}")
        if finding.advice:
            click.echo(f"{' ' * MARGIN}-> {escape(finding.advice)}")
    faults, warnings = _count(findings, "fault"), _count(findings, "warn")
    click.echo(f"{exits.counted(faults, 'fault')}, {exits.counted(warnings, 'warning')}")


def _level(finding: Finding) -> str:
    word = finding.level.ljust(MARGIN)
    coloured = is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
    return click.style(word, fg=COLOURS[finding.level]) if coloured else word


def _count(findings: Sequence[Finding], level: str) -> int:
    return sum(finding.level == level for finding in findings)


COMMANDS = {"doctor": doctor}
