"""A run's configuration is read whole or refused by name, and what version 0.1 wrote still opens."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hashing.base.errors import EngramError
from runtime.config import RunConfig
from runtime.run import Run
from runtime.tensor_file import load_tensors
from runtime.train.presets import preset
from runtime.trained_run import TrainedRun

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def content(trained_run: Run) -> dict[str, Any]:
    return dict(json.loads(trained_run.config_path.read_text()))


def load(tmp_path: Path, content: Any) -> RunConfig:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    return RunConfig.load(path)


def test_what_was_saved_is_loaded(tmp_path: Path, trained_run: Run) -> None:
    config = preset("nano", trained_run.vocab(), "bfloat16", steps=7, seed=3)
    config.save(tmp_path / "config.json")
    assert RunConfig.load(tmp_path / "config.json") == config
    assert (config.recipe.steps, config.recipe.seed, config.head_dim) == (7, 3, 8)


def test_a_configuration_of_version_0_1_opens() -> None:
    config = RunConfig.load(GOLDEN / "run_config_format_1.json")
    assert (config.preset, config.head_dim, config.precision) == ("tiny", 32, "float32")
    assert config.model.memory.layers == config.spec.layers == (0, 1)
    assert (config.model.hidden, config.model.ffn, config.model.memory.width) == (128, 384, 256)
    assert config.recipe.steps == 60


def test_a_run_of_version_0_1_loads(tmp_path: Path, trained_run: Run, content: dict[str, Any]) -> None:
    """Its configuration had no format, and its model's metadata a key for each fact."""
    run = Run(tmp_path / "run")
    shutil.copytree(trained_run.folder, run.folder)
    model, memory = content["model"], content["model"].pop("memory")
    for old, new in (("memory_layers", "layers"), ("memory_width", "width"), ("max_order", "dilation")):
        model[old] = memory[new]
    model |= {name: memory[name] for name in ("gate", "conv", "conv_zero_init")}
    del content["format"]
    run.config_path.write_text(json.dumps({**content, "head_dim": 8}))
    tensors, metadata = load_tensors(run.model_path)
    save_file(tensors, run.model_path, metadata)
    loaded, expected = (TrainedRun.load(one, torch.device("cpu")) for one in (run, trained_run))
    assert loaded.config == expected.config
    assert torch.equal(loaded.model.head.weight, expected.model.head.weight)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("recipe", "epochs"), 3, "recipe has unknown keys: epochs"),
        (("surprise",), 3, "unknown keys: surprise"),
        (("recipe", "steps"), "many", "recipe: steps is 'many', expected int"),
        (("recipe", "steps"), True, "steps is True, expected int"),
        (("precision",), "float8", "precision is 'float8', expected float32 or bfloat16"),
        (("model", "memory", "layers"), [1, "a"], "layers is 'a', expected int"),
        (("model", "memory", "dilation"), 2, "does not fit its hash spec: dilation 2, expected 3"),
        (("model", "memory", "width"), 63, "columns left over"),
        (("model",), 3, "model is 3, expected ModelConfig"),
        (("spec", "pad_id"), -1, "pad id -1 is outside"),
        (("recipe", "batch"), 0, r"config\.json: recipe\.batch is 0, expected at least 1"),
        (("recipe", "learning_rate"), float("nan"), r"recipe\.learning_rate is nan"),
        (("recipe", "steps"), None, "expected one of the two, found neither"),
        (("spec",), None, "there is memory, but there is no hash spec"),
        (("model", "memory"), None, "there is a hash spec, but the model has no memory"),
        (("format",), 9, "is of format 9; this version reads format 2"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    tmp_path: Path, content: dict[str, Any], path: tuple[str, ...], value: Any, message: str
) -> None:
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    with pytest.raises(EngramError, match=message) as refused:
        load(tmp_path, content)
    assert refused.value.exit_code == 1


@pytest.mark.parametrize("path", [("spec",), ("model", "hidden"), ("recipe", "batch"), ("model", "memory", "width")])
def test_a_missing_key_is_refused_by_name(tmp_path: Path, content: dict[str, Any], path: tuple[str, ...]) -> None:
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    with pytest.raises(EngramError, match=f"lacks {path[-1]}"):
        load(tmp_path, content)


@pytest.mark.parametrize("text", ["", "[", "[]", "3", '{"model": {}}', "[" * 10_000])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(EngramError, match=r"config\.json"):
        RunConfig.load(tmp_path / "config.json")


def test_a_model_that_does_not_fit_its_spec_cannot_be_made(trained_run: Run) -> None:
    config = preset("nano", trained_run.vocab(), "float32")
    memory = replace(config.model.memory, layers=(0,))
    with pytest.raises(EngramError, match=r"memory layers \(0,\), expected \(1,\)"):
        replace(config, model=replace(config.model, memory=memory))
