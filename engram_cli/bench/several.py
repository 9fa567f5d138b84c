"""A function in several new processes, which find each other as those of `torchrun` do."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from engram_cli.processes import LOOPBACK, free_port


def _member(rank: int, count: int, port: int, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    import torch

    from runtime.train.peers import Peers

    torch.set_num_threads(threads)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {**address, "GLOO_SOCKET_IFNAME": LOOPBACK}
    peers = Peers.join()
    result = function(peers, *arguments)
    peers.leave()
    return result


def in_group(
    count: int, function: Callable[..., Any], *arguments: Any, threads: int = 1, limit_sec: float | None = None
) -> list[Any]:
    """What a function of a module gives in each of so many processes; it is called with the peers and the arguments."""
    port = free_port()
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as processes:
        tasks = [processes.submit(_member, rank, count, port, threads, function, arguments) for rank in range(count)]
        return [task.result(timeout=limit_sec) for task in tasks]
