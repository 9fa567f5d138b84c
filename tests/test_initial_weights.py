"""How a model's weights start: as its docstring says, and the backbone's whether or not there is a memory."""

from dataclasses import replace

import pytest
import torch

from runtime.model.config import MemoryConfig, ModelConfig
from runtime.model.language_model import MEMORY_GAIN, LanguageModel

WITH = ModelConfig(vocab_size=300, hidden=64, blocks=3, heads=2, ffn=96, memory=MemoryConfig((0, 2), width=48, dilation=3))


def fresh(config: ModelConfig, seed: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return LanguageModel(config).state_dict()


@pytest.mark.parametrize("memory", [None, MemoryConfig((1,), width=8, dilation=2, conv_zero_init=False, bias=True)])
@pytest.mark.parametrize("tied", [False, True])
def test_the_control_without_memory_begins_from_the_same_backbone(memory: MemoryConfig | None, tied: bool) -> None:
    one, other = fresh(replace(WITH, tied=tied)), fresh(replace(WITH, tied=tied, memory=memory))
    backbone = [name for name in one if ".memory." not in name]
    assert len(backbone) > 10
    assert [name for name in other if ".memory." not in name] == backbone
    assert all(torch.equal(one[name], other[name]) for name in backbone)


def test_another_seed_gives_other_weights() -> None:
    one, other = fresh(WITH), fresh(WITH, 6)
    assert all(not torch.equal(one[name], other[name]) for name in one if one[name].std() > 0)


def test_every_matrix_is_normal_with_its_deviation() -> None:
    last = 0.02 / (2 * WITH.blocks) ** 0.5
    deviations = {"out": last, "down": last, "projection": MEMORY_GAIN / 48**0.5}
    matrices = {name: t for name, t in fresh(WITH).items() if t.ndim == 2 and min(t.shape) > 1}
    assert len(matrices) == 2 + 4 * 3 + 2
    for name, weights in matrices.items():
        expected = deviations.get(name.split(".")[-2], 0.02)
        assert weights.std().item() == pytest.approx(expected, rel=0.06), name
        assert abs(weights.mean().item()) < 0.06 * expected, name


def test_gains_start_at_one_and_the_convolution_at_zeros() -> None:
    found = fresh(WITH)
    assert all(torch.equal(t, torch.ones_like(t)) for name, t in found.items() if "norm" in name)
    assert all(not t.any() for name, t in found.items() if name.endswith("memory.conv"))
