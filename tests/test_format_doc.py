"""The example of docs/format.md: the manifest's checksum, made by a program that shares nothing with ours."""

import json
import re
from pathlib import Path

import pytest
import torch

from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from tests.checkpoints import qwen

PAGE = Path(__file__).parents[1] / "docs" / "format.md"


def test_the_example_finds_the_checksum_of_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = read_checkpoint(qwen(tmp_path / 'n-gram "é\t😀"', torch.float8_e4m3fn, base=50).folder)
    Import(checkpoint, checkpoint.encoding).run(tmp_path / "tables.zarr")
    text = (tmp_path / "tables.zarr" / "zarr.json").read_text("ascii")
    assert r'"name":"n-gram \"\u00e9\t\ud83d\ude00\""' in text
    assert json.loads(text)["attributes"]["engram"]["layers"]["1"]["scale"] == 0.0123291015625
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall("# → (.*)", example) == ["True"]
