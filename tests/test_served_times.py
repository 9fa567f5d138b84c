"""What a server tells of its times is what Prometheus' own library would tell."""

from random import Random

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from runtime.serve.metrics import SECONDS, Times


def test_times_are_told_as_by_the_library() -> None:
    own, theirs = CollectorRegistry(), CollectorRegistry()
    times = Times("seconds", "From one to the next.")
    own.register(times)
    histogram = Histogram("seconds", "From one to the next.", buckets=SECONDS, registry=theirs)
    random = Random(0)
    for sec in [*SECONDS, 0.0, 100.0, *(10 ** random.uniform(-4, 2) for _ in range(500))]:
        times.add(sec)
        histogram.observe(sec)
    told = generate_latest(theirs).decode().splitlines()
    assert generate_latest(own).decode().splitlines() == [line for line in told if "_created" not in line]
