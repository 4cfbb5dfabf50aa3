"""The real pools, ledgers, reapers and couriers of several nodes in one thread, on a clock that nobody waits for.

The same seed gives the same run, to the last event. See docs/reliability.md.
"""
