"""A run without memory: no layers and no tables, and every command copes with that."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from hashing.base.errors import EngramError, UsageError
from hashing.named_specs import named_spec
from hashing.text.corpus import Corpus
from runtime.inspect.lens import ValueLens
from runtime.inspect.record import points, record
from runtime.inspect.text import view_text
from runtime.model.config import MemoryConfig, ModelConfig
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.sequence import Sequence
from runtime.serve.run_generator import RunGenerator
from runtime.serve.server import build_app
from runtime.tensor_file import load_tensors
from runtime.tokens import Tokens
from runtime.train.choice import chosen_settings
from runtime.train.trainer import Trainer
from runtime.trained_run import TrainedRun
from runtime.validation import validate
from tests.commands import document, engram, engram_process, refused
from tests.runs import build_vocab

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory, corpus_path: Path) -> Run:
    """A nano model after thirty steps, without memory."""
    run = Run(tmp_path_factory.mktemp("plain") / "run")
    corpus = Corpus((corpus_path,))
    build_vocab(run, corpus)
    settings = chosen_settings(preset="nano", no_memory=True, options={"recipe.steps": 30})
    for _ in Trainer.start(run, settings.resolve(run.vocab(), "float32"), corpus).steps():
        pass
    return run


def test_it_has_no_tables_and_its_model_says_so(plain_run: Run) -> None:
    assert not list(plain_run.folder.rglob("*.zarr"))
    tensors, metadata = load_tensors(plain_run.model_path)
    assert metadata == {"step": "30", "spec": "none", "vocab": plain_run.vocab().fingerprint}
    assert not [name for name in tensors if "memory" in name]


def test_it_learns(plain_run: Run) -> None:
    lines = [json.loads(line) for line in (plain_run.train_folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss_nats"] < lines[0]["loss_nats"] - 0.5


def test_its_backbone_starts_and_computes_as_one_whose_memory_is_left_out() -> None:
    """From the same weights, the model is that with a memory where its vectors are None."""
    memory = MemoryConfig((1,), width=6, dilation=3, conv_zero_init=False)
    sizes = {"vocab_size": 11, "hidden": 8, "blocks": 2, "heads": 2, "ffn": 12}
    remembering, plain = LanguageModel(ModelConfig(**sizes, memory=memory)), LanguageModel(ModelConfig(**sizes, memory=None))
    plain.load_state_dict({name: t for name, t in remembering.state_dict().items() if ".memory." not in name})
    ids = torch.arange(10).reshape(2, 5)
    expected = plain.logits(ids, None)
    torch.testing.assert_close(remembering.logits(ids, None), expected)
    torch.testing.assert_close(remembering.logits(ids, lambda _: None), expected)
    assert not torch.allclose(remembering.logits(ids, lambda _: torch.randn(2, 5, 6)), expected)


def test_one_layer_alone_can_be_left_out() -> None:
    memory = MemoryConfig((0, 1), width=6, dilation=3)
    model = LanguageModel(ModelConfig(vocab_size=11, hidden=8, blocks=2, heads=2, ffn=12, memory=memory))
    alone = LanguageModel(ModelConfig(11, 8, 2, 2, 12, MemoryConfig((1,), width=6, dilation=3)))
    alone.load_state_dict({name: t for name, t in model.state_dict().items() if "blocks.0.memory" not in name})
    ids, vectors = torch.arange(5)[None], torch.randn(1, 5, 6)
    left_out = model.logits(ids, lambda layer: vectors if layer == 1 else None)
    torch.testing.assert_close(left_out, alone.logits(ids, lambda _: vectors))


def test_it_loads_without_a_store(plain_run: Run) -> None:
    trained = TrainedRun.load(plain_run, CPU)
    assert trained.store is None
    assert [trained.lookup(name) for name in ("device", "host", "disk")] == [None] * 3
    with pytest.raises(UsageError, match="no placement"):
        trained.lookup("moon")  # type: ignore[arg-type]


def test_decoding_token_by_token_gives_the_logits_of_the_whole(plain_run: Run) -> None:
    trained = TrainedRun.load(plain_run, CPU)
    ids = Tokens.open(plain_run.train_folder / "tokens").ids("validation")[:20].astype(np.int64)
    sequence = Sequence(trained.model, None)
    pieces = torch.stack([sequence.feed([int(i)]) for i in ids])
    with torch.inference_mode():
        torch.testing.assert_close(pieces, trained.model.logits(torch.from_numpy(ids[None]), None)[0], rtol=1e-4, atol=1e-5)


def test_it_resumes_to_the_same_loss(plain_run: Run, tmp_path: Path, corpus_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(plain_run.folder, run.folder)
    whole = Trainer.resume(plain_run).validate().nats_per_token
    trainer = Trainer.start(run, run.config(), Corpus((corpus_path,)))
    for _ in trainer.steps(stop=lambda: trainer.state.step == 11):
        pass
    again = Trainer.resume(run)
    assert again.state.step == 11
    for _ in again.steps():
        pass
    assert again.validate().nats_per_token == whole
    trained, tokens = TrainedRun.load(run, CPU), Tokens.open(run.train_folder / "tokens")
    models = trained.model, again.state.model
    one, other = (validate(model, tokens, trained.config.recipe.length, "float32", None) for model in models)
    assert one == other


def test_another_vocabulary_is_refused(plain_run: Run, tmp_path: Path, corpus_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(plain_run.folder, run.folder)
    fingerprint = run.vocab().fingerprint
    build_vocab(run, Corpus((corpus_path,)), size=400)
    with pytest.raises(EngramError, match=f"uses vocabulary {fingerprint}"):
        TrainedRun.load(run, CPU)
    with pytest.raises(EngramError, match=f"uses vocabulary {fingerprint}"):
        Trainer.resume(run)


def test_a_model_with_memory_in_a_run_without_is_refused(plain_run: Run, trained_run: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(plain_run.folder, run.folder)
    run.vocab_path.write_bytes(trained_run.vocab_path.read_bytes())
    run.model_path.unlink()
    shutil.copy(trained_run.model_path, run.model_path)
    with pytest.raises(EngramError, match=r"is of spec .*, but .*config\.json of a run without memory"):
        TrainedRun.load(run, CPU)


@pytest.mark.parametrize("options", [[], ["--offload"], ["--placement", "host"]])
def test_generate_says_that_there_is_no_memory(plain_run: Run, options: list[str]) -> None:
    call = ("generate", "def ", "--max-tokens", "5", "--run", plain_run.folder, *options)
    done = engram(*call)
    assert done.returncode == 0
    assert "after the first, trained without memory\n" in done.stderr
    assert document(*call)["placement"] is None


def test_serve_answers_and_says_that_nothing_is_placed(plain_run: Run) -> None:
    with engram_process("serve", "--offload", "--port", "0", "--run", plain_run.folder) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        server.terminate()
    assert re.search(r"which has no memory and no tables to place, with .* for 65,536 tokens of texts at http://", line)
    request: dict[str, Any] = {"model": "plain", "prompt": "def ", "max_tokens": 4, "temperature": 0}
    with TestClient(build_app(RunGenerator.load(plain_run, "disk"), "plain")) as client:
        answer = client.post("/v1/completions", json=request).json()["choices"][0]["text"]
        beyond = client.post("/v1/completions", json={**request, "prompt": [99_999]})
    assert answer == document("generate", "def ", "--max-tokens", "4", "--run", plain_run.folder)["text"]
    assert beyond.status_code == 400
    assert "outside the vocabulary of 512 tokens" in beyond.json()["error"]["message"]


def test_hash_and_stats_use_the_default_spec(plain_run: Run, corpus_path: Path, tmp_path: Path) -> None:
    spec = named_spec("tiny").spec(plain_run.vocab())
    assert plain_run.spec() == spec
    assert set(document("hash", "def", "--run", plain_run.folder)["rows"]) == set(map(str, spec.layers))
    run = tmp_path / "run"
    shutil.copytree(plain_run.folder, run)
    assert document("stats", corpus_path, "--run", run)
    assert document("stats", "traffic", corpus_path, "--run", run)


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "ngram", "def"],
        ["table", "info"],
        ["table", "verify"],
        ["table", "convert", "--encoding", "int8", "--out", "x.zarr"],
        ["table", "export", "--out", "x"],
    ],
)
def test_commands_about_tables_say_that_there_are_none(plain_run: Run, tmp_path: Path, command: list[str]) -> None:
    done = engram(*command, "--run", plain_run.folder, cwd=tmp_path)
    refused(done, 1, "was trained without memory: it has no tables\nhint: train one with memory: engram train --run")


def test_there_is_nothing_of_a_memory_to_look_into(plain_run: Run) -> None:
    refused(
        engram("inspect", "text", "import os", "--run", plain_run.folder), 1, "was trained without memory: it has no tables"
    )
    trained = TrainedRun.load(plain_run, CPU)
    for look in (lambda: view_text(trained, "import os"), lambda: ValueLens(trained)):
        with pytest.raises(UsageError, match="this run was trained without memory"):
            look()


def test_its_values_have_names_all_the_same(plain_run: Run) -> None:
    trained = TrainedRun.load(plain_run, CPU)
    assert [name for name in points(trained) if "memory" in name] == []
    ids = torch.tensor([trained.tokenizer.encode("import os").ids])
    with torch.no_grad():
        assert torch.equal(record(trained, "import os", ["logits"])["logits"], trained.model.logits(ids, None))


def test_there_are_no_tables_to_place(plain_run: Run) -> None:
    refused(engram("bench", "offload", "--run", plain_run.folder), 1, "was trained without memory: it has no tables")
