"""`engram bench sharded` measures what it says: steps of processes that share rows, and what they send."""

import shutil
from pathlib import Path

from engram_cli.bench.train_speed import with_rows
from runtime.run import Run
from tests.commands import document, engram, refused


def test_figures_of_every_way(tmp_path: Path, trained_run: Run) -> None:
    run = Run(shutil.copytree(trained_run.folder, tmp_path / "run"))
    sizes = ("--processes", 2, "--rows", 3000, "--peer-rows", 1000, "--rounds", 1)
    content = document("bench", "sharded", "--run", run.folder, *sizes)
    assert content["processes"] == [2]
    sharded, dense = (content["ways"][name] for name in ("sharded_2", "dense_2"))
    assert sharded["sent_bytes"] == sharded["least_bytes"] > 0
    spec = with_rows(run.config(), run, 1000).spec
    assert spec is not None
    assert dense["sent_bytes"] == spec.total_rows * content["row_bytes"], "twice a half of the gradients"
    for way in (sharded, dense):
        assert way["step_millisec"] > 0
        assert way["peak_bytes"] > 50 << 20


def test_processes_that_cannot_share_a_batch_are_refused(trained_run: Run) -> None:
    done = engram("bench", "sharded", "--run", trained_run.folder, "--processes", 7, "--rows", 3000)
    refused(done, 2, "which 7 processes cannot share")
