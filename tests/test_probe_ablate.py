"""Each ablation is what its name says, by a forward pass of the test's own; and parts add up to the whole."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.ablation import Held, Variant, gate_held, named_ablation, without_convolution
from runtime.evaluation import evaluate
from runtime.inspect.probes.ablations import ablated_variants
from runtime.inspect.probes.bootstrap import mean_interval
from runtime.inspect.probes.probed_text import probed_text
from runtime.model.language_model import LanguageModel
from runtime.model.points import watching
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun
from runtime.validation import validate
from tests.commands import document, engram, refused

IDS = np.arange(30, 60)[None]


@pytest.fixture(scope="module")
def trained(trained_run: Run) -> TrainedRun:
    return TrainedRun.load(trained_run, torch.device("cpu"))


@torch.no_grad()
def logits(trained: TrainedRun, variant: Variant, model: LanguageModel | None = None) -> Tensor:
    lookup = trained.lookup("device")
    assert lookup is not None
    vectors, ids, used = lookup.vectors(IDS), torch.from_numpy(IDS), model or trained.model
    if isinstance(variant, Held):
        with watching(used, variant.watch):
            return used.logits(ids, vectors)
    return used.logits(ids, variant(vectors))


def intact(trained: TrainedRun, model: LanguageModel | None = None) -> Tensor:
    return logits(trained, lambda vectors: vectors, model)


@torch.no_grad()
def test_no_convolution_is_its_weights_at_zero(trained: TrainedRun) -> None:
    zeroed = deepcopy(trained.model)
    for block in zeroed.blocks:
        if block.memory is not None:
            block.memory.conv.zero_()
    found = logits(trained, without_convolution())
    torch.testing.assert_close(found, intact(trained, zeroed))
    assert not torch.equal(found, intact(trained))


@pytest.mark.parametrize(("value", "score"), [(0.5, 0.0), (1.0, 1e12), (0.0, -1e12)])
def test_a_gate_that_is_held_is_a_score_that_gives_it(trained: TrainedRun, value: float, score: float) -> None:
    scored = Held(lambda name, found: torch.full_like(found, score) if name.endswith("score") else None)
    found = logits(trained, gate_held(value))
    torch.testing.assert_close(found, logits(trained, scored))
    assert not torch.equal(found, intact(trained))


@torch.no_grad()
def test_at_gate_1_the_memory_adds_its_value(trained: TrainedRun) -> None:
    """And the convolution of it, which is zero here."""
    model, seen = deepcopy(trained.model), {}
    memory = model.blocks[1].memory
    assert memory is not None
    memory.conv.zero_()
    keep = Held(lambda name, value: seen.update({name: value}))
    with watching(model, lambda name, value: keep.watch(name, value) or gate_held(1.0).watch(name, value)):
        intact_vectors = trained.lookup("device").vectors(IDS)  # type: ignore[union-attr]
        model.logits(torch.from_numpy(IDS), intact_vectors)
    e = intact_vectors(1)
    value = e @ memory.projection.weight[memory.hidden :].T
    torch.testing.assert_close(seen["blocks.1.memory.out"][:, :, 0], value)


def test_a_head_left_out_is_its_columns_at_zero(trained: TrainedRun) -> None:
    assert trained.store is not None
    spec, lookup = trained.store.spec, trained.lookup("device")
    assert lookup is not None
    own = lookup.vectors(IDS)
    for order, head in ((2, 1), (3, 0), (3, spec.heads - 1)):
        left_out = named_ablation(f"head:{order}.{head}", spec)(own)
        assert left_out is not None
        found, expected = left_out(1), own(1)
        assert found is not None
        assert expected is not None
        dim = trained.config.head_dim
        first = ((order - 2) * spec.heads + head) * dim
        columns = torch.zeros(expected.shape[-1], dtype=torch.bool)
        columns[first : first + dim] = True
        assert not found[..., columns].any()
        assert torch.equal(found[..., ~columns], expected[..., ~columns])
        assert expected[..., columns].any()


def test_there_is_one_of_each(trained: TrainedRun) -> None:
    assert trained.store is not None
    heads = [f"head:{order}.{head}" for order in (2, 3) for head in range(trained.store.spec.heads)]
    names = ["suppressed", "mean-row", "layer:1", "order:2", "order:3", *heads, "gate:0.5", "gate:1", "conv"]
    assert list(ablated_variants(trained))[1:] == names
    assert list(ablated_variants(trained, ["conv", "order"]))[1:] == ["order:2", "order:3", "conv"]


def test_the_command_gives_what_evaluation_measures(trained_run: Run, trained: TrainedRun) -> None:
    found = document("probe", "ablate", "--tokens", 1024, "--run", trained_run.folder)
    assert {"tokens", "nats", "ablations", "splits", "documents", "bootstrap"} == set(found)
    windows = probed_text(trained_run, trained, [], 1024)
    variants = ablated_variants(trained)
    expected = evaluate(trained.model, "float32", trained.lookup("device"), windows, variants, list(variants))
    assert found["tokens"] == expected.tokens == 1024
    own = validate(trained.model, Tokens.open(trained_run.train_folder / "tokens"), 64, "float32", trained.lookup("disk"), 1024)
    assert found["nats"] == pytest.approx(own.nats_per_token, rel=1e-6)
    assert [one["name"] for one in found["ablations"]] == list(variants)[1:]
    documents = np.concatenate([block.documents.ravel() for block in windows])
    first, *others = expected.token_nats.values()
    for one, nats in zip(found["ablations"], others, strict=True):
        difference = nats.astype(np.float64) - first
        assert set(one) == {"name", "nats", "difference_nats", "ci95"}
        assert one["nats"] == pytest.approx(nats.mean(), abs=1e-5)
        assert one["difference_nats"] == pytest.approx(difference.mean(), abs=1e-6)
        assert one["ci95"] == pytest.approx(mean_interval(documents, difference), abs=1e-6)
        assert one["ci95"][0] < one["difference_nats"] < one["ci95"][1]


def test_parts_add_up_to_the_whole(trained_run: Run) -> None:
    found = document("probe", "ablate", "--tokens", 2048, "--only", "suppressed", "--only", "gate", "--run", trained_run.folder)
    assert list(found["splits"]) == ["class", "position"], "nothing was counted"
    for split in found["splits"].values():
        parts = split["parts"]
        assert sum(part["tokens"] for part in parts) == found["tokens"]
        nats = sum(part["tokens"] * part["nats"] for part in parts) / found["tokens"]
        assert nats == pytest.approx(found["nats"], rel=1e-6)
        for number, one in enumerate(found["ablations"]):
            of_parts = [part["ablations"][number] for part in parts]
            assert {each["name"] for each in of_parts} == {one["name"]}
            weighted = sum(part["tokens"] * part["ablations"][number]["difference_nats"] for part in parts)
            assert weighted / found["tokens"] == pytest.approx(one["difference_nats"], abs=1e-6)


def test_files_of_the_users_own_are_judged(trained_run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("def parse(self, name):\n    return self.name\n")
    (tmp_path / "b.txt").write_text("import os\nprint(os.name)\n" * 50)
    call = ("probe", "ablate", "--only", "suppressed", "--run", trained_run.folder)
    alone = document(*call, "--corpus", tmp_path / "a.txt")
    by_eval = document("eval", tmp_path / "a.txt", "--run", trained_run.folder)
    assert (alone["tokens"], alone["documents"]) == (by_eval["tokens"], 1)
    assert alone["nats"] == pytest.approx(by_eval["nats_per_token"], rel=1e-6)
    assert alone["ablations"][0]["nats"] == pytest.approx(by_eval["suppressed_nats"], rel=1e-6)
    assert alone["ablations"][0]["ci95"] is None, "one document"
    both = document(*call, "--corpus", tmp_path, "--tokens", 64)
    assert both["tokens"] == 64


def test_what_a_person_reads(trained_run: Run) -> None:
    done = engram("probe", "ablate", "--tokens", 1024, "--run", trained_run.folder)
    assert done.returncode == 0, done.stderr
    for shown in ("Loss on 1,024 tokens of", "head:3.0", "by token that is predicted", "inside a word", "fourth and later"):
        assert shown in done.stdout
    assert "no ngrams.parquet, so nothing is split by frequency; first run: engram stats --run" in done.stderr


def test_names_that_there_are_not(trained_run: Run) -> None:
    for name in ("layer:0", "head:2.9", "gate:2", "x"):
        done = engram("probe", "ablate", "--only", name, "--run", trained_run.folder)
        refused(done, 2, f"there is no ablation '{name}'\nhint: this model has suppressed, mean-row, layer:1, order:2")
        assert done.stdout == ""
