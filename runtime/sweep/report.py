"""Report: what the arms of a sweep came to, over their seeds.

Seeds are paired: an arm and the first arm with one seed have the same batches in the same order, so their difference has an
error of its own, from the spread of differences and Student's distribution. A sweep of table sizes also has a slope, of
validation loss against the binary logarithm of rows, fitted with a level for each seed; its error holds what a line does not.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from runtime.sweep.sweep import Sweep

# 97.5 % quantiles of Student's distribution with 1, 2, … degrees of freedom; from 30 on the normal distribution's is near.
STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045),
)
NORMAL = 1.960
QUESTIONS = ("facts", "paraphrase", "reading")
MEANS = (
    "nats", "bits_per_byte", "suppressed_nats", "other_domain_nats", "other_domain_suppressed_nats", "seconds",
    *(f"{kind}_{variant}percent" for kind in QUESTIONS for variant in ("", "suppressed_")),
)  # fmt: skip
SAME = ("steps", "parameters", "table_parameters", "flops_per_token")  # for all seeds
DIFFERENCES = ("nats", "other_domain_nats", "facts_percent", "paraphrase_percent", "reading_percent")

Result = Mapping[str, Any]


def report(sweep: Sweep) -> dict[str, Any]:
    """Of all jobs that are done, arms without any left out; figures are means over seeds, None where an arm has none."""
    found = {arm.name: _results(sweep, arm.name) for arm in sweep.arms}
    found = {name: results for name, results in found.items() if results}
    first = next(iter(found.values()), [])
    arms = [_arm(name, results, first) for name, results in found.items()]
    slope = {"slope": fitted_slope(found)} if sweep.name == "rows" else {}
    return {"name": sweep.name, "arms": arms, **slope}


def _results(sweep: Sweep, arm: str) -> list[Result]:
    return [result for seed in sweep.seeds if (result := sweep.place.result(arm, seed)) is not None]


def _arm(name: str, results: Sequence[Result], first: Sequence[Result]) -> dict[str, Any]:
    nats = [one["nats"] for one in results]
    content: dict[str, Any] = {"name": name, "seeds": len(results), "nats_std": stdev(nats) if len(nats) > 1 else None}
    content |= {key: _mean(results, key) for key in MEANS} | {key: results[0][key] for key in SAME}
    return content | {f"{key}_difference": difference(results, first, key) for key in DIFFERENCES}


def _mean(results: Sequence[Result], key: str) -> float | None:
    return fmean(one[key] for one in results) if key in results[0] else None


def difference(results: Sequence[Result], first: Sequence[Result], key: str) -> dict[str, Any] | None:
    """To the first arm, over the seeds that both have, with a 95 % interval where there are two; None for the first itself."""
    own, others = ({one["seed"]: one[key] for one in side} for side in (results, first))
    found = [own[seed] - others[seed] for seed in own if seed in others]
    if results is first or not found:
        return None
    reach = student(len(found) - 1) * stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None
    mean = fmean(found)
    return {"mean": mean, "ci95": None if reach is None else [mean - reach, mean + reach], "seeds": len(found)}


def student(degrees: int) -> float:
    """How many standard errors a 95 % interval reaches to each side."""
    return STUDENT[degrees - 1] if degrees <= len(STUDENT) else NORMAL


def fitted_slope(found: Mapping[str, Sequence[Result]]) -> dict[str, Any] | None:
    """Nats for each doubling of the rows; None with too few results for a line and its error.

    Least squares with one slope and a level for each seed.
    """
    points = [
        (one["seed"], math.log2(one["table_parameters"]), one["nats"])
        for results in found.values()
        for one in results
        if one["table_parameters"]
    ]
    seeds = {seed for seed, _, _ in points}
    degrees = len(points) - len(seeds) - 1
    if degrees < 1:
        return None
    levels = {
        seed: (fmean(x for s, x, _ in points if s == seed), fmean(y for s, _, y in points if s == seed)) for seed in seeds
    }
    centred = [(x - levels[seed][0], y - levels[seed][1]) for seed, x, y in points]
    spread = sum(x * x for x, _ in centred)
    slope = sum(x * y for x, y in centred) / spread
    error = math.sqrt(sum((y - slope * x) ** 2 for x, y in centred) / degrees / spread)
    reach = student(degrees) * error
    return {"nats_per_doubling": slope, "standard_error": error, "ci95": [slope - reach, slope + reach], "points": len(points)}
