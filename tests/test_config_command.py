"""`engram config` prints a configuration that `--config` reads back to the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from engram_cli.configuring import chosen_config
from runtime.run import Run
from runtime.train.presets import PRESETS, TINY
from tests.commands import document, engram, refused
from tests.modules import loaded_by


def printed(path: Path, *arguments: object) -> Path:
    """A file with what the command prints."""
    done = engram("config", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_a_printed_preset_is_the_preset(tmp_path: Path, vocab_run: Run, name: str) -> None:
    vocab = vocab_run.vocab()
    path = printed(tmp_path / "my.toml", name)
    assert chosen_config(vocab, config=path) == chosen_config(vocab, preset=name)


def test_the_default_preset_is_printed_where_none_is_named() -> None:
    assert engram("config").stdout == engram("config", "tiny").stdout


def test_changes_are_printed(tmp_path: Path, vocab_run: Run) -> None:
    path = printed(tmp_path / "my.toml", "nano", "--set", "model.blocks=4", "--set", "memory.orders=2,3,4")
    again = printed(tmp_path / "again.toml", "--config", path, "--set", "recipe.minutes=2")
    config = chosen_config(vocab_run.vocab(), config=again)
    assert (config.preset, config.model.blocks, config.recipe.steps, config.recipe.minutes) == ("nano", 4, None, 2)
    assert config.spec is not None
    assert config.spec.max_order == 4
    assert document("config", "--config", again)["memory"]["orders"] == [2, 3, 4]


def test_a_run_is_printed_as_settings_that_give_it_again(tmp_path: Path, trained_run: Run) -> None:
    path = printed(tmp_path / "my.toml", "--run", trained_run.folder)
    assert chosen_config(trained_run.vocab(), config=path) == trained_run.config()
    other = printed(tmp_path / "other.toml", "--run", trained_run.folder, "--set", "recipe.seed=8")
    expected = replace(trained_run.config(), recipe=replace(trained_run.config().recipe, seed=8))
    assert chosen_config(trained_run.vocab(), config=other) == expected


def test_a_run_without_memory_is_printed_so(tmp_path: Path, vocab_run: Run) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.vocab_path.write_bytes(vocab_run.vocab_path.read_bytes())
    config = chosen_config(run.vocab(), preset="nano", no_memory=True)
    config.save(run.config_path)
    path = printed(tmp_path / "my.toml", "--run", run.folder)
    assert chosen_config(run.vocab(), config=path) == config
    assert document("config", "--run", run.folder)["memory"] is None
    refused(engram("config", "--run", run.folder, "--set", "memory.bias=true"), 2, "there is no memory to begin from\nhint: ")


def test_a_spec_that_no_settings_express_is_refused_with_the_way_out(tmp_path: Path, vocab_run: Run) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    for name in ("vocab.parquet", "tokenizer.json"):
        (run.folder / name).write_bytes((vocab_run.folder / name).read_bytes())
    config = chosen_config(run.vocab(), preset="nano")
    assert config.spec is not None
    stored = replace(config, spec=replace(config.spec, seed=None, seeding=None))
    stored.save(run.config_path)
    refused(engram("config", "--run", run.folder), 1, "no settings express .*\nhint: .*--save-spec FILE .* --spec FILE")
    spec = tmp_path / "spec.json"
    assert engram("hash", "x", "--run", run.folder, "--save-spec", spec).returncode == 0
    assert chosen_config(run.vocab(), preset="nano", spec=str(spec)) == stored


def test_json_is_the_same_in_another_form() -> None:
    found = document("config")
    assert (found["preset"], found["precision"], found["recipe"]["minutes"]) == ("tiny", None, None)
    assert TINY.memory is not None
    assert found["memory"]["layers"] == list(TINY.memory.layers)
    assert found["model"]["hidden"] == TINY.model.hidden


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["huge"], 2, 'no training preset is called "huge"\nhint: the names are'),
        (["--set", "model.block=3"], 2, "no setting 'model.block'\nhint: did you mean model.blocks"),
        (["--set", "memory.layers=5"], 2, "memory.layers are 5, but the model's blocks are 0 to 1\nhint: "),
        (["--config", "none.toml"], 1, "no such file: none.toml"),
        (["nano", "--run", "."], 2, "--run is given with a preset or a file"),
        (["--config", "x.toml", "--run", "."], 2, "--run is given with a preset or a file"),
    ],
)
def test_a_wrong_call(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    refused(engram("config", *arguments, cwd=tmp_path), code, message)


def test_printing_loads_no_model() -> None:
    script = "from engram_cli.main import run\nrun(['config', 'nano'])"
    assert loaded_by(script) & {"torch", "numba", "zarr"} == set()
