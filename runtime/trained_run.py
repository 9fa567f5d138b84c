"""TrainedRun: a run's model, tables and vocabulary, opened together and known to belong together."""

from dataclasses import dataclass

import torch

from hashing.base.errors import EngramError
from hashing.vocab import CanonicalVocab
from runtime.config import RunConfig
from runtime.lookup import Addressing, Lookup
from runtime.model.language_model import LanguageModel
from runtime.placement.placement import PlacementName, check_placement, place
from runtime.run import Run
from runtime.tensor_file import NO_SPEC, load_tensors
from table.store.store import TableStore


@dataclass(frozen=True, slots=True)
class TrainedRun:
    config: RunConfig
    model: LanguageModel
    store: TableStore | None  # None for a run that was trained without memory
    vocab: CanonicalVocab

    @classmethod
    def load(cls, run: Run, device: torch.device) -> "TrainedRun":
        """Raises EngramError when a part is missing, or the parts are not of one training."""
        vocab, config = run.vocab(), run.config()
        run.require(run.model_path, "train")
        store = _open_store(run, vocab) if config.spec else None
        return cls(config, _load_model(run, config, store, vocab).to(device).eval(), store, vocab)

    def lookup(self, placement: PlacementName, store: TableStore | None = None) -> Lookup | None:
        """The way to the vectors of the run's own tables, or of another store of the same spec in their place.

        None for a run without memory. Raises UsageError for a placement that there is not.
        """
        check_placement(placement)
        if (store := store or self.store) is None:
            return None
        return Lookup(Addressing(self.vocab, store.spec), place(store, placement, self.model.device))


def _open_store(run: Run, vocab: CanonicalVocab) -> TableStore:
    run.require(run.tables_path, "train --resume")
    store = TableStore.open(run.tables_path)
    store.check_vocab(vocab.fingerprint)
    return store


def _load_model(run: Run, config: RunConfig, store: TableStore | None, vocab: CanonicalVocab) -> LanguageModel:
    tensors, metadata = load_tensors(run.model_path)
    run.check_fingerprint(metadata.get("vocab", vocab.fingerprint), vocab)
    if store is None and metadata.get("spec") != NO_SPEC:
        raise EngramError(
            f"{run.model_path} is of spec {metadata.get('spec')}, but {run.config_path} of a run without memory",
            hint="engram train --resume puts the newest checkpoint's model in place",
        )
    if store and (metadata.get("spec") != store.spec.fingerprint or metadata.get("step") != str(store.step)):
        raise EngramError(
            f"{run.model_path} is of step {metadata.get('step')} and spec {metadata.get('spec')}, "
            f"but {run.tables_path} of step {store.step} and spec {store.spec.fingerprint}",
            hint=f"{run.command('train --resume')} puts the newest checkpoint's two in place",
        )
    model = LanguageModel(config.model)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as e:
        raise EngramError(
            f"{run.model_path} does not fit {run.config_path}: {str(e).splitlines()[-1].strip()}",
            hint="put the config.json back that it was trained with",
        ) from e
    return model
