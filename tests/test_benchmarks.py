"""What the benchmarks make of their figures; that they run at all is seen by running them with --quick."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
from chaos_support import Story, whole  # noqa: E402

import growth  # noqa: E402
import harness  # noqa: E402
import project  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
import soak  # noqa: E402
from growing import Sample  # noqa: E402
from yaotask.chaos.report import Report  # noqa: E402


def sampled(number: int, claim: float, dead: int, log: int) -> Sample:
    """After so many half minutes of 1,000 jobs each, of which each has left 500 bytes."""
    jobs = number * 1_000
    return Sample(number / 2, jobs, claim, 10, jobs * 300, jobs * 200, jobs, dead, log, 0)


def test_a_store_that_stays_as_it_is_is_flat() -> None:
    samples = [sampled(number, 2.0, 50 * number, 1_200_000 * number) for number in range(1, 13)]

    assert growth.verdict(samples) == [
        "claim: flat, 2 ms, then 2 ms",
        "claim, for each of its jobs: flat, 0.2 ms, then 0.2 ms",
        "log a job: flat, 1.2e+03 bytes, then 1.2e+03 bytes",
        "dead rows of 100 live ones: flat, 5, then 5",
        "tables and indexes, for a job more: flat, 500 bytes, then 500 bytes",
    ]


def test_what_is_more_at_the_end_than_at_the_beginning_grows() -> None:
    samples = [sampled(number, 2.0 + number, 10 * number**2, 1_000_000 * number**2) for number in range(1, 13)]

    words = [line.partition(": ")[2].partition(",")[0] for line in growth.verdict(samples)]

    assert words == ["grows", "grows", "grows", "grows", "flat"]


def test_a_database_that_does_not_say_is_not_judged() -> None:
    samples = [Sample(number / 2, number, 1.0, 10, number, None, None, None, None, None) for number in range(1, 13)]

    lines = growth.verdict(samples)

    assert [line.partition(": ")[2].partition(",")[0] for line in lines] == [
        "flat",
        "flat",
        "too few samples",
        "too few samples",
        "flat",
    ]


def test_a_line_of_growth_has_a_cell_for_each_column() -> None:
    first, second = sampled(1, 2.0, 50, 1_200_000), sampled(2, 2.0, 50, 2_400_000)

    assert len(growth.cells(None, first)) == len(growth.HEADER)
    assert growth.cells(first, second)[-2] == "1,200 bytes"


@pytest.mark.parametrize("kind", run.PAGES)
def test_the_table_of_each_database_has_its_place_in_a_page(kind: str, tmp_path: Path) -> None:
    page, mark = run.PAGES[kind]
    copy = tmp_path / page.name
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")

    report.replace(copy, mark, "the new table")

    shown = copy.read_text(encoding="utf-8")
    assert f"<!-- {mark} -->\nthe new table\n<!-- /{mark} -->" in shown
    assert len(shown.splitlines()) <= len(page.read_text(encoding="utf-8").splitlines())


def test_a_row_shows_the_median_and_the_range() -> None:
    row = harness.Row("drain", "jobs/s", [50_000.0, 40_000.0, 60_000.0], ">= 1")

    assert report.cells(row) == ["drain", "50,000 jobs/s", "40,000 to 60,000", ">= 1"]


# --- soak -----------------------------------------------------------------------------------------------


def soaked(story: Story) -> list[tuple[str, Report]]:
    return [("sqlite", Report.of(story.facts, [], store="s", seed=7, seconds=1, wanted=["kill-worker"]))]


def test_a_soak_in_which_nothing_was_tried_proves_nothing() -> None:
    reports = soaked(Story())

    assert not soak.holds(reports)
    assert soak.about(reports, 1) == (
        "Seed 7, `--minutes 1`: nothing is proved. SQLite: no add was acknowledged; SQLite: no handler started;"
        " SQLite: no fault was made, of kill-worker."
    )


def test_what_a_soak_was_asked_for_is_told_with_it() -> None:
    reports = soaked(whole()[0])

    asked = {**soak.USUAL, "rest": (0.5, 2.0), "nodes": 4}
    assert soak.about(reports, 3, **asked).startswith("Seed 7, `--minutes 3 --rest 0.5 2 --nodes 4`. ")
    assert soak.about(reports, 4, **soak.USUAL).startswith("Seed 7, `--minutes 4`. ")


def test_a_soak_without_a_database_proves_nothing() -> None:
    assert not soak.holds([])
    assert soak.about([], 1) == "There was no database: nothing is proved."


def test_a_soak_in_which_all_went_well_counts_its_kills() -> None:
    story, _ = whole()
    reports = soaked(story)

    assert soak.holds(reports)
    assert "1 kills broke no promise" in soak.about(reports, 1)


def test_the_runs_of_a_soak_on_one_database_are_a_column() -> None:
    story, _ = whole()
    ((_, plain),) = soaked(story)
    first, second = replace(plain, recoveries=[1.0, 4.0]), replace(plain, seed=8, recoveries=[2.0])
    reports = [("postgresql", first), ("sqlite", first), ("sqlite", second)]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in soak.table(reports).splitlines()]

    assert rows[0] == ["", "SQLite", "PostgreSQL", "together"]
    assert ["runs", "2", "1", "3"] in rows
    assert ["jobs of the dead run again after, median", "2.00 s", "2.50 s", ""] in rows
    assert ["the same, worst", "4.00 s", "4.00 s", ""] in rows
    assert soak.about(reports, 4).startswith("Seeds 7 to 8, `--minutes 4`. 3 kills broke no promise")


def test_a_soak_goes_on_until_jobs_and_kills_are_enough() -> None:
    story, _ = whole()
    ((_, plain),) = soaked(story)
    reports = [("sqlite", replace(plain, jobs=60, kills=2)), ("mariadb", replace(plain, jobs=40, kills=1))]

    assert soak.is_enough(reports, 100, 3)
    assert not soak.is_enough(reports, 101, 3)
    assert not soak.is_enough(reports, 100, 4)


def test_a_soak_begins_no_seed_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    story, _ = whole()
    ((_, plain),) = soaked(story)
    runs: list[tuple[str, int]] = []
    orders: list[dict[str, object]] = []

    def run(kind: str, minutes: float, seed: int, **more: object) -> Report:
        runs.append((kind, seed))
        orders.append(more)
        return replace(plain, jobs=60)

    monkeypatch.setattr(soak, "_soaked", run)

    assert soak.main(["--store", "sqlite", "--jobs", "100", "--kills", "2"]) == 0
    assert soak.main(["--store", "sqlite", "--store", "mariadb", "--within", "0"]) == 0
    assert runs == [("sqlite", 1), ("sqlite", 2), ("sqlite", 1), ("mariadb", 1)]
    assert orders == [dict(soak.USUAL)] * 4


def test_each_run_of_a_soak_may_have_to_see_all(monkeypatch: pytest.MonkeyPatch) -> None:
    story, _ = whole()
    ((_, plain),) = soaked(story)
    orders: list[object] = []

    def run(kind: str, minutes: float, seed: int, folder: Path, **more: object) -> Report:
        orders.append(more)
        return replace(plain, jobs=100, kills=2)

    monkeypatch.setattr(soak, "soak", run)

    assert soak.main(["--store", "sqlite", "--at-once", "--jobs", "100", "--kills", "2", "--rest", "1", "2"]) == 0
    assert orders == [{**soak.USUAL, "rest": (1.0, 2.0), "jobs": 100, "kills": 2, "least": soak.LEAST}]


def test_the_address_of_a_store_leads_to_it_from_any_folder(tmp_path: Path) -> None:
    assert project.address(tmp_path) == f"sqlite:///{tmp_path}/.yaotask/yaotask.db"
