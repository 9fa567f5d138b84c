"""How many rows make a row's numbers independent of the other rows, to the bit, on a CPU.

Two things in torch look at the number of rows. MKL has other products for up to 3 of them on a thread than for more, which
add up in another order: residual streams and experts have such products (others are those of `row_product.py`). And an
element-wise function computes VECTOR numbers at a time, the rest of a thread's share by another routine, which rounds
differently. So rows are filled up to a multiple that leaves no rest in a tensor of any width of the model. What was tried is in
docs/log.md.
"""

from math import gcd

import torch

from runtime.model.config import ModelConfig

FEWEST = 4  # on each thread
VECTOR = 32  # two registers of 16 float32


def filled_rows(rows: int, config: ModelConfig) -> int:
    """How many rows to compute for so many."""
    widths = [config.hidden, config.ffn, config.streams if config.streams > 1 else 0]
    if config.experts:
        widths += [config.experts, config.expert_ffn]
    threads = torch.get_num_threads()
    aligned = VECTOR * threads
    multiple = aligned // gcd(aligned, *widths)
    fewest = FEWEST * threads if config.streams > 1 or config.experts else 1
    return -(-max(rows, fewest) // multiple) * multiple
