"""Every block of docs/tables.md, run in order in one folder."""

import re
import shutil
from pathlib import Path

from tests.checkpoints import GOLDEN
from tests.commands import engram
from tests.documents import run_python

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)


def run_console(block: str, folder: Path) -> int:
    """Runs each command and compares what it prints, as far as the page shows it; gives how many there were."""
    commands = block.split("$ ")[1:]
    for command in commands:
        line, _, shown = command.partition("\n")
        arguments = line.removeprefix("engram ").split()
        done = engram(*arguments, cwd=folder)
        assert done.returncode == 0, (line, done.stderr)
        for expected in shown.splitlines():
            assert re.search(re.escape(expected).replace("…", ".*"), done.stdout), (line, expected, done.stdout)
    return len(commands)


def test_the_tables_page_does_what_it_says(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "deepseek_v41_tiny", tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "expected.safetensors").unlink()
    commands, scripts, printed, names = 0, "", "", {"__name__": "__main__"}
    for language, block in BLOCK.findall((ROOT / "docs" / "tables.md").read_text()):
        if language == "console":
            commands += run_console(block, tmp_path)
            continue
        scripts += block
        printed += run_python(block, names, tmp_path)
        assert printed.split("\n")[:-1] == re.findall(r"# → (.*)", scripts)
    assert commands == 8
    assert scripts.count("# →") == 4
    restored, original = tmp_path / "restored", tmp_path / "checkpoint"
    assert all((restored / f.name).read_bytes() == (original / f.name).read_bytes() for f in restored.iterdir())
