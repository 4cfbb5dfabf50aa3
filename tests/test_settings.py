"""What a project sets: file, then environment, then what an App is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from yaotask import App
from yaotask.settings import Limits, Settings, load_settings, merge

Project = Callable[..., Path]


def good(root: Path, environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings that have no fault."""
    settings, problems = load_settings(root, environ or {}, overrides)

    assert problems == []
    return settings


def faults(root: Path, **environ: str) -> list[str]:
    return [str(problem) for problem in load_settings(root, environ)[1]]


# --- what may be set ---------------------------------------------------------------------------------


def test_nothing_has_to_be_set(project: Project) -> None:
    root = project()

    assert good(root) == Settings(
        store="sqlite:///.yaotask/yaotask.db",
        poll=timedelta(seconds=1),
        claim_batch=None,
        processes=1,
        lease=timedelta(seconds=30),
        heartbeat=timedelta(seconds=10),
        losses=3,
        grace=timedelta(seconds=25),
        cancel_grace=timedelta(seconds=5),
        max_jobs_per_child=1_000,
        hook_timeout=timedelta(seconds=30),
        hook_attempts=5,
        log="text",
        limits=Limits(262_144, 1_048_576, 16_384, 1_024, 64, 10_000),
        defaults={},
    )


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("poll: 0.5", "poll", timedelta(milliseconds=500)),
        ("poll: 250ms", "poll", timedelta(milliseconds=250)),
        ("claim_batch: auto", "claim_batch", None),
        ("claim_batch: 50", "claim_batch", 50),
        ("processes: 4", "processes", 4),
        ("processes: off", "processes", 0),
        ("lease: 1m", "lease", timedelta(minutes=1)),
        ("heartbeat: 100ms", "heartbeat", timedelta(milliseconds=100)),
        ("losses: 1", "losses", 1),
        ("grace: 0", "grace", timedelta(0)),
        ("cancel_grace: 0", "cancel_grace", timedelta(0)),
        ("max_jobs_per_child: 1", "max_jobs_per_child", 1),
        ("hook_timeout: 5m", "hook_timeout", timedelta(minutes=5)),
        ("hook_attempts: 1", "hook_attempts", 1),
        ("log: json", "log", "json"),
        ("limits: {depth: 9}", "limits", Limits(depth=9)),
        ("defaults: {attempts: 3}", "defaults", {"attempts": 3}),
        ("x-mine: [1]", "log", "text"),
        ("$schema: a", "log", "text"),
        ("poll: ${P:-2s}", "poll", timedelta(seconds=2)),
    ],
)
def test_each_setting_is_read_in_its_own_unit(project: Project, line: str, name: str, value: object) -> None:
    assert getattr(good(project(settings=line)), name) == value


@pytest.mark.parametrize("name", ["plain", "a%20b", "feature%2Ffoo", "q?x", "a#b"])
def test_the_file_of_a_store_is_relative_to_the_project_whatever_its_name(project: Project, name: str) -> None:
    root = project() / name
    (root / "tasks").mkdir(parents=True)
    with App(root) as app:
        assert app.store_status()["jobs"] == {}

    assert (root / ".yaotask" / "yaotask.db").exists()


def test_what_no_database_could_store_is_at_fault_in_the_environment_too(project: Project) -> None:
    settings, (problem,) = load_settings(project(), {"YAOTASK_STORE": "sqlite:////tmp/\udcff.db"})

    assert settings.store == "sqlite:///.yaotask/yaotask.db"
    assert "YAOTASK_STORE" in str(problem)
    assert "half of a surrogate pair" in str(problem)


def test_a_file_of_settings_that_leads_nowhere_is_told_of(project: Project) -> None:
    root = project()
    (root / "yaotask.yml").symlink_to("nowhere.yml")
    (problem,) = load_settings(root, {})[1]

    assert "cannot be read" in str(problem)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("store: jobs.db", "1:8: store: must be a database URL such as sqlite:///.yaotask/yaotask.db, got ***"),
        ("poll: 1ms", "1:7: poll: must be at least 10ms, got 1ms"),
        (
            "poll: often",
            '1:7: poll: must be a number of seconds or a duration such as "500ms", "2s", "5m" or "1h30m", got "often"',
        ),
        ("claim_batch: 0", "1:14: claim_batch: must be at least 1, got 0"),
        ("claim_batch: many", '1:14: claim_batch: must be "auto" or an integer, got "many"'),
        ("processes: 0", "1:12: processes: must be at least 1, got 0"),
        ("processes: on", '1:12: processes: must be an integer or "off", got "on"'),
        ("lease: 999ms", "1:8: lease: must be at least 1s, got 999ms"),
        ("lease: 29s", "1:8: lease: must be at least three times heartbeat, which is 10s; got 29s"),
        ("heartbeat: 11s", "1:12: heartbeat: must be at most a third of lease, which is 30s; got 11s"),
        ("heartbeat: 99ms", "1:12: heartbeat: must be at least 100ms, got 99ms"),
        (
            "heartbeat: 2s\nlease: 5s",
            "2:8: lease: must be at least three times heartbeat, which is 2s; got 5s",
        ),
        ("lease: 0\nheartbeat: 20s", "1:8: lease: must be at least 1s, got 0"),
        ("cancel_grace: -1", "1:15: cancel_grace: must not be negative, got -1"),
        ("max_jobs_per_child: 0", "1:21: max_jobs_per_child: must be at least 1, got 0"),
        ("losses: true", "1:9: losses: must be an integer, got true"),
        ("grace: -1", "1:8: grace: must not be negative, got -1"),
        ("hook_timeout: 0", "1:15: hook_timeout: must be at least 1ms, got 0"),
        ("hook_attempts: 1001", "1:16: hook_attempts: must be at most 1000, got 1001"),
        ("log: xml", '1:6: log: must be "text" or "json", got "xml"'),
        ("limits: 5", "1:9: limits: must be a mapping, got 5"),
        ("limits: {depth: 201}", "1:17: limits.depth: must be at most 200, got 201"),
        ("limits: {args_byte: 1}", '1:10: limits.args_byte: unknown setting; did you mean "args_bytes"?'),
        ("defaults: [1]", "1:11: defaults: must be a mapping, got a list"),
        ("pol: 1s", '1:1: pol: unknown setting; did you mean "poll"?'),
        (
            "poll: ${NONE}",
            "1:7: poll: needs the environment variable NONE, which is not set; or give a default: ${NONE:-...}",
        ),
        ("- poll", " must be a mapping of settings, as in: poll: 1s"),
        ("poll: 1s\npoll: 2s", "2:1: poll: the key is here twice; the first is on line 1"),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(project: Project, line: str, said: str) -> None:
    assert faults(project(settings=line)) == [f"yaotask.yml:{said}"]


@pytest.mark.parametrize("name", ["http", "timezone", "queues", "notify"])
def test_a_setting_of_a_feature_to_come_is_refused_as_unknown(project: Project, name: str) -> None:
    (found,) = faults(project(settings=f"{name}: 1"))

    assert found.startswith(f"yaotask.yml:1:1: {name}: unknown setting")


def test_a_setting_at_fault_keeps_its_default_and_the_others_count(project: Project) -> None:
    settings, problems = load_settings(project(settings="poll: x\nlosses: 7\nlog: y\n"), {})

    assert (settings.poll, settings.losses, settings.log) == (timedelta(seconds=1), 7, "text")
    assert [problem.line for problem in problems] == [1, 3]


def test_a_value_of_the_environment_is_never_told(project: Project) -> None:
    root = project(settings="poll: ${P}\nlog: ${P}\nlosses: ${P}\n")

    assert [fault.endswith("got ***") for fault in faults(root, P="hunter2")] == [True, True, True]


@pytest.mark.parametrize("name", ["YAOTASK_LEASE", "YAOTASK_HEARTBEAT"])
def test_a_lease_that_a_variable_made_too_short_is_told_of_the_variable(project: Project, name: str) -> None:
    (found,) = faults(project(), **{name: "20s"})

    assert found.startswith(f"environment: {name}: must be at ")


# --- environment and App -----------------------------------------------------------------------------


def test_a_variable_wins_over_the_file_and_what_an_app_is_given_over_both(project: Project) -> None:
    root = project(settings="losses: 1\n")

    assert good(root).losses == 1
    assert good(root, {"YAOTASK_LOSSES": "2"}).losses == 2
    assert good(root, {"YAOTASK_LOSSES": "2"}, {"losses": 4}).losses == 4
    assert good(root, {"YAOTASK_LOSSES": ""}, {"losses": None}).losses == 1


def test_two_underscores_reach_inside_a_setting(project: Project) -> None:
    root = project(settings="limits: {depth: 5, nodes: 6}\ndefaults: {attempts: 1}\n")
    settings = good(root, {"YAOTASK_LIMITS__DEPTH": "9", "YAOTASK_DEFAULTS__EVENT__ADD": "a.b"})

    assert settings.limits == Limits(depth=9, nodes=6)
    assert settings.defaults == {"attempts": 1, "event": {"add": "a.b"}}


def test_a_wrong_value_in_the_file_does_not_matter_once_it_is_replaced(project: Project) -> None:
    assert good(project(settings="losses: none\n"), {"YAOTASK_LOSSES": "2"}).losses == 2


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("YAOTASK_LOSSES", "x", 'must be an integer, got "x"'),
        ("YAOTASK_LOSES", "1", 'unknown setting; did you mean "losses"?'),
        ("YAOTASK_LIMITS__DEPTHS", "1", 'unknown setting; did you mean "depth"?'),
        ("YAOTASK_ROOTS", "1", "unknown setting"),
        ("YAOTASK_LOSSES", "9007199254740993", "is an integer beyond 2**53 - 1"),
    ],
)
def test_a_wrong_variable_is_named(project: Project, name: str, value: str, said: str) -> None:
    (found,) = faults(project(), **{name: value})

    assert found.startswith(f"environment: {name}: {said}")


@pytest.mark.parametrize("name", ["YAOTASK_ROOT", "YAOTASK_DEBUG", "YAOTASK_TEST_POSTGRESQL", "YAOTASKS", "PATH"])
def test_variables_that_are_no_settings_are_left_alone(project: Project, name: str) -> None:
    assert faults(project(), **{name: "1"}) == []


def test_a_wrong_setting_of_an_app_is_named(project: Project) -> None:
    app = App(project(), settings={"losses": 0, "limits": {"depth": 0}, "lose": 1})

    assert [str(problem) for problem in app.problems] == [
        "App(settings=...): limits: must be at least 1, got 0",
        'App(settings=...): lose: unknown setting; did you mean "losses"?',
        "App(settings=...): losses: must be at least 1, got 0",
    ]


def test_merging_keeps_what_is_not_replaced() -> None:
    base = {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}

    assert merge(base, {"b": {"c": 5}, "e": 6}) == {"a": 1, "b": {"c": 5, "d": 3}, "e": 6}
    assert base["b"] == {"c": 2, "d": 3}
