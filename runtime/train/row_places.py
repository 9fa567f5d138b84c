"""Where a training's rows are: in this process's memory, in that of several processes, or on disk."""

from pathlib import Path

import torch

from hashing.spec import HashSpec
from runtime.checkpoints import ROWS
from runtime.config import RunConfig
from runtime.train.disk_rows import DiskRows
from runtime.train.new_rows import NewRows
from runtime.train.peers import Peers
from runtime.train.record_file import SUFFIX, RecordFile
from runtime.train.row_table import RowTable
from runtime.train.rows import OwnRows, Rows
from runtime.train.sharded_rows import ShardedRows


def placed_rows(config: RunConfig, device: torch.device, peers: Peers, train_folder: Path) -> Rows:
    """New rows of every layer, each layer's from a seed of its own; or those that are in the training's folder already."""
    spec = config.spec
    if spec is None:
        return OwnRows({})
    if config.recipe.row_place == "disk":
        return DiskRows({layer: _record_file(config, spec, layer, train_folder / ROWS) for layer in spec.layers}, device)
    tables = {layer: _table(config, layer, peers.share(spec.rows(layer)), device, peers) for layer in spec.layers}
    if config.recipe.rows == "equal":
        for layer, table in tables.items():
            table.equalise(spec.offsets(layer))
    return ShardedRows(tables, {layer: spec.rows(layer) for layer in spec.layers}, peers) if peers.are_many else OwnRows(tables)


def _table(config: RunConfig, layer: int, own: range, device: torch.device, peers: Peers) -> RowTable:
    recipe, rule = config.recipe, (config.recipe.row_rule, config.recipe.row_momentum)
    seed = recipe.seed + layer
    return RowTable.create(len(own), config.head_dim, recipe.row_std, seed, device, *rule, own.start, peers)


def _record_file(config: RunConfig, spec: HashSpec, layer: int, folder: Path) -> RecordFile:
    recipe, new_rows = config.recipe, NewRows(config.recipe.seed + layer, config.recipe.row_std)
    rule = recipe.row_rule, recipe.row_momentum
    return RecordFile(folder / f"{layer}{SUFFIX}", spec.rows(layer), config.head_dim, new_rows, *rule)
