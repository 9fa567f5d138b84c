"""What a training leaves behind: the model, the tables and the optimiser's state of one step.

    train/step-<n>/   model.safetensors · tables.zarr · optimizer.safetensors

The folder appears whole or not at all, and only then are older ones removed, so a kill at any moment leaves one to go on
from. The model and tables that the other commands use are hard links to those of the newest checkpoint; both carry its step
and the spec's fingerprint, and are refused when theirs differ. A run without memory has no `tables.zarr`, and the spec "none".
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hashing.base.atomic import atomic_path, remove
from hashing.spec import HashSpec
from hashing.vocab import CanonicalVocab
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.tensor_file import NO_SPEC, load_tensors, save_tensors
from runtime.train.row_table import RowTable
from table.store.store import TableStore, write_store

ROW_STATE = ("moment", "square", "updates")


@dataclass(slots=True)
class State:
    """Everything that a training step changes."""

    model: LanguageModel
    optimizer: torch.optim.Optimizer
    tables: dict[int, RowTable]
    step: int = 0


def save_checkpoint(run: Run, state: State, spec: HashSpec | None, vocab: CanonicalVocab) -> None:
    folder = run.train_folder / f"step-{state.step:07}"
    with atomic_path(folder) as partial:
        partial.mkdir(parents=True)
        spec_name = spec.fingerprint if spec else NO_SPEC
        metadata = {"step": str(state.step), "spec": spec_name, "vocab": vocab.fingerprint}
        save_tensors(state.model.state_dict(), partial / "model.safetensors", metadata)
        if spec:
            weights = {layer: table.weight.cpu().numpy() for layer, table in state.tables.items()}
            write_store(partial / "tables.zarr", spec, vocab.mapping, weights, state.step)
        save_tensors(_optimizer_tensors(state), partial / "optimizer.safetensors", metadata)
    publish(run, folder)
    for older in run.train_folder.glob("step-*"):
        if older != folder:
            remove(older)


def _optimizer_tensors(state: State) -> dict[str, Tensor]:
    names = [name for name, _ in state.model.named_parameters()]
    parameters = dict(zip(map(id, state.model.parameters()), names, strict=True))
    tensors = {
        f"{parameters[id(parameter)]}/{key}": value
        for parameter, values in state.optimizer.state.items()
        for key, value in values.items()
    }
    for layer, table in state.tables.items():
        tensors |= {f"layers/{layer}/{key}": getattr(table, key) for key in ROW_STATE}
    return tensors


def latest_checkpoint(run: Run) -> Path | None:
    return max((p for p in run.train_folder.glob("step-*") if p.suffix == ""), default=None)


def checkpoint_vocab(folder: Path) -> str | None:
    """The fingerprint of the vocabulary that a checkpoint's model reads; None where version 0.1 wrote it, which did not say."""
    return load_tensors(folder / "model.safetensors")[1].get("vocab")


def load_checkpoint(folder: Path, state: State) -> None:
    """Puts a checkpoint's numbers into the state."""
    state.model.load_state_dict(load_tensors(folder / "model.safetensors")[0])
    tensors, metadata = load_tensors(folder / "optimizer.safetensors")
    for layer, table in state.tables.items():
        store = TableStore.open(folder / "tables.zarr")
        table.weight.copy_(torch.from_numpy(store.layer(layer).copy()))
        for key in ROW_STATE:
            getattr(table, key).copy_(tensors[f"layers/{layer}/{key}"])
    for name, parameter in state.model.named_parameters():
        prefix = f"{name}/"
        state.optimizer.state[parameter] = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
    state.step = int(metadata["step"])


def publish(run: Run, folder: Path) -> None:
    """Makes a checkpoint's model and tables the run's own."""
    own, model = run.model_path, folder / "model.safetensors"
    if not (own.exists() and own.samefile(model)):  # renaming one name of a file to another of its names does nothing
        with atomic_path(own) as partial:
            os.link(model, partial)
    if (tables := folder / "tables.zarr").exists():
        with atomic_path(run.tables_path) as partial:
            shutil.copytree(tables, partial, copy_function=os.link)
