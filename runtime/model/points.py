"""Named values: a forward pass can be watched and changed at the points that its modules name.

A module that derives from `Watched` passes a value through `self.point(name, value)` wherever somebody may want to see it.
While nobody watches, that is one comparison in Python, which `torch.compile` removes. While somebody does, `watch(name, value)`
is called with the point's full name, such as `blocks.1.memory.gate`; it returns None to leave the value, or a replacement of
the same shape.

Points of a block: `in`, `attention`, `ffn`, `out`, and `read` where streams are joined in a single pass. Points of its memory:
`e`, `key`, `value`, `score`, `gate`, `conv`, `out`. Its `rows` are known before the model begins, and the `logits` come after:
`runtime/inspect/record.py` adds those two names.
The names are attributes of the model and not of Python frames, so that they stay when the code around them moves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from hashing.base.errors import EngramError

Watch = Callable[[str, Tensor], Tensor | None]


class Watched(nn.Module):
    """A module with named points; `name` says where in the model it stands."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.watch: Watch | None = None

    def point(self, name: str, value: Tensor) -> Tensor:
        if self.watch is None:
            return value
        full = f"{self.name}.{name}"
        replacement = self.watch(full, value)
        if replacement is None:
            return value
        if replacement.shape != value.shape:
            found, expected = tuple(replacement.shape), tuple(value.shape)
            raise EngramError(f"the replacement of {full} has shape {found}, expected {expected}")
        return replacement


@contextmanager
def watching(model: nn.Module, watch: Watch) -> Iterator[None]:
    """Within the block, and only there, `watch` is called at every point of the model."""
    modules = [module for module in model.modules() if isinstance(module, Watched)]
    assert all(module.watch is None for module in modules), "a model is watched by one caller at a time"
    for module in modules:
        module.watch = watch
    try:
        yield
    finally:
        for module in modules:
            module.watch = None
