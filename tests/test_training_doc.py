"""Every block of docs/training.md, run in order in one folder, at small size; and what it says of crashes."""

import inspect
import json
import re
import shlex
import tarfile
from pathlib import Path

from tests.commands import ROOT, engram
from tests.small_tokenizers import byte_level, wordpiece

BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
PAGE = (ROOT / "docs" / "training.md").read_text()
SMALL = {"--minutes 3": "--preset nano --minutes 0.02", "--no-memory --minutes 6": "--preset nano --no-memory --minutes 0.05"}


def prepare(folder: Path) -> None:
    """What a reader of the page has: a text, a folder of files of all kinds, two tokenizers."""
    text = inspect.getsource(tarfile)
    (folder / "notes.txt").write_text(text)
    (folder / "mixed").mkdir()
    (folder / "mixed" / "a.txt").write_text(text[:9000], encoding="utf-16")
    (folder / "mixed" / "b.txt").write_text(f"{text[9000:18_000]} café", encoding="latin-1")
    (folder / "mixed" / "c.json").write_text(json.dumps([text[18_000:20_000], text[20_000:22_000]]))
    (folder / "mixed" / "d.html").write_text("<html>no text</html>")
    for name, tokenizer in (("wordpiece", wordpiece("[SEP]", "[PAD]")), ("odd", byte_level("<FIN>"))):
        (folder / name).mkdir()
        tokenizer.save(str(folder / name / "tokenizer.json"))


def run_block(block: str, folder: Path) -> int:
    """Runs each command and compares what it prints, as far as the page shows it; gives how many there were."""
    commands = block.split("$ ")[1:]
    for command in commands:
        line, _, shown = command.partition("\n")
        for long, short in SMALL.items():
            line = line.replace(long, short)
        line = line.replace("--resume --minutes 6", "--resume --minutes 0.05")
        done = engram(*shlex.split(line)[1:], cwd=folder)
        assert done.returncode == 0, (line, done.stderr)
        if line.startswith("engram config nano"):
            (folder / "deep.toml").write_text(done.stdout)
        for expected in shown.splitlines():
            pattern = re.sub(r"(\\ )+", r"\\s+", re.escape(expected)).replace("…", ".*")
            assert re.search(pattern, done.stdout), (line, expected, done.stdout)
    return len(commands)


def test_the_training_page_does_what_it_says(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert sum(run_block(block, tmp_path) for block in BLOCK.findall(PAGE)) == 21
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "runs" / "mixed" / "corpus.json").read_text())["encoding"] == "latin-1"


def test_what_the_page_names_exists() -> None:
    """Options and settings in the running text."""
    options = set(re.findall(r"`(--[a-z-]+)", PAGE)) | set(re.findall(r" (--[a-z-]+)", "".join(BLOCK.findall(PAGE))))
    commands = ("train", "build-vocab", "eval", "generate", "plot", "plan model")
    helps = "".join(engram(*command.split(), "--help").stdout for command in commands)
    assert {option for option in options if option not in helps} == set()
    settings = engram("config", "tiny").stdout
    assert all(re.search(rf"^{name} =", settings, re.MULTILINE) for name in re.findall(r"`recipe\.([a-z_]+)`", PAGE))
