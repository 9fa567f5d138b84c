"""Every console block of docs/serving.md, run in order beside a model of toy size."""

import inspect
import re
import shlex
import tarfile
from pathlib import Path

from runtime.run import Run
from tests.commands import ROOT, engram

BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
PAGE = (ROOT / "docs" / "serving.md").read_text()


def test_the_serving_page_does_what_it_says(trained_run: Run, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(inspect.getsource(tarfile))
    printed = {}
    for block in BLOCK.findall(PAGE):
        for command in block.split("$ ")[1:]:
            line = command.partition("\n")[0]
            done = engram(*shlex.split(line)[1:], "--run", trained_run.folder, cwd=tmp_path)
            assert done.returncode == 0, (line, done.stderr)
            printed[line] = done.stdout
    texts = {text for line, text in printed.items() if line.startswith("engram generate")}
    assert len(printed) == 4
    assert len(texts) == 1, "the same text in every placement"


def test_blocks_that_are_not_run_say_why() -> None:
    others = re.findall(r"(.*)\n```(?:bash|python)\n", PAGE)
    assert len(others) == 4
    assert all(re.search(r"not run here: .*tests/\w+\.py", line) for line in others)


def test_what_the_page_names_exists() -> None:
    helps = "".join(
        engram(*command.split(), "--help").stdout for command in ("serve", "generate", "plan serve", "bench offload")
    )
    assert {option for option in re.findall(r"`(--[a-z-]+)", PAGE) if option not in helps} == set()
