"""`engram hash` writes the spec it used, and every command reads it back."""

from pathlib import Path

from hashing.spec import HashSpec
from runtime.run import Run
from tests.commands import document, engram, refused


def test_a_saved_spec_goes_back_through_the_option(tmp_path: Path, vocab_run: Run) -> None:
    call, out, again = ("hash", "def parse", "--run", vocab_run.folder), tmp_path / "spec.json", tmp_path / "again.json"
    named = document(*call, "--spec", "engram-demo", "--save-spec", out)
    assert document(*call, "--spec", out, "--save-spec", again) == named
    assert again.read_bytes() == out.read_bytes()
    assert HashSpec.load(out).vocab_fingerprint == vocab_run.vocab().fingerprint


def test_a_file_that_is_there_is_kept(tmp_path: Path, vocab_run: Run) -> None:
    out = tmp_path / "spec.json"
    out.write_text("mine")
    call = ("hash", "x", "--run", vocab_run.folder, "--spec", "tiny", "--save-spec", out)
    refused(engram(*call), 1, "would be overwritten")
    assert out.read_text() == "mine"
    assert engram(*call, "--force").returncode == 0
    HashSpec.load(out)
