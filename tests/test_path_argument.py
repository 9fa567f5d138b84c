"""From Python, a text where a Path is wanted is an error and not a silent other thing; so is a placement that there is not."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hashing.base.errors import UsageError
from hashing.spec import HashSpec
from hashing.text.corpus import Corpus
from runtime.placement.placement import place
from runtime.run import Run
from runtime.serve.run_generator import RunGenerator
from runtime.trained_run import TrainedRun
from table.store.store import TableStore

ROOMS = ("hashing", "table", "runtime", "engram_cli")


@pytest.mark.parametrize("call", [Run, TableStore.open, HashSpec.load, lambda text: Corpus((text,))])
def test_a_text_for_a_path_is_refused(call: Callable[[Any], object], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a Path") as refused:
        call(str(tmp_path))
    assert refused.value.hint == f'Path("{tmp_path}")'


@pytest.mark.parametrize("paths", ["texts", Path("texts"), [Path("texts")]])
def test_one_path_for_a_tuple_of_them_is_refused(paths: Any) -> None:
    with pytest.raises(UsageError, match="expected a tuple of Paths"):
        Corpus(paths)


def test_a_placement_that_there_is_not_is_refused(trained_run: Run) -> None:
    trained = TrainedRun.load(trained_run, torch.device("cpu"))
    assert trained.store is not None
    calls: list[Callable[[Any], object]] = [
        lambda name: place(trained.tables, name, torch.device("cpu")),  # type: ignore[arg-type]
        trained.lookup,
        lambda name: RunGenerator.load(trained_run, name),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="no placement is called 'moon'") as refused:
            call("moon")
        assert refused.value.hint == "the names are device, host, disk, mapped"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_that_it_has_types(room: str) -> None:
    root = Path(__file__).parents[1]
    assert (root / room / "py.typed").is_file()
    package_data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "py.typed" in package_data[room]
