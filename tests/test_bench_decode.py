"""The decoding benchmark decodes what generation does, in every placement, and leaves no process behind."""

import signal

from engram_cli.bench import decode
from runtime.run import Run
from runtime.serve.run_generator import RunGenerator
from runtime.serve.sampler import Sampling


def test_every_placement_decodes_the_same_tokens(trained_run: Run) -> None:
    generators = {name: RunGenerator.load(trained_run, name) for name in ("device", "host", "disk")}  # type: ignore[arg-type]
    found = {name: decode.decode(generator, 12) for name, generator in generators.items()}
    expected = list(generators["device"].token_ids(generators["device"].encode(decode.PROMPT), Sampling(max_tokens=12)))
    assert found["device"][: len(expected)] == expected
    assert found["host"] == found["disk"] == found["device"]


def test_a_busy_process_lives_as_long_as_its_block() -> None:
    with decode.busy_process() as process:
        assert process.poll() is None
    assert process.returncode == -signal.SIGKILL
