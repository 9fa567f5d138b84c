"""What all processes of a training must have alike, and how many there may be."""

import hashlib
import json
from dataclasses import asdict

from hashing.base.errors import UsageError
from hashing.vocab import CanonicalVocab
from runtime.config import RunConfig
from runtime.train.peers import Peers


def identity(config: RunConfig, vocab: CanonicalVocab) -> dict[str, str]:
    """What all processes of a training must have alike, by fingerprints."""
    settings = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()[:16]
    spec = config.spec.fingerprint if config.spec else "none"
    return {"vocabulary": vocab.fingerprint, "hash spec": spec, "configuration": settings}


def check_processes(config: RunConfig, peers: Peers) -> None:
    """Raises UsageError where there are more processes than can share a batch or a table."""
    batch, parts = config.recipe.batch, config.recipe.accumulate * peers.count
    in_parts = f", each in {config.recipe.accumulate} parts" if config.recipe.accumulate > 1 else ""
    if batch % parts:
        raise UsageError(
            f"recipe.batch is {batch}, which {peers.count} processes cannot share equally{in_parts}",
            hint=f"take a recipe.batch that {parts} divides, or another number of processes",
        )
    if peers.are_many and config.recipe.row_place == "disk":
        raise UsageError(
            f"recipe.row_place is disk, which is for one process, and there are {peers.count}",
            hint="leave one of the two out: several processes hold the rows in the memory of all",
        )
    for layer in config.layers:
        assert config.spec is not None
        if (rows := config.spec.rows(layer)) < peers.count:
            raise UsageError(
                f"{peers.count} processes cannot share the {rows:,} rows of layer {layer}",
                hint="start fewer, or train more rows",
            )
