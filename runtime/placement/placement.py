"""Where rows live while a model runs, and what every such place offers.

`device` holds the tables on the compute device and `host` in main memory. Two leave them where they lie: `disk`, for a server,
has as much of them in memory as it is given; `mapped`, for looking inside, is quick to begin and has as much as the system
likes. The vectors are the same numbers in all, so the logits are too.
"""

from collections.abc import Mapping
from typing import Literal, Protocol, get_args

import torch

from hashing.base.errors import UsageError
from runtime.placement.device import DevicePlacement
from runtime.placement.disk import CACHE_BYTES, DiskPlacement
from runtime.placement.host import HostPlacement
from runtime.placement.row_source import RowSource
from runtime.vectors import LayerRows, Vectors

PlacementName = Literal["device", "host", "disk", "mapped"]


class Placement(Protocol):
    @property
    def table_bytes(self) -> int:
        """Of the tables where they are."""

    def fetch(self, rows: LayerRows) -> Vectors:
        """Asks for the rows of every layer at once."""


def check_placement(name: str) -> None:
    """Raises UsageError for a placement that there is not."""
    if name not in get_args(PlacementName):
        raise UsageError(f"no placement is called {name!r}", hint=f"the names are {', '.join(get_args(PlacementName))}")


def place(
    tables: Mapping[int, RowSource], name: PlacementName, device: torch.device, cache_bytes: int = CACHE_BYTES
) -> Placement:
    """Tables by their layers, put where `name` says; on disk, `cache_bytes` of them may be in memory.

    Raises UsageError for a name that there is not, and EngramError for tables on disk whose files are gone.
    """
    check_placement(name)
    match name:
        case "device":
            return DevicePlacement(tables, device)
        case "host":
            return HostPlacement({layer: table.in_memory() for layer, table in tables.items()}, device)
        case "mapped":
            return HostPlacement(tables, device)
        case "disk":
            return DiskPlacement(tables, device, cache_bytes)


def offloaded(device: torch.device) -> PlacementName:
    """Where `--offload` puts tables: from a GPU to main memory, on a machine that has only a CPU to disk."""
    return "host" if device.type == "cuda" else "disk"
