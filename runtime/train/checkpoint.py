"""What a training leaves behind: the model, the tables and the optimiser's state of one step.

    train/step-<n>/   model.safetensors · tables.zarr · optimizer.safetensors · progress.json

The folder appears whole or not at all, and only then are others removed, so a kill at any moment leaves one to go on from. Two
are kept: the newest, and the one whose validation was best. The model and tables that the other commands use are hard links to
those of the newest; both carry its step and the spec's fingerprint, and are refused when theirs differ. That of step 0 has no
optimiser's state, since a training that begins has none. A run without memory has no `tables.zarr`, and the spec "none".
"""

import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from hashing.base.atomic import atomic_path, remove
from hashing.spec import HashSpec
from hashing.vocab import CanonicalVocab
from runtime.checkpoints import Checkpoint, Progress, best_of, checkpoints
from runtime.model.language_model import LanguageModel
from runtime.replacement import locked, replacing
from runtime.run import Run
from runtime.tensor_file import NO_SPEC, load_tensors, save_tensors
from runtime.train.row_table import RowTable
from table.store.store import TableStore, write_store


@dataclass(slots=True)
class State:
    """Everything that a training step changes."""

    model: LanguageModel
    optimizer: torch.optim.Optimizer
    tables: dict[int, RowTable]
    step: int = 0
    elapsed_sec: float = 0.0  # of training, with its validations and checkpoints


def save_checkpoint(
    train_folder: Path, state: State, spec: HashSpec | None, vocab: CanonicalVocab, validation_nats: float | None
) -> Checkpoint:
    checkpoint = Checkpoint(train_folder / f"step-{state.step:07}")
    with atomic_path(checkpoint.folder) as partial:
        partial.mkdir(parents=True)
        spec_name = spec.fingerprint if spec else NO_SPEC
        metadata = {"step": str(state.step), "spec": spec_name, "vocab": vocab.fingerprint}
        save_tensors(state.model.state_dict(), partial / "model.safetensors", metadata)
        if spec:
            weights = {layer: table.weight.cpu().numpy() for layer, table in state.tables.items()}
            write_store(partial / "tables.zarr", spec, vocab.mapping, weights, state.step)
        if state.step:
            save_tensors(_optimizer_tensors(state), partial / "optimizer.safetensors", metadata)
        progress = Progress(state.elapsed_sec, validation_nats)
        (partial / "progress.json").write_text(json.dumps(asdict(progress), sort_keys=True))
    return checkpoint


def _optimizer_tensors(state: State) -> dict[str, Tensor]:
    names = [name for name, _ in state.model.named_parameters()]
    parameters = dict(zip(map(id, state.model.parameters()), names, strict=True))
    tensors = {
        f"{parameters[id(parameter)]}/{key}": value
        for parameter, values in state.optimizer.state.items()
        for key, value in values.items()
    }
    for layer, table in state.tables.items():
        tensors |= {f"layers/{layer}/{key}": value for key, value in table.rule.state().items()}
    return tensors


def load_checkpoint(checkpoint: Checkpoint, state: State) -> None:
    """Puts a checkpoint's numbers into the state of a training that begins."""
    if checkpoint.step == 0:
        return
    folder = checkpoint.folder
    state.model.load_state_dict(load_tensors(folder / "model.safetensors")[0])
    tensors, _ = load_tensors(folder / "optimizer.safetensors")
    if state.tables:
        store = TableStore.open(folder / "tables.zarr")
        for layer, table in state.tables.items():
            table.weight.copy_(torch.from_numpy(store.layer(layer).copy()))
            for key, kept in table.rule.state().items():
                kept.copy_(tensors[f"layers/{layer}/{key}"])
    for name, parameter in state.model.named_parameters():
        prefix = f"{name}/"
        state.optimizer.state[parameter] = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
    state.step, state.elapsed_sec = checkpoint.step, checkpoint.progress().elapsed_sec


def link(checkpoint: Checkpoint, folder: Path) -> None:
    """Gives a checkpoint's model and tables second names in a folder."""
    os.link(checkpoint.folder / "model.safetensors", folder / "model.safetensors")
    if (tables := checkpoint.folder / "tables.zarr").exists():
        shutil.copytree(tables, folder / "tables.zarr", copy_function=os.link)


def publish(run: Run) -> None:
    """Makes the newest checkpoint's model and tables the run's own, and removes those that are neither newest nor best."""
    found = checkpoints(run.train_folder)
    newest = found[-1]
    if not (run.model_path.exists() and run.model_path.samefile(newest.folder / "model.safetensors")):
        with replacing(run.folder) as fresh:
            link(newest, fresh)
    with locked(run.folder, fcntl.LOCK_EX):
        for checkpoint in found:
            if checkpoint not in (newest, best_of(found)):
                remove(checkpoint.folder)
