"""What no probe can look at is refused in a sentence, before anything is computed."""

from dataclasses import replace
from pathlib import Path
from shutil import copy

import pytest

from hashing.text.corpus import Corpus
from runtime.run import Run
from runtime.train.presets import preset
from runtime.train.trainer import Trainer
from tests.commands import document, engram, refused

PROBES = [("ablate",), ("lens",), ("cka",), ("gates",), ("swap", "a", "b")]
ON_TEXT = PROBES[:-1]


@pytest.fixture(scope="module")
def memoryless(tmp_path_factory: pytest.TempPathFactory, trained_run: Run, corpus_path: Path) -> Run:
    run = Run(tmp_path_factory.mktemp("memoryless") / "run")
    run.folder.mkdir()
    for path in (trained_run.tokenizer_path, trained_run.vocab_path):
        copy(path, run.folder)
    config = preset("nano", run.vocab(), "float32", steps=2)
    config = replace(config, spec=None, model=replace(config.model, memory=None))
    for _ in Trainer.start(run, config, Corpus((corpus_path,))).steps():
        pass
    return run


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe[0])
def test_a_run_without_memory(memoryless: Run, probe: tuple[str, ...]) -> None:
    refused(engram("probe", *probe, "--run", memoryless.folder), 1, "was trained without memory: it has no tables\nhint: ")


def test_but_it_can_be_compared_with(memoryless: Run, trained_run: Run) -> None:
    for run, other in ((trained_run, memoryless), (memoryless, trained_run)):
        found = document("probe", "cka", "--tokens", 512, "--run", run.folder, "--with", other.folder)
        assert len(found["cka"]) == 2


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe[0])
def test_a_run_that_was_not_trained(vocab_run: Run, tmp_path: Path, probe: tuple[str, ...]) -> None:
    refused(engram("probe", *probe, "--run", vocab_run.folder), 1, "has no config.json\nhint: first run: engram train")
    refused(
        engram("probe", *probe, "--run", tmp_path / "none"), 1, "has no tokenizer.json\nhint: first run: engram build-vocab"
    )


@pytest.mark.parametrize("probe", ON_TEXT, ids=lambda probe: probe[0])
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--corpus", "none.txt"], 1, "no such file or folder: none.txt|no such file: none.txt"),
        (["--corpus", "empty.txt"], 1, "empty"),
        (["--corpus", "binary.bin"], 1, "binary.bin is not"),
        (["--tokens", "0"], 2, "invalid value for '--tokens': found 0, expected at least 1"),
        (["--plot", "x.pdf"], 2, "x.pdf would be a picture in an unknown format"),
        (["--plot", "there.png"], 1, "there.png is already there"),
    ],
)
def test_text_and_pictures(
    trained_run: Run, tmp_path: Path, probe: tuple[str, ...], arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.bin").write_bytes(b"\x7fELF\0\0\xff")
    (tmp_path / "there.png").write_bytes(b"kept")
    done = engram("probe", *probe, *arguments, "--run", trained_run.folder, cwd=tmp_path)
    refused(done, code, message)
    assert done.stdout == ""
    assert (tmp_path / "there.png").read_bytes() == b"kept"
    assert not (tmp_path / "x.pdf").exists()
