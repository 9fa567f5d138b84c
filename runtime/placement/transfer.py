"""Transfer: vectors on their way from main memory to the compute device.

To a GPU they are copied from pinned memory on a stream of their own, while the device computes; the stream that computes waits
for them where it needs them.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Transfer:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def send(self, vectors: NDArray[np.float32]) -> Callable[[], Tensor]:
        """Begins to copy; what is given back gives the tensor on the device, for work that is queued from then on."""
        given = torch.from_numpy(vectors)
        if self._stream is None:
            sent = given if self._device.type == "cpu" else given.to(self._device)
            return lambda: sent
        with torch.cuda.stream(self._stream):
            copied = given.pin_memory().to(self._device, non_blocking=True)
            done = self._stream.record_event()

        def arrived() -> Tensor:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(done)
            copied.record_stream(computing)
            return copied

        return arrived
