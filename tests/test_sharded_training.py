"""A training in several processes is the one of a process that computes their parts of each batch one after the other."""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engram_cli.bench.several import in_group
from engram_cli.processes import free_port
from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus
from runtime.config import RunConfig
from runtime.run import Run
from runtime.tensor_file import load_tensors
from runtime.train.choice import chosen_settings
from runtime.train.peers import Peers
from runtime.train.trainer import Trainer
from table.store.store import TableStore
from tests.commands import engram, engram_process, refused
from tests.runs import build_vocab, content

STEPS = 6
SAVED = ("dense", "experts")
FORMS = {
    "dense": [],
    "experts": ["model.experts=4", "model.expert_ffn=16", "recipe.row_rule=sinkhorn", "recipe.balance_rate=0.01"],
    "streams": ["model.streams=2", "recipe.optimizer=muon", "recipe.row_rule=rowwise_adam", "recipe.row_momentum=0"],
}
FIXED = ("recipe.evaluations=2", "recipe.batch=12", "recipe.length=16", "recipe.kept=3")


def configured(run: Run, form: str, accumulate: int) -> RunConfig:
    sets = [*FORMS[form], *FIXED, "recipe.checkpoint_steps=2", f"recipe.accumulate={accumulate}"]
    options = {"recipe.steps": STEPS, "recipe.sample_tokens": 4}
    return chosen_settings(preset="nano", sets=sets, options=options).resolve(run.vocab(), "float32")


def run_of(folder: Path, corpus_path: Path, form: str) -> Run:
    run = Run(folder / form)
    build_vocab(run, Corpus((corpus_path,)))
    return run


def all_losses(peers: Peers, folder: Path, corpus_path: Path, accumulate: int) -> dict[str, list[float]]:
    """Trains every form's run in the folder to its end."""
    found = {}
    for form in FORMS:
        run = Run(folder / form)
        trainer = Trainer.start(run, configured(run, form, accumulate), Corpus((corpus_path,)), peers=peers)
        found[form] = [report.loss for report in trainer.steps()]
    return found


def rows_of(run: Run) -> dict[str, Any]:
    """The tables, as any reader of stores opens them."""
    store = TableStore.open(run.folder / "tables.zarr")
    return {str(layer): torch.from_numpy(store.layer(layer).copy()) for layer in store.spec.layers}


@pytest.mark.parametrize("count", [2, 3])
def test_the_losses_and_tables_are_those_of_one_process(tmp_path: Path, corpus_path: Path, count: int) -> None:
    for name in ("one", "many"):
        for form in FORMS:
            run_of(tmp_path / name, corpus_path, form)
    expected = all_losses(Peers(), tmp_path / "one", corpus_path, accumulate=count)
    found = in_group(count, all_losses, tmp_path / "many", corpus_path, 1)
    assert all(other == found[0] for other in found)
    for form in FORMS:
        one, many = (Run(tmp_path / name / form) for name in ("one", "many"))
        tensors = [rows_of(run) | load_tensors(run.model_path)[0] for run in (one, many)]
        assert found[0][form] == expected[form]
        assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
        lines = [json.loads(line) for line in (many.train_folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["loss_nats"] for line in lines] == found[0][form]


def own_state(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All that this process goes on from."""
    state = trainer.state
    rows = {f"{layer}/{name}": array for layer, table in state.tables.items() for name, array in table.state().items()}
    named = state.model.named_parameters()
    moments = {f"{name}/{key}": value for name, parameter in named for key, value in state.optimizer.state[parameter].items()}
    return {name: tensor.clone() for name, tensor in (rows | moments | state.model.state_dict()).items()}


def stopped(peers: Peers, folder: Path, corpus_path: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = {}
    for form in SAVED:
        run = Run(folder / form)
        trainer = Trainer.start(run, configured(run, form, 1), Corpus((corpus_path,)), peers=peers)
        for _ in trainer.steps(lambda: trainer.state.step == 5):  # noqa: B023 - it is called within the loop
            pass
        found[form] = own_state(trainer)
    return found


def gone_on(peers: Peers, folder: Path) -> dict[str, tuple[dict[str, torch.Tensor], float]]:
    found = {}
    for form in SAVED:
        trainer = Trainer.resume(Run(folder / form), peers)
        before = own_state(trainer)
        (report,) = trainer.steps()
        found[form] = before, report.loss
    return found


def joined(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The state of all processes: rows one after another, and of the rest any one's."""
    first = states[0]
    return {name: torch.cat([one[name] for one in states]) if name[0].isdigit() else first[name] for name in first}


def test_a_checkpoint_of_three_processes_is_gone_on_with_by_any_number(tmp_path: Path, corpus_path: Path) -> None:
    runs = {form: run_of(tmp_path / "saved", corpus_path, form) for form in SAVED}
    saved = in_group(3, stopped, tmp_path / "saved", corpus_path)
    losses: dict[str, list[float]] = {form: [] for form in SAVED}
    for count in (1, 2, 4):
        folder = shutil.copytree(tmp_path / "saved", tmp_path / str(count))
        found = in_group(count, gone_on, folder) if count > 1 else [gone_on(Peers(), folder)]
        for form in SAVED:
            expected, state = (joined(states) for states in ([one[form] for one in saved], [one[form][0] for one in found]))
            assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
            losses[form].append(found[0][form][1])
            assert TableStore.open(folder / form / "tables.zarr").step == STEPS
    for form, run in runs.items():
        names = [path.name for path in run.train_folder.rglob("*.safetensors")]
        assert any(re.fullmatch(r"2-\d+-\d+\.safetensors", name) for name in names), "changes of step 2"
        assert losses[form][1:] == pytest.approx([losses[form][0]] * 2, abs=1e-5)


def options(corpus_path: Path, run: Run, *sets: str) -> list[object]:
    words = [word for pair in (*FIXED, *sets) for word in ("--set", pair)]
    return ["train", "--preset", "nano", "--corpus", corpus_path, "--run", run.folder, "--processes", 2, *words]


def children_of(process: "subprocess.Popen[str]") -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


def wait_for_steps(run: Run, process: "subprocess.Popen[str]", steps: int) -> None:
    path, deadline = run.train_folder / "metrics.jsonl", time.monotonic() + 120
    while not (path.exists() and len(path.read_text().splitlines()) >= steps):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()} if Path("/dev/shm").exists() else set()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_one_that_is_killed_ends_the_others_and_the_training_goes_on_exactly(tmp_path: Path, corpus_path: Path) -> None:
    run = run_of(tmp_path, corpus_path, "dense")
    one = Run(shutil.copytree(run.folder, tmp_path / "one"))
    chance, before = random.Random(1), shared_memory()
    sets = ("recipe.sample_tokens=0", "precision=float32", "recipe.steps=20", "recipe.checkpoint_steps=2")
    alone = chosen_settings(preset="nano", sets=[*FIXED, *sets, "recipe.accumulate=2"]).resolve(one.vocab(), "float32")
    assert len([*Trainer.start(one, alone, Corpus((corpus_path,))).steps()]) == 20
    command = options(corpus_path, run, *sets)
    for rank in (0, 1):
        with engram_process(*command, stdout=subprocess.DEVNULL) as process:
            wait_for_steps(run, process, chance.randrange(3, 7) + 8 * rank)
            children = children_of(process)
            os.kill(children[rank], signal.SIGKILL)
            began = time.monotonic()
            said = process.communicate(timeout=60)[1]
            assert time.monotonic() - began < 30
        assert process.returncode != 0
        assert re.findall(r"^error: .*", said, re.MULTILINE) == [
            line for line in said.splitlines() if line.startswith("error: another process of the training has ended")
        ]
        assert said.count("error: ") == 1
        assert "Traceback" not in said
        assert not any(map(is_alive, children))
        command = ["train", "--resume", "--processes", 2, "--run", run.folder]
    with engram_process(*command, stdout=subprocess.DEVNULL) as process:
        assert process.wait(timeout=200) == 0
    found, expected = content(run), content(one)
    names = {name for name in expected if name.startswith(("tables.zarr", "model."))}
    assert len(names) > 3
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}
    assert shared_memory() <= before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_process_behind(tmp_path: Path, corpus_path: Path, number: signal.Signals) -> None:
    run, before = run_of(tmp_path, corpus_path, "dense"), shared_memory()
    command = options(corpus_path, run, "recipe.sample_tokens=0", "recipe.steps=100000", "recipe.checkpoint_steps=5000")
    with engram_process(*command, stdout=subprocess.DEVNULL) as process:
        wait_for_steps(run, process, 3)
        children = children_of(process)
        assert len(children) == 2
        for one in [process.pid, *children] if number == signal.SIGINT else [process.pid]:
            os.kill(one, number)  # as a terminal sends Ctrl-C: to all of its foreground
        said = process.communicate(timeout=60)[1]
        deadline = time.monotonic() + 60
        while any(map(is_alive, children)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
    assert "stopped and saved at step" in said
    assert "Traceback" not in said
    steps = len((run.train_folder / "metrics.jsonl").read_text().splitlines())
    assert (run.train_folder / f"step-{steps:07}").exists()
    assert shared_memory() <= before


def refusals(peers: Peers, folder: Path, corpus_path: Path) -> list[str]:
    """How trainings end, in each process, where another has something else."""
    run, corpus = Run(folder / "dense"), Corpus((corpus_path,))
    other = Run(folder / "other" / "dense") if peers.rank == 1 else run
    said = [refusal(lambda: Trainer.start(other, configured(other, "dense", 1), corpus, peers=peers))]
    config = configured(run, "experts" if peers.rank == 2 else "dense", 1)
    said.append(refusal(lambda: Trainer.start(run, config, corpus, peers=peers)))
    version, torch.__version__ = torch.__version__, "0.0" if peers.rank == 2 else torch.__version__
    config = configured(run, "dense", 1)
    said.append(refusal(lambda: Trainer.start(run, config, corpus, peers=peers)))
    torch.__version__ = version
    assert not run.train_folder.exists()
    trainer = Trainer.start(run, config, corpus, peers=peers)
    if peers.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return [*said, refusal(lambda: [*trainer.steps()])]


def refusal(action: Callable[[], object]) -> str:
    try:
        action()
    except EngramError as e:
        return str(e)
    return "it was not refused"


def test_what_not_all_processes_have_is_told_by_all(tmp_path: Path, corpus_path: Path) -> None:
    run = run_of(tmp_path, corpus_path, "dense")
    build_vocab(Run(tmp_path / "other" / "dense"), Corpus((corpus_path,)), size=400)
    found = in_group(3, refusals, tmp_path, corpus_path)
    for rank, (vocabulary, configuration, code, full) in enumerate(found):
        assert vocabulary.startswith("process 1 of 3 has another vocabulary than process 0: ")
        assert configuration.startswith("process 2 of 3 has another configuration than process 0: ")
        assert code.startswith("process 2 of 3 has another code than process 0: ")
        assert "File too large" in full
        assert full.startswith("the checkpoint of step 2 cannot be written: " if rank == 1 else "process 1 of 3: ")
    assert [path.name for path in run.train_folder.glob("step-*")] == ["step-0000000"]


def test_more_processes_than_can_share_are_refused(tmp_path: Path, corpus_path: Path) -> None:
    run = run_of(tmp_path, corpus_path, "dense")
    config = configured(run, "dense", 1)
    assert config.spec is not None
    smallest = min(config.spec.rows(layer) for layer in config.spec.layers)
    with pytest.raises(EngramError, match=r"recipe.batch is 12, which 5 processes cannot share"):
        Trainer.start(run, config, Corpus((corpus_path,)), peers=Peers(0, 5))
    many = chosen_settings(preset="nano", sets=[f"recipe.batch={smallest + 1}"]).resolve(run.vocab(), "float32")
    with pytest.raises(EngramError, match=f"cannot share the {smallest:,} rows of layer"):
        Trainer.start(run, many, Corpus((corpus_path,)), peers=Peers(0, smallest + 1))
    refused(engram("train", "--processes", 0, "--run", run.folder), 2, "--processes")


def test_torchrun_starts_it(tmp_path: Path, corpus_path: Path) -> None:
    run = run_of(tmp_path, corpus_path, "dense")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    torchrun += ["--master-port", str(free_port()), "--no-python", "--", str(Path(sys.executable).with_name("engram"))]
    words = [str(word) for word in options(corpus_path, run, "recipe.steps=3")]
    done = subprocess.run([*torchrun, *words], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("with the memory") == 1
    assert "in 2 processes" in done.stderr
