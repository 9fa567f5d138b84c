"""Peers: the processes that train one model together, and all that they say to one another.

`torchrun` starts them, or `engram train --processes`. Everything goes through the collectives of `torch.distributed`: gloo
between CPUs, NCCL between GPUs. A process alone is a `Peers` of one, whose collectives give back what they are given.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numba
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from hashing.base.errors import EngramError

T = TypeVar("T")
# A process that ends closes its connections, which others notice at once; they may wait as long as the first reads a corpus.
TIMEOUT = timedelta(days=2)
SOURCES = ("hashing", "table", "runtime")


class PeerLostError(EngramError):
    """Another process of the training has ended."""


@dataclass(frozen=True, slots=True)
class Peers:
    rank: int = 0
    count: int = 1
    ahead: Any = None  # the group in which the next batch is made ready, beside a step that uses the other

    @classmethod
    def join(cls) -> "Peers":
        """The processes that the environment tells of, as torchrun sets it; alone where it tells of none."""
        if "WORLD_SIZE" not in os.environ:
            return ALONE
        with translated():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
            return cls(dist.get_rank(), dist.get_world_size(), dist.new_group(timeout=TIMEOUT))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def are_many(self) -> bool:
        return self.count > 1

    def leave(self) -> None:
        if self.are_many:
            dist.destroy_process_group()

    def share(self, total: int, rank: int | None = None) -> range:
        """The part of `total` things that a process has, this one where no rank is given: from total·r // count on.

        Thing x is that of process ((x + 1)·count - 1) // total.
        """
        own = self.rank if rank is None else rank
        return range(total * own // self.count, total * (own + 1) // self.count)

    def total_of(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors of one shape, which overwrites this one's."""
        if self.are_many:
            dist.all_reduce(tensor)
        return tensor

    def total(self, array: NDArray[Any]) -> NDArray[Any]:
        """The same for an array."""
        self.total_of(torch.from_numpy(array))
        return array

    def largest(self, array: NDArray[Any]) -> NDArray[Any]:
        """The largest numbers of all processes' arrays of one shape, which overwrite this one's."""
        if self.are_many:
            dist.all_reduce(torch.from_numpy(array), dist.ReduceOp.MAX)
        return array

    def gathered(self, number: float) -> list[float]:
        """Every process's number, in the order of their ranks."""
        if not self.are_many:
            return [number]
        found = [torch.empty((), dtype=torch.float64) for _ in range(self.count)]
        dist.all_gather(found, torch.tensor(number, dtype=torch.float64))
        return [float(each) for each in found]

    def exchanged(self, tensor: Tensor, sent: Sequence[int], received: Sequence[int], ahead: bool = False) -> Tensor:
        """Sends so many rows of a tensor to each process, in the order of ranks; gives what comes, in that order."""
        found = tensor.new_empty((sum(received), *tensor.shape[1:]))
        dist.all_to_all_single(found, tensor, list(received), list(sent), group=self.ahead if ahead else None)
        return found

    def told(self, value: T) -> T:
        """The first process's value."""
        if not self.are_many:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def all_told(self, value: T) -> list[T]:
        """Every process's value, in the order of their ranks."""
        found: list[Any] = [value] * self.count
        if self.are_many:
            dist.all_gather_object(found, value)
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """The end of the block waits until all have come there; where one of them fails in it, all fail."""
        if not self.are_many:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except (EngramError, OSError) as e:
            failure = e
        for rank, said in enumerate(self.all_told(failure and (str(failure), getattr(failure, "hint", "")))):
            if failure:
                raise failure
            if said:
                raise EngramError(f"process {rank} of {self.count}: {said[0]}", hint=said[1])

    def check_same(self, of_what: dict[str, str]) -> None:
        """Raises EngramError where another process has something else than the first: by fingerprints, with the code's."""
        if not self.are_many:
            return
        said = self.all_told({**of_what, "code": code_fingerprint()})
        for rank, other in enumerate(said):
            for name, expected in said[0].items():
                if other[name] != expected:
                    raise EngramError(
                        f"process {rank} of {self.count} has another {name} than process 0: {other[name]}, expected {expected}",
                        hint="every process needs the same installation and the same files of the run",
                    )


ALONE = Peers()


def code_fingerprint() -> str:
    """Of the sources that a training runs, and of the versions that it computes with."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256(f"{torch.__version__} {numba.__version__}".encode())
    for room in SOURCES:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def translated() -> Iterator[None]:
    """Raises PeerLostError for what torch says when a process that it waits for has ended."""
    try:
        yield
    except RuntimeError as e:
        if not isinstance(e, dist.DistError) and not any(word in str(e) for word in ("gloo", "NCCL", "Connection closed")):
            raise
        raise PeerLostError(
            "another process of the training has ended, or cannot be reached",
            hint="once it is mended, train --resume goes on from the newest checkpoint, with any number of processes",
        ) from e
