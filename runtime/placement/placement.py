"""Where rows live while a model runs, and what every such place offers.

`device` holds the tables on the compute device, `host` in main memory, and `disk` leaves them in the mapped store. The vectors
are the same numbers in all three, so the logits are too.
"""

from collections.abc import Mapping
from typing import Literal, Protocol, get_args

import torch

from hashing.base.errors import UsageError
from runtime.placement.device import DevicePlacement
from runtime.placement.offloaded import OffloadedPlacement
from runtime.placement.row_source import RowSource
from runtime.vectors import LayerRows, Vectors

PlacementName = Literal["device", "host", "disk"]


class Placement(Protocol):
    def fetch(self, rows: LayerRows) -> Vectors:
        """Asks for the rows of every layer at once."""


def check_placement(name: str) -> None:
    """Raises UsageError for a placement that there is not."""
    if name not in get_args(PlacementName):
        raise UsageError(f"no placement is called {name!r}", hint=f"the names are {', '.join(get_args(PlacementName))}")


def place(tables: Mapping[int, RowSource], name: PlacementName, device: torch.device) -> Placement:
    """Tables by their layers, put where `name` says. Raises UsageError for a name that there is not."""
    check_placement(name)
    match name:
        case "device":
            return DevicePlacement(tables, device)
        case "host":
            held = {layer: table.in_memory() for layer, table in tables.items()}
            return OffloadedPlacement(held, device, on_disk=False)
        case "disk":
            return OffloadedPlacement(tables, device, on_disk=True)


def offloaded(device: torch.device) -> PlacementName:
    """Where `--offload` puts tables: from a GPU to main memory, on a machine that has only a CPU to disk."""
    return "host" if device.type == "cuda" else "disk"
