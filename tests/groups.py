"""Several processes of one test, which find each other as those of `torchrun` do."""

import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from runtime.train.peers import Peers

LIMIT_SEC = 240


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _member(rank: int, count: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {**address, "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    peers = Peers.join()
    result = function(peers, *arguments)
    peers.leave()
    return result


def in_group(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function of a module gives in each of so many new processes; it is called with the peers and the arguments."""
    port = free_port()
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as processes:
        tasks = [processes.submit(_member, rank, count, port, function, arguments) for rank in range(count)]
        return [task.result(timeout=LIMIT_SEC) for task in tasks]
