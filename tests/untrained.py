"""Models with random weights and tables."""

import torch

from runtime.lookup import Addressing, Lookup
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.train.choice import chosen_settings
from runtime.train.row_table import RowTable
from runtime.train.rows import OwnRows


def untrained(run: Run, *sets: str) -> tuple[LanguageModel, Lookup | None]:
    vocab = run.vocab()
    config = chosen_settings(preset="nano", sets=sets).resolve(vocab, "float32")
    torch.manual_seed(1)
    model = LanguageModel(config.model)
    if config.spec is None:
        return model, None
    cpu = torch.device("cpu")
    tables = {layer: RowTable.create(config.spec.rows(layer), config.head_dim, 1.0, layer, cpu) for layer in config.spec.layers}
    return model, Lookup(Addressing(vocab, config.spec), OwnRows(tables))
