"""A drain by huey, in its own environment: `huey_drain.py DATABASE JOBS WORKERS`, answered in seconds."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time

from huey import SqliteHuey

DATABASE, JOBS, WORKERS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

# As durable as ours, and without results, which would cost it a write for each job.
huey = SqliteHuey(filename=DATABASE, journal_mode="wal", fsync=True, results=False, immediate=False)
numbers = itertools.count(1)
done = threading.Event()


def count(number: int) -> None:
    if next(numbers) == JOBS:
        done.set()


noop = huey.task()(count)


def main() -> None:
    for number in range(JOBS):
        noop(number)
    consumer = huey.create_consumer(workers=WORKERS, periodic=False, initial_delay=0.01, max_delay=0.1)
    started = time.perf_counter()
    consumer.start()
    done.wait()
    json.dump(time.perf_counter() - started, sys.stdout)
    sys.stdout.flush()
    consumer.stop(graceful=True)


if __name__ == "__main__":
    main()
