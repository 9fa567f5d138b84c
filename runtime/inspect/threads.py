"""How many threads look inside: a small model's windows are computed by one.

Its operations take a fraction of a millisecond, and after each all threads wait for the slowest. Beside other work on two
cores, 32 windows of the demo's model took one thread 25 ms and two threads 80 to 900: a view is to be there at once, whatever
else runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from runtime.model.language_model import LanguageModel

SMALL = 1 << 24  # parameters


@contextmanager
def few_threads(model: LanguageModel) -> Iterator[None]:
    """Within the block torch has one thread if the model is small, and afterwards as many as before."""
    before = torch.get_num_threads()
    if sum(parameter.numel() for parameter in model.parameters()) < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
