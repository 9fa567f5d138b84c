"""`engram serve`: an OpenAI-style HTTP server over a trained run, or a model of others."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import (
    DEFAULT_RUN,
    BestCheckpoint,
    CacheSize,
    ModelFolder,
    ModelStore,
    Offload,
    PlacementOption,
    RunDir,
)

if TYPE_CHECKING:
    from runtime.decoder import Decoder
    from runtime.inspect.page.content import Content
    from runtime.serve.generator import Generator

KEY = "ENGRAM_API_KEY"
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


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
    cache: CacheSize = "",
    model: ModelFolder = None,
    store: ModelStore = None,
    run: RunDir = DEFAULT_RUN,
) -> None:
    """Serve completions over HTTP, as OpenAI's API has them, and at / a page that looks inside.

    POST /v1/completions and /v1/chat/completions, GET /v1/models; GET /health, /ready and /metrics. Where the environment has
    ENGRAM_API_KEY, requests have to name it.

    Example: engram serve --offload

    Example: engram serve --port 9000 --placement disk --cache 2GiB --run runs/mine

    Example: engram serve --model Qwen3.8-Flash-Next --store tables.zarr
    """
    from engram_cli.generators import load_generator
    from engram_cli.options import chosen_cache, chosen_placement
    from engram_cli.output import note
    from runtime.inspect.page.router import page_router
    from runtime.serve.http_server import HttpServer
    from runtime.serve.server import build_app

    with _listen(host, port) as listener:
        where = chosen_placement(placement, offload or (model is not None and placement is None))
        cache_bytes = chosen_cache(cache, where)
        name, key = (model or run).resolve().name, os.environ.get(KEY, "")
        generator = load_generator(run, model, store, where, cache_bytes, best)
        app = build_app(generator, name, verify, key)
        if generator.placement:
            app.include_router(page_router(name, lambda: _content(generator, run, best, model, store)))
        if host not in LOOPBACK and not key:
            note(f"warning: anybody who can reach {host} can use this server; {KEY} in the environment lets in who has the key")
        placed, kept = _placed(generator, where, cache_bytes), _kept(app.state.engine.decoder)
        note(f"serving {name}{placed} {kept} at http://{host}:{listener.getsockname()[1]}")
        HttpServer(app).serve_on(listener)


def _placed(generator: "Generator", where: str, cache_bytes: int) -> str:
    """What lies where, and what it costs."""
    from engram_cli.output import byte_text

    if generator.placement is None:
        return ", which has no memory and no tables to place, with"
    bound = f", of which at most {byte_text(cache_bytes)} in memory" if where == "disk" else ""
    return f" with its tables on {where} ({byte_text(generator.placement.table_bytes)}{bound}) and"


def _kept(decoder: "Decoder") -> str:
    """What the keys and values of texts take."""
    from engram_cli.output import byte_text
    from runtime.model.pages import PAGE

    taken = byte_text(decoder.pages.nbytes) if decoder.shares_pages else "room"
    return f"{taken} for {decoder.most_pages * PAGE:,} tokens of texts"


def _content(generator: "Generator", run: Path, best: bool, model: Path | None, store: Path | None) -> "Content":
    """What the page looks into: the same model as is served, of a run another copy of it."""
    import torch

    from runtime.inspect.page.content import RunContent
    from runtime.inspect.page.library_content import LibraryContent
    from runtime.run import Run
    from runtime.serve.library_generator import LibraryGenerator
    from runtime.trained_run import TrainedRun

    if model is None:
        return RunContent.open(Run(run), TrainedRun.load(Run(run), torch.device("cpu"), best))
    assert isinstance(generator, LibraryGenerator), "a --model is the library's"
    return LibraryContent.open(model, store, generator.model, generator.turn)


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
