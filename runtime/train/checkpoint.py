"""What a training leaves behind: the model, the tables and the optimisers' state of one step.

    train/step-<n>/   model.safetensors       the backbone
                      optimizer.safetensors   what its optimiser keeps; not at step 0, where a training begins
                      progress.json           the clock, and the validation if there was one
                      tables.zarr             the tables, in a checkpoint that is whole; otherwise
                      base.zarr               the tables of an earlier step
                      moments.safetensors     layers/<block>/<name>: what the rows' optimiser keeps of all rows, at some step
                                              not after n; not there as long as changes have it all
                      moments/<block>-<k>.safetensors       in its place where several processes train: the same of rows that
                                              were ever moved, in the form of
                      changes/<m>-<block>-<k>.safetensors   rows that had changed at step m since the checkpoint before:
                                              layers/<block>/rows (U,) int64, ascending, and layers/<block>/<name> (U, …) of
                                              what belongs to them, their weights too unless tables of step m were written; k is
                                              the first of the rows

Where rows are on disk, `train/rows/` has them and what is kept of them (`record_file.py`), as they are now; rows/ in the newest
checkpoint is hard links to those files, and the undo journal beside them leads back to its step (`undo_journal.py`).

Otherwise the state of step n is the base and the moments with the changes laid over them in order; weights in changes count
where their step is after the base's. What is not new is a hard link to the checkpoint before, so that a checkpoint costs what
has changed since, and not what there is. Changes that would take more than half of what tables and moments do are not added:
all is written anew, without changes: over time a byte that changed costs three, and a whole checkpoint its tables beside. The
shards of an ordinary store could not be shared in this way: hashes scatter the rows of a batch over all of them (docs/log.md).

A checkpoint is whole when other commands are to read its tables: that of step 0, one with a validation, the last of a training
or where it is stopped, and one that is written anew; of a training with rows on disk, whose tables may take minutes to write,
only the last. The model and tables that other commands use are hard links to those of
the newest whole one; both carry its step and the spec's fingerprint, and are refused when theirs differ. A run without memory
has no tables, its checkpoints are whole, and its spec is "none".

The folder appears whole or not at all, and only then are others removed, so a kill at any moment leaves one to go on from.
Kept are the newest (`recipe.kept` of them), the newest whole one, and the one whose validation was best. Numbers that are not
finite are not saved.
"""

import fcntl
import json
import os
import shutil
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from hashing.base.atomic import atomic_path, partial_path, remove
from hashing.base.errors import EngramError
from hashing.spec import HashSpec
from hashing.vocab import CanonicalVocab
from runtime.checkpoints import OPTIMIZER, TABLES, Checkpoint, Progress, best_of, checkpoints
from runtime.replacement import locked, replacing
from runtime.run import Run
from runtime.tensor_file import NO_SPEC, load_tensors, save_tensors
from runtime.train.disk_rows import DiskRows
from runtime.train.peers import ALONE, Peers
from runtime.train.row_files import link_disk_rows, load_rows, save_disk_tables, save_rows
from runtime.train.state import State

REMOVED = ".removed"  # ends the name of a checkpoint that is on its way out
NO_CHECKPOINTS = (f"step-*{REMOVED}", "step-*.partial", "step-*.old-*")  # the last two were left by kills
DIVERGED_HINT = "a training with a smaller recipe.learning_rate, or in float32, may not come to this"


def save_checkpoint(
    train_folder: Path,
    state: State,
    spec: HashSpec | None,
    vocab: CanonicalVocab,
    validation_nats: float | None,
    whole: bool = True,
    peers: Peers = ALONE,
) -> Checkpoint:
    """Rows that are not marked must be those of the newest checkpoint in the folder; afterwards none is marked.

    Rows on disk have one newest checkpoint: that of the state's step, where it is there already, is given its tables. Raises
    EngramError, and leaves the folder as it was, when a number is not finite.
    """
    checkpoint, before = Checkpoint(train_folder / f"step-{state.step:07}"), newest(train_folder)
    if isinstance(state.rows, DiskRows) and spec and checkpoint == before:
        save_disk_tables(checkpoint.folder, state.rows, spec, vocab, state.step)
        return checkpoint
    changed = state.changed()
    if sum(peers.gathered(not state.is_finite(changed))):
        raise EngramError(
            f"after step {state.step} the model or its rows hold numbers that are infinite or NaN; they are not saved",
            hint=DIVERGED_HINT,
        )
    with peers.together(), ExitStack() as first:
        with peers.together():
            if peers.is_first:
                partial = first.enter_context(atomic_path(checkpoint.folder))
                _save_backbone(partial, state, spec, vocab)
                progress = Progress(state.elapsed_sec, validation_nats)
                (partial / "progress.json").write_text(json.dumps(asdict(progress), sort_keys=True))
        prepared = partial_path(checkpoint.folder) / checkpoint.folder.name
        if isinstance(state.rows, DiskRows):
            link_disk_rows(prepared, state.rows)
        elif spec:
            save_rows(prepared, before, state, changed, spec, vocab, whole, peers)
    state.unmark()
    if isinstance(state.rows, DiskRows):
        state.rows.begin(state.step)
        if spec and whole:
            save_disk_tables(checkpoint.folder, state.rows, spec, vocab, state.step)
    return checkpoint


def _save_backbone(folder: Path, state: State, spec: HashSpec | None, vocab: CanonicalVocab) -> None:
    folder.mkdir(parents=True)
    metadata = {"step": str(state.step), "spec": spec.fingerprint if spec else NO_SPEC, "vocab": vocab.fingerprint}
    save_tensors(state.model.state_dict(), folder / "model.safetensors", metadata)
    if state.step:
        save_tensors(_optimizer_tensors(state), folder / OPTIMIZER, metadata)


def newest(train_folder: Path) -> Checkpoint | None:
    return found[-1] if (found := checkpoints(train_folder)) else None


def _optimizer_tensors(state: State) -> dict[str, Tensor]:
    names = [name for name, _ in state.model.named_parameters()]
    parameters = dict(zip(map(id, state.model.parameters()), names, strict=True))
    return {
        f"{parameters[id(parameter)]}/{key}": value
        for parameter, values in state.optimizer.state.items()
        for key, value in values.items()
    }


def check_identity(run: Run, checkpoint: Checkpoint, spec: HashSpec | None, vocab: CanonicalVocab) -> None:
    """Raises EngramError when a checkpoint was trained with another vocabulary, or another spec, than the run has now."""
    trained = checkpoint.metadata()
    run.check_fingerprint(trained.get("vocab", vocab.fingerprint), vocab)
    if (found := trained.get("spec")) != (now := spec.fingerprint if spec else NO_SPEC):
        raise EngramError(
            f"the training in {run.folder} is of hash spec {found}, but its {run.config_path.name} of {now}",
            hint=f"put the configuration back, or start again with {run.command('train --force')}",
        )


def load_checkpoint(checkpoint: Checkpoint, state: State) -> None:
    """Puts a checkpoint's numbers into the state of a training that begins.

    Raises EngramError when they are of a model of another shape.
    """
    if isinstance(state.rows, DiskRows):
        state.rows.roll_back(checkpoint.step)
    if checkpoint.step == 0:
        return
    path = checkpoint.folder / "model.safetensors"
    try:
        state.model.load_state_dict(load_tensors(path)[0])
    except RuntimeError as e:
        raise EngramError(
            f"{path} does not fit the run's config.json: {str(e).splitlines()[-1].strip()}",
            hint="put the config.json back that it was trained with",
        ) from e
    tensors, _ = load_tensors(checkpoint.folder / OPTIMIZER)
    if state.tables:
        load_rows(checkpoint, state.tables)
    if any(name.startswith("layers/") for name in tensors):  # as an earlier version wrote it, which changes cannot go on from
        state.mark_all()
    for name, parameter in state.model.named_parameters():
        prefix = f"{name}/"
        state.optimizer.state[parameter] = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
    state.step, state.elapsed_sec = checkpoint.step, checkpoint.progress().elapsed_sec


def link(checkpoint: Checkpoint, folder: Path) -> None:
    """Gives the model and tables of a checkpoint that is whole second names in a folder."""
    os.link(checkpoint.folder / "model.safetensors", folder / "model.safetensors")
    if (tables := checkpoint.folder / TABLES).exists():
        shutil.copytree(tables, folder / TABLES, copy_function=os.link)


def publish(run: Run, kept: int = 1) -> None:
    """Makes the newest whole checkpoint's model and tables the run's own, and removes checkpoints that are not to be kept.

    What killed writers left half-written or half-removed goes too: the caller is the run's one writer.
    """
    found = checkpoints(run.train_folder)
    whole = next((checkpoint for checkpoint in reversed(found) if checkpoint.is_whole), None)
    if whole and not (run.model_path.exists() and run.model_path.samefile(whole.folder / "model.safetensors")):
        with replacing(run.folder) as fresh:
            link(whole, fresh)
    with locked(run.folder, fcntl.LOCK_EX):
        for checkpoint in found[:-kept]:
            if checkpoint not in (whole, best_of(found)):
                checkpoint.folder.rename(checkpoint.folder.with_suffix(REMOVED))  # what is half removed is no checkpoint
    for pattern in NO_CHECKPOINTS:
        for left in run.train_folder.glob(pattern):
            remove(left)
