"""`--model`: completions and chat from a `transformers` model are what the library itself would say, over HTTP too."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from fastapi.testclient import TestClient

from runtime.ablation import gate_held, without_convolution
from runtime.decoder import Decoded
from runtime.huggingface import load, varied
from runtime.run import Run
from runtime.serve.completion import Completion
from runtime.serve.library_generator import LibraryGenerator
from runtime.serve.sampler import Sampling
from runtime.serve.server import build_app
from tests.commands import document, engram, refused

GOLDEN = Path(__file__).parent / "golden" / "qwen_tiny"
TEMPLATE = (
    "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('never no') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXTS = ["def parse(text):", "x", "import os\n\n\nclass A:\n    pass\n" * 4]


@pytest.fixture(scope="module")
def folder(trained_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint with a tokenizer, which it lacks, and a chat template."""
    found = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(GOLDEN, found)
    shutil.copy(trained_run.tokenizer_path, found / "tokenizer.json")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    (found / "tokenizer_config.json").write_text(json.dumps(settings))
    return found


@pytest.fixture(scope="module")
def own(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def generator(folder: Path) -> LibraryGenerator:
    return LibraryGenerator.load(folder, "disk")


def greedy(own: Any, prompt: list[int], tokens: int) -> list[int]:
    """The library's own greedy continuation, up to an end-of-text token."""
    ids = torch.tensor([prompt])
    found = own.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)[0, len(prompt) :]
    return [token for token in found.tolist() if token != own.generation_config.eos_token_id]


def told(generator: LibraryGenerator, ids: list[int]) -> str:
    """The text of token ids, without the beginning of a character that never ends."""
    text: str = generator.tokenizer.decode(ids, skip_special_tokens=False)
    return text.rstrip("\ufffd")


@pytest.mark.parametrize("text", TEXTS)
def test_greedy_text_is_the_library_s(generator: LibraryGenerator, own: Any, text: str) -> None:
    prompt = generator.encode(text)
    assert list(generator.token_ids(prompt, Sampling(max_tokens=20))) == greedy(own, prompt, 20)


def test_the_command(folder: Path, own: Any, generator: LibraryGenerator) -> None:
    made = document("generate", TEXTS[0], "--max-tokens", 12, "--model", folder, "--cache", "1MiB")
    ids = greedy(own, generator.encode(TEXTS[0]), 12)
    assert (made["text"], made["placement"]) == (told(generator, ids), "disk")


def test_the_shadow_check(generator: LibraryGenerator) -> None:
    """In every step of several texts; and rows of another place are found."""
    engine, shadow = generator.engine(), generator.shadow(1)
    assert shadow is not None
    engine.decoder.watch = shadow
    for text in TEXTS:
        engine.add(Completion.of(generator.encode(text), Sampling(max_tokens=6), engine.tokenizer))
    while not engine.is_idle:
        engine.step()
    assert shadow.checked > 300
    assert shadow.mismatches == 0
    spec, wrong = shadow.spec, np.zeros((1, 2, shadow.spec.columns), np.int64)
    (layer,) = spec.layers
    shadow([(Decoded([5]), [6, 7])], {layer: wrong}, lambda _: None)
    assert shadow.mismatches == 2


@pytest.fixture(scope="module")
def client(generator: LibraryGenerator) -> Iterator[TestClient]:
    with TestClient(build_app(generator, "tiny")) as client:
        yield client


def test_completions_together(client: TestClient, generator: LibraryGenerator, own: Any) -> None:
    body = {"model": "tiny", "prompt": TEXTS, "max_tokens": 10, "temperature": 0, "logprobs": 1}
    choices = client.post("/v1/completions", json=body).json()["choices"]
    for text, choice in zip(TEXTS, choices, strict=True):
        prompt = generator.encode(text)
        ids = greedy(own, prompt, 10)
        assert choice["text"] == told(generator, ids)
        with torch.no_grad():
            logits = own(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        expected = [float(logits[len(prompt) - 1 + number, token]) for number, token in enumerate(ids)]
        assert choice["logprobs"]["token_logprobs"] == pytest.approx(expected, abs=1e-4)


def test_chat_has_the_template_s_prompt(client: TestClient, generator: LibraryGenerator, own: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "def"}]}]
    body = {"model": "tiny", "messages": messages, "max_completion_tokens": 8, "temperature": 0}
    answer = client.post("/v1/chat/completions", json=body).json()
    text = "<system>Be brief.\n<user>def\n<assistant>"
    prompt = generator.tokenizer.encode(text, add_special_tokens=False).ids
    expected = told(generator, greedy(own, prompt, 8))
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": expected, "refusal": None}
    assert answer["usage"]["prompt_tokens"] == len(prompt)


def test_a_chat_is_streamed(client: TestClient) -> None:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 6, "seed": 1, "n": 2}
    asked |= {"logprobs": True, "top_logprobs": 2}
    whole = client.post("/v1/chat/completions", json=asked).json()["choices"]
    with client.stream("POST", "/v1/chat/completions", json=asked | {"stream": True}) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    for index, choice in enumerate(whole):
        own = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(piece["delta"].get("content", "") for piece in own) == choice["message"]["content"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        entries = [entry for piece in own if piece["logprobs"] for entry in piece["logprobs"]["content"]]
        assert entries == choice["logprobs"]["content"]
        assert all(1 <= len(entry["top_logprobs"]) <= 2 for entry in entries), "tokens of one text are one"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.role"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 70_000}]}, "messages"),
        ({"messages": [{"role": "user", "content": "no"}]}, "messages"),
        ({"tools": []}, "tools"),
    ],
)
def test_what_no_chat_can_be(client: TestClient, change: dict[str, Any], param: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2} | change
    answer = client.post(
        "/v1/chat/completions", content=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--run", "r"], 2, "--model and --run are both given"),
        (["--best"], 2, "--model and --best are both given"),
        (["--cache", "1MiB", "--placement", "host"], 2, "--cache is for tables on disk, but they are on host"),
        (["--store", "none.zarr"], 1, "none.zarr"),
    ],
)
def test_options_that_do_not_go_together(folder: Path, options: list[str], code: int, message: str) -> None:
    refused(engram("generate", "x", "--model", folder, *options), code, message)


def test_a_store_without_a_model(tmp_path: Path) -> None:
    refused(engram("generate", "x", "--store", tmp_path), 2, "--store is for a --model")


def test_folders_that_are_no_such_model(folder: Path, tmp_path: Path) -> None:
    refused(engram("serve", "--port", 0, "--model", tmp_path / "none"), 1, "no such checkpoint folder")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text('{"model_type": "llama"}')
    refused(
        engram("generate", "x", "--model", plain),
        1,
        "is of the model type llama, expected qwen4_exp\nhint: .* whose n-gram table transformers knows",
    )
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "tokenizer.json").unlink()
    refused(engram("generate", "x", "--model", bare), 1, "has no tokenizer.json")


def test_without_the_library(folder: Path) -> None:
    script = (
        "import sys; sys.modules['transformers'] = None\nfrom engram_cli.main import main\n"
        f"main(['generate', 'x', '--model', {str(folder)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "need transformers 5.23 or newer" in done.stderr
    assert "hint: pip install 'engram-tables[huggingface]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_text_s_gates_and_losses(folder: Path, own: Any, generator: LibraryGenerator) -> None:
    """Gates are what the library multiplies its values by; losses are those of its logits, and without the memory's output."""
    view = document("inspect", "text", TEXTS[0], "--model", folder)
    ids = [7, *generator.tokenizer.encode(TEXTS[0], add_special_tokens=False).ids]
    seen: dict[str, torch.Tensor] = {}
    (memory,) = (module for module in own.modules() if type(module).__name__ == "Qwen4ExpTextPLELayer")
    hooks = [
        memory.value_proj.register_forward_hook(lambda _, __, out: seen.update(value=out)),
        memory.norm_conv.register_forward_hook(lambda _, given, __: seen.update(gated=given[0])),
    ]
    with torch.no_grad():
        logits = own(torch.tensor([ids])).logits[0].log_softmax(-1)
        gates = torch.tensor(view["gates"][str(memory.layer_idx)])
        gated = seen["gated"][0, 1:].unflatten(-1, (memory.hc_count, memory.hidden_size))
        torch.testing.assert_close(gates[:, :, None] * seen["value"][0, 1:, None], gated, rtol=1e-4, atol=1e-5)
        hooks.append(memory.register_forward_hook(lambda _, __, out: torch.zeros_like(out)))
        without = own(torch.tensor([ids])).logits[0].log_softmax(-1)
    for hook in hooks:
        hook.remove()
    for key, likelihoods in (("loss_nats", logits), ("suppressed_nats", without)):
        expected = [-float(likelihoods[place, token]) for place, token in enumerate(ids[1:])]
        assert view[key][0] is None
        assert view[key][1:] == pytest.approx(expected[1:], abs=1e-4)
    assert view["difference_nats"] != 0
    told = engram("inspect", "text", TEXTS[0], "--model", folder)
    assert told.returncode == 0, told.stderr
    refused(engram("inspect", "text", "x", "--model", folder, "--best"), 2, "--model and --best are both given")


def test_ablations(folder: Path, own: Any, generator: LibraryGenerator, tmp_path: Path) -> None:
    """As the library computes them with the memory's output, or some columns of what it reads, at zero."""
    (tmp_path / "text.txt").write_text(TEXTS[0])
    found = document(
        "probe", "ablate", "--model", folder, "--corpus", tmp_path / "text.txt", "--only", "suppressed", "--only", "order"
    )
    ids = generator.tokenizer.encode(TEXTS[0], add_special_tokens=False).ids
    inputs, targets = torch.tensor([[7, *ids[:-1]]]), torch.tensor(ids)
    (memory,) = (module for module in own.modules() if type(module).__name__ == "Qwen4ExpTextPLELayer")

    def nats() -> float:
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(own(inputs).logits[0], targets))

    assert found["nats"] == pytest.approx(nats(), abs=1e-4)
    differences = {each["name"]: each["nats"] for each in found["ablations"]}
    assert list(differences) == ["suppressed", "order:2", "order:3"]
    hook = memory.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    assert differences["suppressed"] == pytest.approx(nats(), abs=1e-4)
    hook.remove()

    def without_bigrams(_: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[..., : out.shape[-1] // 2] = 0  # heads of 2-grams come first, as many as of 3-grams
        return out

    hook = memory.ple_embedding.register_forward_hook(without_bigrams)
    assert differences["order:2"] == pytest.approx(nats(), abs=1e-4)
    hook.remove()
    told = engram("probe", "ablate", "--model", folder, "--corpus", tmp_path / "text.txt", "--only", "mean-row")
    assert "mean-row" in told.stdout, told.stderr
    refused(engram("probe", "ablate", "--model", folder), 2, "a --model has no corpus of its own")
    refused(
        engram("probe", "ablate", "--model", folder, "--corpus", tmp_path, "--only", "none"), 2, "there is no ablation 'none'"
    )


def test_a_gate_is_held_and_a_convolution_is_left_out(folder: Path, own: Any) -> None:
    """As the library computes them with its sigmoid or its convolution replaced."""
    model = load(folder, "device")
    (memory,) = (module for module in own.modules() if type(module).__name__ == "Qwen4ExpTextPLELayer")
    inputs = torch.tensor([[7, *range(20, 60)]])
    sigmoid, forward = torch.sigmoid, memory.forward  # in which nothing but the gate is a sigmoid
    plain = own(inputs).logits
    for opening in (0.0, 0.3, 0.5, 1.0):
        with torch.no_grad(), varied(model, gate_held(opening)):
            found = model(inputs).logits
        with torch.no_grad(), pytest.MonkeyPatch.context() as patch:

            def held(*arguments: Any, opening: float = opening, **named: Any) -> torch.Tensor:
                with pytest.MonkeyPatch.context() as inner:
                    inner.setattr(torch, "sigmoid", lambda x: torch.full_like(x, opening))
                    return forward(*arguments, **named)

            patch.setattr(memory, "forward", held)
            expected = own(inputs).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, plain, rtol=1e-4, atol=1e-5)
    assert torch.sigmoid is sigmoid
    with torch.no_grad(), varied(model, without_convolution()):
        found = model(inputs).logits
    hook = memory.conv1d.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    with torch.no_grad():
        torch.testing.assert_close(found, own(inputs).logits, rtol=1e-4, atol=1e-5)
    hook.remove()
    assert not torch.allclose(found, plain, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(model(inputs).logits, plain)  # as it was, when nobody looks
