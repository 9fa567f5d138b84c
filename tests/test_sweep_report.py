"""The figures of a report: against a fit and a distribution computed otherwise."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.sweep.arms import arms_of
from runtime.sweep.folder import SweepFolder
from runtime.sweep.report import STUDENT, difference, fitted_slope, report, student
from runtime.sweep.sweep import Sweep
from runtime.train.choice import chosen_settings


def results(*nats: float, rows: int = 0) -> list[dict[str, Any]]:
    """With seeds from 0."""
    return [{"seed": seed, "nats": one, "table_parameters": rows} for seed, one in enumerate(nats)]


def test_a_difference_is_that_of_pairs() -> None:
    first, other = results(1.0, 5.0, 9.0), results(2.0, 7.0, 12.0)
    found = difference(other, first, "nats")
    assert found == {"mean": 2.0, "ci95": [pytest.approx(2 - 2.484, abs=1e-3), pytest.approx(2 + 2.484, abs=1e-3)], "seeds": 3}
    assert difference(first, first, "nats") is None
    assert difference(other[:1], first, "nats") == {"mean": 1.0, "ci95": None, "seeds": 1}
    assert difference(other[1:], first[:2], "nats") == {"mean": 2.0, "ci95": None, "seeds": 1}


@pytest.mark.parametrize("degrees", [1, 2, 5, 29])
def test_the_quantiles_are_students(degrees: int) -> None:
    """The density, added up between the two."""
    scale = math.gamma((degrees + 1) / 2) / math.sqrt(degrees * math.pi) / math.gamma(degrees / 2)
    x = np.linspace(-student(degrees), student(degrees), 200_001)
    density = scale * (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
    assert np.trapezoid(density, x) == pytest.approx(0.95, abs=1e-4)
    assert len(STUDENT) == 29
    assert STUDENT[-1] > student(30) == pytest.approx(1.96)


@given(
    slope=st.floats(-1, 1),
    levels=st.lists(st.floats(-3, 3), min_size=1, max_size=4),
    noise=st.lists(st.floats(-0.1, 0.1), min_size=20, max_size=20),
)
def test_the_slope_is_that_of_least_squares(slope: float, levels: list[float], noise: list[float]) -> None:
    sizes = [2.0**power for power in (4, 6, 8, 10, 12)]
    found: dict[str, list[dict[str, Any]]] = {
        f"rows-{size}": [
            {"seed": seed, "nats": level + slope * math.log2(size) + noise[5 * seed + number], "table_parameters": size}
            for seed, level in enumerate(levels)
        ]
        for number, size in enumerate(sizes)
    }
    found["none"] = results(*levels)
    fitted = fitted_slope(found)
    assert fitted is not None
    points = [one for name, several in found.items() if name != "none" for one in several]
    columns = np.array(
        [[math.log2(one["table_parameters"]), *(one["seed"] == s for s in range(len(levels)))] for one in points]
    )
    values = np.array([one["nats"] for one in points])
    solution, *_ = np.linalg.lstsq(columns, values, rcond=None)
    residuals = values - columns @ solution
    variance = residuals @ residuals / (len(points) - len(levels) - 1) * np.linalg.inv(columns.T @ columns)[0, 0]
    assert fitted["nats_per_doubling"] == pytest.approx(solution[0], abs=1e-9)
    assert fitted["standard_error"] == pytest.approx(math.sqrt(variance), abs=1e-9)
    assert fitted["points"] == len(points)


def test_too_few_points_have_no_slope() -> None:
    assert fitted_slope({"rows-4": results(1.0, rows=4), "rows-8": results(0.5, rows=8)}) is None
    assert fitted_slope({}) is None


def test_an_unfinished_sweep_reports_what_there_is(tmp_path: Path) -> None:
    base = chosen_settings(preset="nano", options={"recipe.steps": 5})
    sweep = Sweep("rows", arms_of("rows", base), range(2), SweepFolder(tmp_path))
    assert report(sweep) == {"name": "rows", "arms": [], "slope": None}
    figures = {"steps": 5, "parameters": 10, "table_parameters": 4, "flops_per_token": 6.0, "seconds": 2.0}
    for seed, (nats, facts) in enumerate([(3.0, 50.0), (4.0, 70.0)]):
        own = figures | {"nats": nats, "other_domain_nats": 5.0, "seed": seed}
        own |= {f"{kind}_percent": facts for kind in ("facts", "paraphrase", "reading")}
        sweep.place.write_result("rows-500", seed, own)
    (arm,) = report(sweep)["arms"]
    assert arm["seeds"] == 2
    assert (arm["nats"], arm["nats_std"]) == (3.5, pytest.approx(math.sqrt(0.5)))
    assert (arm["facts_percent"], arm["facts_suppressed_percent"], arm["steps"]) == (60.0, None, 5)
