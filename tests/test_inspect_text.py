"""`engram inspect text`: losses are those of `engram eval`, gates those of the model watched directly."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from engram_cli.inspect.strip import BARS, PIPED_COLUMNS
from hashing.base.errors import UsageError
from runtime.inspect.text import MOST_TOKENS, view_text
from runtime.model.points import watching
from runtime.run import Run
from runtime.trained_run import TrainedRun
from tests.commands import Done, document, engram, refused

TEXT = "def parse(self, name):\n\treturn self.näme\n"
LAYER = 1


@pytest.fixture(scope="module")
def trained(trained_run: Run) -> TrainedRun:
    return TrainedRun.load(trained_run, torch.device("cpu"))


def inspected(run: Run, *arguments: object) -> Done:
    return engram("inspect", "text", *arguments, "--run", run.folder)


@pytest.mark.parametrize("times", [1, 9])
def test_losses_are_those_of_eval(trained_run: Run, trained: TrainedRun, times: int) -> None:
    """Of a text in one window, and of one in many that overlap."""
    text = TEXT * times
    found = document("inspect", "text", text, "--run", trained_run.folder)
    judged = document("eval", text, "--tokens", "--run", trained_run.folder)["token_logprobs"]
    assert (len(judged) > 2 * trained.config.recipe.length) == (times > 1)
    assert found["tokens"] == [token["token"] for token in judged]
    assert found["token_ids"] == [token["token_id"] for token in judged]
    for key, logprob in (("loss_nats", "logprob"), ("suppressed_nats", "suppressed_logprob")):
        assert found[key][0] is None
        assert found[key][1:] == pytest.approx([-token[logprob] for token in judged[1:]], abs=1e-5)
    differences = [without - own for own, without in zip(found["loss_nats"][1:], found["suppressed_nats"][1:], strict=True)]
    assert found["difference_nats"] == pytest.approx(sum(differences))
    assert found["layers"] == [LAYER]
    assert list(found["gates"]) == [str(LAYER)]
    assert [len(streams) for streams in found["gates"][str(LAYER)]] == [1] * len(judged)


@torch.no_grad()
def test_losses_and_gates_are_the_models_own(trained: TrainedRun) -> None:
    """The text after an end-of-text token, once with the memory, once with none."""
    view, lookup = view_text(trained, TEXT), trained.lookup("device")
    assert lookup is not None
    ids = np.array([[trained.vocab.end_of_text_id, *view.token_ids]], np.int64)
    gates: list[torch.Tensor] = []
    with watching(trained.model, lambda name, value: gates.append(value) if name.endswith("gate") else None):
        logits = trained.model.logits(torch.from_numpy(ids), lookup.vectors(ids))
    for losses, computed in (
        (view.loss_nats, logits),
        (view.suppressed_nats, trained.model.logits(torch.from_numpy(ids), None)),
    ):
        nats = torch.nn.functional.cross_entropy(computed[0, :-1], torch.from_numpy(ids[0, 1:]), reduction="none")
        assert losses[0] is None
        assert list(losses[1:]) == pytest.approx(nats[1:].tolist(), abs=1e-5)
    assert [streams[0] for streams in view.gates[LAYER]] == pytest.approx(gates[0].flatten()[1:].tolist(), abs=1e-6)
    assert "".join(view.tokens) != ""
    assert view.effect_nats[0] is None


def test_a_file_is_read_as_text(trained_run: Run, tmp_path: Path) -> None:
    expected = document("inspect", "text", TEXT, "--run", trained_run.folder)
    plain, packed = tmp_path / "a.py", tmp_path / "b.txt.gz"
    plain.write_text(TEXT)
    packed.write_bytes(gzip.compress(TEXT.encode()))
    for path in (plain, packed):
        assert document("inspect", "text", "--file", path, "--run", trained_run.folder) == expected


def test_the_strip_is_readable_without_colour(trained_run: Run, trained: TrainedRun) -> None:
    """Each token's tenth stands under its first letter, and bars as far as the token goes."""
    done = inspected(trained_run, TEXT * 3)
    view = view_text(trained, TEXT * 3)
    assert "\x1b" not in done.stdout
    shown = [block.splitlines() for block in done.stdout.split("\n\n") if "layer 1" in block]
    assert len(shown) > 1
    assert all(len(line) <= PIPED_COLUMNS for block in shown for line in block)
    indent = len("layer 1") + 2
    assert "".join(block[0][indent:] for block in shown) == (TEXT * 3).replace("\n", "⏎").replace("\t", "⇥").replace("ä", "��")
    gates = "".join(block[1][indent:] for block in shown)
    tenths = [min(int(10 * streams[0]), 9) for streams in view.gates[LAYER]]
    assert [int(digit) for digit in re.findall(r"\d", gates)] == tenths
    assert set(gates) <= {*"0123456789", *BARS}
    marks = "".join(block[2][indent:].ljust(len(block[1]) - indent) for block in shown)
    places = [match.start() for match in re.finditer(r"\d", gates)]
    effects = [marks[place] for place in places]
    assert effects == [" " if nats is None or abs(nats) < 0.1 else "+-"[nats < 0] for nats in view.effect_nats]


def test_the_table_has_every_token_and_the_sums(trained_run: Run, trained: TrainedRun) -> None:
    view, done = view_text(trained, TEXT), inspected(trained_run, TEXT)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == [*map(repr, view.tokens), "sum"]
    assert rows[0][1:4] == ["–"] * 3
    assert [row[4] for row in rows[:-1]] == [f"{streams[0]:.2f}" for streams in view.gates[LAYER]]
    own, without, saved = (float(cell) for cell in rows[-1][1:4])
    assert saved == pytest.approx(without - own, abs=2e-4)
    assert saved == pytest.approx(view.difference_nats, abs=1e-4)
    assert "not what a model trained without one would reach" in done.stderr
    assert "windows" not in done.stderr
    assert f"read in windows of {trained.config.recipe.length}" in inspected(trained_run, TEXT * 9).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([""], 2, "the text is empty"),
        ([], 2, "says what to look at, found neither"),
        ([TEXT, "--file", "x.txt"], 2, "found both"),
        (["--file", "nowhere.txt"], 1, "nowhere.txt"),
        (["--file", "empty.txt"], 1, "empty.txt|no text"),
        (["--file", "two.jsonl"], 2, "two.jsonl holds several texts, expected one"),
        ([TEXT, "--best", "--run", "nothing"], 1, "nothing has no"),
    ],
)
def test_bad_calls(
    trained_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    Path("two.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (TEXT, "import os")))
    run = [] if "--run" in arguments else ["--run", trained_run.folder]
    refused(engram("inspect", "text", *arguments, *run), code, message)


def test_a_text_of_too_many_tokens_is_refused(trained: TrainedRun) -> None:
    with pytest.raises(UsageError, match=r"the text has [\d,]+ tokens, more than the 16,384 that are shown"):
        view_text(trained, "a\n" * (MOST_TOKENS + 1))


def test_one_token(trained_run: Run) -> None:
    found = document("inspect", "text", "a", "--run", trained_run.folder)
    assert (found["loss_nats"], found["suppressed_nats"], found["difference_nats"]) == ([None], [None], 0)
    assert inspected(trained_run, "a").returncode == 0
