"""`engram hash` writes the spec it used, and every command reads it back."""

import json
from pathlib import Path

from typer.testing import CliRunner

from engram_cli.main import app
from hashing.spec import HashSpec
from runtime.run import Run


def test_a_saved_spec_goes_back_through_the_option(tmp_path: Path, vocab_run: Run) -> None:
    out = tmp_path / "spec.json"

    def hashed(*arguments: str) -> object:
        done = CliRunner().invoke(app, ["hash", "def parse", "--run", str(vocab_run.folder), "--json", *arguments])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    named = hashed("--spec", "engram-demo", "--save-spec", str(out))
    assert hashed("--spec", str(out)) == named
    again = tmp_path / "again.json"
    hashed("--spec", str(out), "--save-spec", str(again))
    assert again.read_bytes() == out.read_bytes()
    assert HashSpec.load(out).vocab_fingerprint == vocab_run.vocab().fingerprint


def test_a_file_that_is_there_is_kept(tmp_path: Path, vocab_run: Run) -> None:
    out = tmp_path / "spec.json"
    out.write_text("mine")
    call = ["hash", "x", "--run", str(vocab_run.folder), "--spec", "tiny", "--save-spec", str(out)]
    refused = CliRunner().invoke(app, call)
    assert "would be overwritten" in str(refused.exception) + refused.output
    assert refused.exit_code != 0
    assert out.read_text() == "mine"
    assert CliRunner().invoke(app, [*call, "--force"]).exit_code == 0
    HashSpec.load(out)
