"""`engram bench`: the figures in the documentation, measured on this machine."""

import typer

from engram_cli.bench.count import bench_count
from engram_cli.bench.decode import bench_decode
from engram_cli.bench.encode import bench_encode
from engram_cli.bench.gather import bench_gather
from engram_cli.bench.hash import bench_hash
from engram_cli.bench.offload import bench_offload
from engram_cli.bench.serve import bench_serve
from engram_cli.bench.sharded import bench_sharded
from engram_cli.bench.table import bench_table
from engram_cli.bench.train import bench_train

app = typer.Typer(help="Measure speed on this machine, beside the strongest form of each peer.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure speed on this machine, beside the strongest form of each peer."""


app.command("count")(bench_count)
app.command("decode")(bench_decode)
app.command("encode")(bench_encode)
app.command("gather")(bench_gather)
app.command("hash")(bench_hash)
app.command("offload")(bench_offload)
app.command("serve")(bench_serve)
app.command("sharded")(bench_sharded)
app.command("table")(bench_table)
app.command("train")(bench_train)
