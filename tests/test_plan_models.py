"""What `engram plan` says of whole models: the paper's own counts, and those of real models, tables and checkpoints."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engram_cli.output import byte_text
from hashing.spec import HashSpec
from hashing.text.corpus import Corpus
from runtime.config import RowRule
from runtime.model.language_model import LanguageModel
from runtime.plan.configured import shape_of_config, shape_of_settings
from runtime.plan.model_plan import ModelPlan
from runtime.run import Run
from runtime.settings import MemorySettings, Settings
from runtime.train.choice import chosen_settings
from runtime.train.presets import NANO
from runtime.train.row_table import RowTable
from runtime.train.trainer import Trainer
from tests.commands import document, engram, refused
from tests.modules import loaded_by
from tests.vocabularies import raw_vocab

VOCAB = raw_vocab(50)
DESIGN_KEYS = (
    "total_parameters",
    "active_parameters",
    "table_parameters",
    "expert_parameters",
    "rho_percent",
    "table_bytes",
    "row_reads_per_token",
)
BILLION = 10**9


@st.composite
def memories(draw: st.DrawFn, blocks: int) -> MemorySettings:
    assert NANO.memory is not None
    return replace(
        NANO.memory,
        layers=tuple(sorted(draw(st.sets(st.integers(0, blocks - 1), min_size=1)))),
        orders=draw(st.sampled_from([(2,), (2, 3), (2, 3, 4)])),
        heads=draw(st.integers(1, 3)),
        rows_per_head=draw(st.integers(2, 40)),
        head_dim=draw(st.integers(1, 5)),
        conv=draw(st.booleans()),
        conv_zero_init=False,
        kernel=draw(st.integers(1, 4)),
        bias=draw(st.booleans()),
        rows_multiple=draw(st.sampled_from([1, 16])),
    )


@st.composite
def chosen(draw: st.DrawFn) -> Settings:
    """Settings of a model that is made in no time, in all its forms."""
    heads, blocks, experts = draw(st.sampled_from([2, 4])), draw(st.integers(1, 3)), draw(st.sampled_from([0, 1, 3, 5]))
    model = replace(
        NANO.model,
        hidden=2 * heads * draw(st.integers(1, 3)),
        blocks=blocks,
        heads=heads,
        kv_heads=draw(st.sampled_from([None, 1, 2])),
        qk_norm=draw(st.booleans()),
        ffn=draw(st.integers(1, 9)),
        tied=draw(st.booleans()),
        streams=draw(st.integers(1, 3)),
        stream_form=draw(st.sampled_from(["v4", "single_pass"])),
        experts=experts,
        experts_per_token=draw(st.integers(1, max(1, experts))),
        shared_experts=draw(st.integers(0, 2)),
        expert_ffn=draw(st.integers(1, 7)),
        dense_blocks=draw(st.integers(0, blocks + 1)),
    )
    memory = draw(st.none() | memories(blocks))
    return replace(NANO, model=model, memory=memory, precision="float32")


def built(chosen: Settings) -> tuple[LanguageModel, dict[int, RowTable], HashSpec | None]:
    """The model and the tables themselves."""
    config = chosen.resolve(VOCAB, "float32")
    layers = {layer: config.spec.rows(layer) for layer in config.layers} if config.spec else {}
    tables = {layer: RowTable.create(rows, config.head_dim, 1.0, layer, torch.device("cpu")) for layer, rows in layers.items()}
    return LanguageModel(config.model), tables, config.spec


def numbers(module: nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in module.parameters()) if module is not None else 0


def read(name: str, parameter: nn.Parameter) -> int:
    """Of a parameter's numbers those that a token read: all that a gradient went through, but of experts those chosen."""
    if parameter.grad is None:
        return 0
    if ".experts." in name:
        return sum(one.numel() for one in parameter.grad if one.any())
    return parameter.numel()


@settings(max_examples=30, deadline=None)
@given(chosen())
def test_counts_are_those_of_the_model_itself(chosen: Settings) -> None:
    model, tables, spec = built(chosen)
    plan = ModelPlan.of(shape_of_settings(chosen, len(VOCAB.tokens), "mine"), 1.0)
    own = dict(model.named_parameters())
    in_tables = sum(table.weight.numel() for table in tables.values())
    assert plan.parameters.total == numbers(model) + in_tables
    assert plan.parameters.tables == in_tables
    assert plan.parameters.memory == sum(numbers(block.memory) for block in model.blocks)
    assert plan.parameters.experts == sum(p.numel() for name, p in own.items() if ".experts." in name)
    assert plan.table_bytes == sum(table.weight.nbytes for table in tables.values())
    assert plan.shape == shape_of_config(chosen.resolve(VOCAB, "float32"), "mine")
    assert plan.shape.memory.rows_per_token == (len(tables) * spec.columns if spec else 0)


@settings(max_examples=20, deadline=None)
@given(chosen())
def test_active_is_what_a_token_reads(chosen: Settings) -> None:
    model, tables, spec = built(chosen)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    rows = {layer: np.array([[spec.offsets(layer)]]) for layer in spec.layers} if spec else {}
    leaves = {layer: tables[layer].read(columns) for layer, columns in rows.items()}
    model(torch.tensor([[7]]), lambda layer: leaves[layer].batch_vectors()).sum().backward()
    inside = [(n, p) for n, p in model.named_parameters() if not n.startswith(("embedding", "head"))]
    seen = sum(read(name, parameter) for name, parameter in inside) + sum(leaf.vectors.numel() for leaf in leaves.values())
    plan = ModelPlan.of(shape_of_settings(chosen, len(VOCAB.tokens), "mine"), 1.0)
    assert plan.parameters.active == seen


@settings(max_examples=20, deadline=None)
@given(chosen(), st.integers(2, 6))
def test_flops_are_those_that_torch_counts(chosen: Settings, length: int) -> None:
    model, _, _ = built(chosen)
    memory = model.config.memory
    e = torch.randn(1, length, memory.width if memory else 0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model.logits(torch.arange(length)[None], lambda _: e)
    plan = ModelPlan.of(shape_of_settings(chosen, len(VOCAB.tokens), "mine"), 1.0, context=length)
    assert plan.flops.total is not None
    assert plan.flops.total * length == counter.get_total_flops()


def in_billions(count: int | None) -> str:
    return "none" if count is None else f"{count / BILLION:.3f}"


@pytest.mark.parametrize(
    ("name", "total", "active", "tables", "projections"),
    [
        ("moe-27b", "26.717", "3.808", "0.000", "0.000"),
        ("engram-27b", "26.725", "3.839", "5.792", "0.033"),
        ("engram-40b", "39.467", "3.839", "18.534", "0.033"),
        ("dense-4b", "4.133", "3.802", "0.000", "0.000"),
        ("deepseek-v4.1", "none", "none", "196.614", "0.315"),
    ],
)
def test_published_models_have_their_counts(name: str, total: str, active: str, tables: str, projections: str) -> None:
    """The paper gives 26.7, 26.7, 39.5 and 4.1 billion, of which 3.8 are active, and tables of 5.7 and 18.5."""
    found = document("plan", "--preset", name)
    keys = ("total_parameters", "active_parameters", "table_parameters", "memory_parameters")
    assert [in_billions(found[key]) for key in keys] == [total, active, tables, projections]


def test_the_paper_s_share_of_experts() -> None:
    shares = {name: document("plan", "--preset", name)["rho_percent"] for name in ("engram-27b", "moe-27b", "dense-4b")}
    assert round(shares["engram-27b"], 1) == 74.3
    assert (shares["moe-27b"], shares["dense-4b"]) == (100, None)


def test_of_v4_1_nothing_is_invented() -> None:
    found = document("plan", "--preset", "deepseek-v4.1", "--tokens-per-sec", 1000)
    assert (found["table_parameters"], found["table_bytes"]) == (768_022_850 * 256, 768_022_850 * 264)
    assert round(found["table_bytes"] / 2**30, 2) == 188.83
    assert (found["row_reads_per_token"], found["memory_parameters"]) == (48, 2 * (25_600 * 6144 + 2 * 4 * 5120))
    unknown = {key for key, value in found.items() if value is None}
    assert {"total_parameters", "active_parameters", "expert_parameters", "rho_percent", "flops_per_token"} <= unknown
    assert found["bandwidth"]["decoding"] == {
        "device": {"read_bytes_per_sec": 48 * 256 * 4 * 1000, "written_bytes_per_sec": 0},
        "host": {"read_bytes_per_sec": 48 * 256 * 4 * 1000, "written_bytes_per_sec": 0},
        "disk": {"read_bytes_per_sec": 48 * 4096 * 1000, "written_bytes_per_sec": 0},
    }
    assert engram("plan", "--preset", "deepseek-v4.1").stdout.count("–") > 5


def test_a_run_s_bytes_are_those_on_the_drive(tmp_path: Path, vocab_run: Run, corpus_path: Path) -> None:
    run = Run(shutil.copytree(vocab_run.folder, tmp_path / "run"))
    adams = ["recipe.optimizer=adamw", "recipe.row_rule=adam", "recipe.row_momentum=none"]
    config = chosen_settings(preset="nano", sets=adams, options={"recipe.steps": 30}).resolve(run.vocab(), "float32")
    for _ in Trainer.start(run, config, Corpus((corpus_path,))).steps():
        pass
    found = document("plan", "--run", run.folder)
    assert set(DESIGN_KEYS) <= set(found)
    folder = max(run.train_folder.glob("step-*"))
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert 0.99 < there / found["checkpoint_bytes"]["adam"] < 1.05
    assert 1 < run.model_path.stat().st_size / found["model_bytes"] < 1.05


@pytest.mark.parametrize("rule", get_args(RowRule))
@pytest.mark.parametrize("head_dim", [1, 7, 256])
def test_training_moves_what_a_rule_keeps(head_dim: int, rule: RowRule) -> None:
    assert NANO.memory is not None
    mine = replace(NANO, memory=replace(NANO.memory, head_dim=head_dim, rows_per_head=3))
    plan = ModelPlan.of(shape_of_settings(mine, 50, "mine"), 10.0)
    table = RowTable.create(plan.shape.memory.total_rows, head_dim, 1.0, 0, torch.device("cpu"), rule)
    kept = sum(tensor.nbytes for tensor in table.rule.state().values())
    assert plan.row_moment_bytes[rule] == kept
    a_row = (kept + table.weight.nbytes) / plan.shape.memory.total_rows
    rows_per_sec = plan.shape.memory.rows_per_token * 10
    flows = plan.training[rule]
    assert flows["device"].read_bytes_per_sec == flows["device"].written_bytes_per_sec == rows_per_sec * a_row
    assert flows["host"].read_bytes_per_sec == rows_per_sec * 4 * head_dim
    assert flows["disk"].read_bytes_per_sec >= flows["device"].read_bytes_per_sec


@pytest.mark.parametrize("name", ["engram-27b", "tiny"])
def test_a_person_is_shown_the_figures(name: str) -> None:
    told, printed = document("plan", "--preset", name), engram("plan", "--preset", name).stdout
    counts = ("total_parameters", "active_parameters", "flops_per_token", "table_bytes", "row_reads_per_token")
    assert all(f"{told[key]:,}" in printed for key in counts)
    assert f"{told['rho_percent']:.1f} %" in printed
    sizes = [*told["checkpoint_bytes"].values(), *told["moment_bytes"]["rows"].values()]
    assert all(byte_text(size, 2) in printed for size in sizes)


def test_settings_change_the_plan(tmp_path: Path) -> None:
    (tmp_path / "wide.toml").write_text("[model]\nexperts = 8\n")
    by_file = document("plan", "--config", tmp_path / "wide.toml", "--vocab-size", 3000)
    by_option = document("plan", "--set", "model.experts=8", "--vocab-size", 3000)
    assert by_file | {"name": ""} == by_option | {"name": ""}
    assert by_file["expert_parameters"] == 8 * 3 * 128 * 128
    assert by_file["vocabulary_parameters"] == 2 * 3000 * 128
    half = document("plan", "--set", "model.experts=8", "--encoding", "bfloat16", "--context", 9)
    assert (half["table_bytes"], half["context"]) == (by_file["table_bytes"] // 2, 9)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--preset engram-27", 2, 'no preset is called "engram-27"\nhint: did you mean engram-27b?'),
        ("--preset huge", 2, 'no preset is called "huge"\nhint: the names are nano, .*, deepseek-v4.1'),
        ("--run nothing", 1, "the run nothing has no config.json\nhint: first run: engram train --run nothing"),
        ("--config nothing.toml", 1, "no such file: nothing.toml"),
        ("--preset tiny --run nothing", 2, "--preset is given, but --run nothing names a model as it was trained\nhint: leave"),
        ("--preset tiny --spec engram-27b", 2, "--spec is given, but a model is named too\nhint: leave one of the two out"),
        ("--preset tiny --head-dim 4", 2, "--head-dim is given, but a model is named too\nhint: leave one of the two out"),
        ("--preset moe-27b --set model.blocks=3", 2, "--set is given, but --preset moe-27b names a model as it is published"),
        ("--vocab-size 99", 2, "--vocab-size is given, but no model is named\nhint: name one: --preset, --run or --config"),
        ("--preset tiny --set memory.layers=7", 2, "memory.layers are 7, but the model's blocks are 0 to 1\nhint: set"),
        ("--preset tiny --encoding float12", 2, 'no encoding is called "float12"\nhint: the names are'),
        ("--preset tiny --tokens-per-sec nan", 2, "found nan, expected at most"),
    ],
)
def test_a_wrong_call(tmp_path: Path, arguments: str, code: int, message: str) -> None:
    refused(engram("plan", *arguments.split(), cwd=tmp_path), code, message)


@pytest.mark.parametrize("name", ["engram-27b", "deepseek-v4.1"])
def test_a_published_model_is_planned_and_not_trained(vocab_run: Run, name: str) -> None:
    done = engram("train", "--preset", name, "--run", vocab_run.folder)
    refused(done, 2, f'"{name}" is a preset to plan, not to train\nhint: engram plan --preset {name}\n$')
    assert not vocab_run.config_path.exists()
    refused(engram("config", name), 2, "is a preset to plan, not to train")


def test_planning_loads_no_model(trained_run: Run) -> None:
    for source in (["--preset", "engram-27b"], ["--run", str(trained_run.folder)]):
        script = f"from engram_cli.main import run\nrun(['plan', *{source}])"
        assert loaded_by(script) & {"torch", "numba", "zarr"} == set()
