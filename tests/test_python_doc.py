"""Every block of docs/python.md, run in order on a run that was trained."""

import re
from pathlib import Path

import pytest

from runtime.run import Run
from tests.commands import ROOT
from tests.documents import run_python
from tests.modules import loaded_by

PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_does_what_it_says(trained_run: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(trained_run.folder)
    names = {"__name__": "__main__"}
    for block in BLOCKS:
        printed = run_python(block, names, tmp_path)
        assert printed.splitlines() == re.findall(r"# → (.*)", block), block
    assert sum(block.count("# →") for block in BLOCKS) == 5


def test_it_takes_ten_lines() -> None:
    lines = [line for line in BLOCKS[0].splitlines() if line and not line.startswith(("from ", "import "))]
    assert len(lines) == 10


def test_tables_alone_load_no_torch(trained_run: Run) -> None:
    script = BLOCKS[-1].replace("runs/demo", str(trained_run.folder))
    assert "torch" not in loaded_by(script)


@pytest.mark.parametrize("name", re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE))
def test_its_nouns_exist(name: str) -> None:
    modules = [path.read_text() for room in ("hashing", "table", "runtime") for path in (ROOT / room).rglob("*.py")]
    assert any(re.search(rf"^(class|def) {name}\b", text, re.MULTILINE) for text in modules)
