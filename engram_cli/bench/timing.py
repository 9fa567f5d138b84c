"""Timing several ways of doing one thing.

The ways take turns, round after round, so that whatever else the machine does falls on all of them alike. Callers take the
median of a way's times where calls are short, or the least where a single round takes seconds.
"""

from collections.abc import Callable, Mapping
from time import perf_counter

Ways = Mapping[str, Callable[[], object]]


def time_in_turn(ways: Ways, rounds: int, calls: int = 1, before: Callable[[], object] | None = None) -> dict[str, list[float]]:
    """Seconds a call, one number for each round and way; a round calls a way `calls` times in a row.

    `before` is called, untimed, ahead of each way's turn. One round more is run first and not counted: it compiles, maps and
    allocates.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            if before is not None:
                before()
            start = perf_counter()
            for _ in range(calls):
                way()
            if number:
                seconds[name].append((perf_counter() - start) / calls)
    return seconds
