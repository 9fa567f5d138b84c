"""`engram serve`: an OpenAI-style HTTP server over a trained run."""

import socket
from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, BestCheckpoint, Offload, PlacementOption, RunDir


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    verify: Annotated[
        int,
        typer.Option(min=0, help="In one of so many steps rows and vectors are found again by the plain rule; 0: in none."),
    ] = 0,
    best: BestCheckpoint = False,
    offload: Offload = False,
    placement: PlacementOption = None,
    run: RunDir = DEFAULT_RUN,
) -> None:
    """Serve completions over HTTP, as OpenAI's API has them, and at / a page that looks inside.

    POST /v1/completions, GET /v1/models; GET /health, /ready and /metrics.

    Example: engram serve --offload

    Example: engram serve --port 9000 --placement disk --run runs/mine
    """
    import torch

    from engram_cli.options import chosen_placement
    from engram_cli.output import note
    from runtime.inspect.page.content import Content
    from runtime.inspect.page.router import page_router
    from runtime.run import Run
    from runtime.serve.generator import Generator
    from runtime.serve.http_server import HttpServer
    from runtime.serve.server import build_app
    from runtime.trained_run import TrainedRun

    with _listen(host, port) as listener:
        where = chosen_placement(placement, offload)
        name, cpu = run.resolve().name, torch.device("cpu")
        generator = Generator.load(Run(run), where, best=best)
        app = build_app(generator, name, verify)
        if generator.lookup:
            app.include_router(page_router(name, lambda: Content.open(Run(run), TrainedRun.load(Run(run), cpu, best))))
        tables = f" with its tables on {where}" if generator.lookup else ", which has no memory and no tables to place,"
        note(f"serving {name}{tables} at http://{host}:{listener.getsockname()[1]}")
        HttpServer(app).serve_on(listener)


def _listen(host: str, port: int) -> socket.socket:
    """Takes the port before the model is loaded, so that an occupied one is known at once."""
    from hashing.base.errors import EngramError

    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as e:
        listener.close()
        raise EngramError(
            f"cannot listen on {host}:{port}: {e.strerror}", hint="--port names another; 0 takes a free one"
        ) from e
    return listener
