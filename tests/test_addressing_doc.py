"""The addressing document says nothing that is not so."""

import doctest
from pathlib import Path


def test_every_example_runs() -> None:
    path = Path(__file__).parents[1] / "docs" / "addressing.md"
    result = doctest.testfile(str(path), module_relative=False)
    assert result.attempted > 20
    assert result.failed == 0
