"""Families of published checkpoints: which one a folder is of, by the keys of its configuration."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hashing.base.errors import EngramError
from table.checkpoints import deepseek, qwen
from table.checkpoints.folder import Config, Folder
from table.checkpoints.published import Checkpoint


@dataclass(frozen=True, slots=True)
class Family:
    """What tells a family apart, and its reader."""

    kind: str
    layers_key: str  # of the configuration
    table: re.Pattern[str]  # in the name of a tensor that holds rows
    read: Callable[[Config, Folder, Path | None], Checkpoint]  # with a tokenizer, if there is one


FAMILIES = tuple(Family(module.KIND, module.LAYERS_KEY, module.TABLE, module.read) for module in (deepseek, qwen))


def read_checkpoint(path: Path, tokenizer: Path | None = None) -> Checkpoint:
    """The tables of a checkpoint folder, examined; its `faults` say what is wrong.

    `tokenizer` is a `tokenizer.json`, a folder that holds one, or None for the one in the checkpoint's folder, if there is one.
    Raises EngramError when there is no `config.json` of one known family, or not even the hash spec can be made out.
    """
    if not path.is_dir():
        raise EngramError(
            f"no such checkpoint folder: {path}", hint="name the folder with config.json and the safetensors files"
        )
    if tokenizer is not None and not tokenizer.exists():
        raise EngramError(f"no such tokenizer: {tokenizer}", hint="name a tokenizer.json, or the folder that holds one")
    config = Config.read(path)
    found = [family for family in FAMILIES if family.layers_key in config.names]
    keys = [family.layers_key for family in FAMILIES]
    if not found:
        raise EngramError(
            f"{config.path} describes no model with Engram tables: it has neither {' nor '.join(keys)}",
            hint="for the demo's state dict, name the file itself and its hash spec",
        )
    if len(found) > 1:
        raise EngramError(f"{config.path} has both {' and '.join(keys)}, expected the tables of one family")
    folder, beside = Folder(path), path / "tokenizer.json"
    _refuse_other_tables(folder, found[0])
    return found[0].read(config, folder, tokenizer or (beside if beside.exists() else None))


def _refuse_other_tables(folder: Folder, own: Family) -> None:
    """Raises EngramError when the index names tables of another family than the configuration does."""
    for family in FAMILIES:
        strangers = (name for name in folder.weight_map if family.table.search(name))
        if family is not own and (stranger := next(strangers, None)):
            raise EngramError(f"{folder.path} is of the family {own.kind}, but holds {stranger}, a table of {family.kind}")
