"""TrainedRun: a run's model, tables, vocabulary and tokenizer, opened together and known to belong together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from hashing.base.errors import EngramError
from hashing.vocab import CanonicalVocab
from runtime.checkpoints import best_checkpoint
from runtime.config import RunConfig
from runtime.lookup import Addressing, Lookup
from runtime.model.language_model import LanguageModel
from runtime.placement.disk import CACHE_BYTES
from runtime.placement.placement import PlacementName, check_placement, place
from runtime.run import Run
from runtime.tensor_file import NO_SPEC, load_tensors
from table.store.gather import Table
from table.store.store import TableStore


@dataclass(frozen=True, slots=True)
class TrainedRun:
    config: RunConfig
    model: LanguageModel
    store: TableStore | None  # None for a run that was trained without memory
    tables: Mapping[int, Table]  # of each layer, mapped: they stay these when a training replaces the run's
    vocab: CanonicalVocab
    tokenizer: Tokenizer

    @classmethod
    def load(cls, run: Run, device: torch.device, best: bool = False) -> "TrainedRun":
        """The newest checkpoint, or with `best` the one whose validation was best.

        Raises EngramError when a part is missing, or the parts are not of one training.
        """
        with run.reading():
            tokenizer, vocab, config = run.tokenizer(), run.vocab(), run.config()
            run.require(run.model_path, "train")
            folder = best_checkpoint(run.train_folder).folder if best else run.folder
            store = _open_store(run, folder / "tables.zarr", vocab) if config.spec else None
            tables = {layer: store.table(layer) for layer in store.spec.layers} if store else {}
            model = _load_model(run, folder / "model.safetensors", config, store, vocab)
        return cls(config, model.to(device).eval(), store, tables, vocab, tokenizer)

    def lookup(
        self, placement: PlacementName, store: TableStore | None = None, cache_bytes: int = CACHE_BYTES
    ) -> Lookup | None:
        """The way to the vectors of the run's own tables, or of another store of the same spec in their place.

        None for a run without memory. On disk, rows may take `cache_bytes` of memory. Raises UsageError for a placement that
        there is not.
        """
        check_placement(placement)
        if self.store is None:
            return None
        spec, tables = self.store.spec, self.tables
        if store is not None:
            spec, tables = store.spec, {layer: store.table(layer) for layer in store.spec.layers}
        return Lookup(Addressing(self.vocab, spec), place(tables, placement, self.model.device, cache_bytes))


def _open_store(run: Run, path: Path, vocab: CanonicalVocab) -> TableStore:
    run.require(path, "train --resume")
    store = TableStore.open(path)
    store.check_vocab(vocab.fingerprint)
    return store


def _load_model(run: Run, path: Path, config: RunConfig, store: TableStore | None, vocab: CanonicalVocab) -> LanguageModel:
    tensors, metadata = load_tensors(path)
    run.check_fingerprint(metadata.get("vocab", vocab.fingerprint), vocab)
    if store is None and metadata.get("spec") != NO_SPEC:
        raise EngramError(
            f"{path} is of spec {metadata.get('spec')}, but {run.config_path} of a run without memory",
            hint="engram train --resume puts the newest checkpoint's model in place",
        )
    if store and (metadata.get("spec") != store.spec.fingerprint or metadata.get("step") != str(store.step)):
        raise EngramError(
            f"{path} is of step {metadata.get('step')} and spec {metadata.get('spec')}, "
            f"but {store.path} of step {store.step} and spec {store.spec.fingerprint}",
            hint=f"{run.command('train --resume')} puts the newest checkpoint's two in place",
        )
    model = LanguageModel(config.model)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as e:
        raise EngramError(
            f"{path} does not fit {run.config_path}: {str(e).splitlines()[-1].strip()}",
            hint="put the config.json back that it was trained with",
        ) from e
    return model
