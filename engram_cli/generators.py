"""What `engram generate` and `engram serve` take text from: a trained run, or a folder of Hugging Face's."""

from pathlib import Path
from typing import TYPE_CHECKING

from engram_cli.options import DEFAULT_RUN

if TYPE_CHECKING:
    from runtime.placement.placement import PlacementName
    from runtime.serve.generator import Generator


def load_generator(
    run: Path,
    model: Path | None,
    store: Path | None,
    placement: "PlacementName",
    cache_bytes: int,
    best: bool,
    memory: bool = True,
) -> "Generator":
    """Raises UsageError for options that do not go together, and EngramError as the loaders do."""
    from hashing.base.errors import UsageError
    from runtime.run import Run
    from runtime.serve.library_generator import LibraryGenerator
    from runtime.serve.run_generator import RunGenerator

    if model is None:
        if store is not None:
            raise UsageError("--store is for a --model; a run reads its own tables", hint="leave it out")
        return RunGenerator.load(Run(run), placement, memory, best, cache_bytes)
    for given, option in ((run != DEFAULT_RUN, "--run"), (best, "--best"), (not memory, "--no-memory")):
        if given:
            raise UsageError(
                f"--model and {option} are both given, but {option} is for a trained run", hint="leave one of them out"
            )
    return LibraryGenerator.load(model, placement, store, cache_bytes)


def has_memory(generator: "Generator") -> bool:
    """Whether the model has a memory, be it suppressed or not."""
    from runtime.serve.run_generator import RunGenerator

    return not isinstance(generator, RunGenerator) or generator.model.has_memory
