"""Every parameter has one role in the optimiser, by its name and not by its shape."""

import pytest
from torch import nn

from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.train.optimisers import parameter_groups
from runtime.train.presets import preset


@pytest.mark.parametrize("name", ["nano", "tiny"])
def test_matrices_decay_and_gains_do_not(trained_run: Run, name: str) -> None:
    model = LanguageModel(preset(name, trained_run.vocab(), "float32").model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = ({names[id(parameter)] for parameter in group} for group in parameter_groups(model))
    assert not decayed & others
    assert decayed | others == set(names.values())
    assert {"blocks.1.memory.key_norm", "blocks.1.memory.query_norm", "blocks.1.memory.conv_norm", "norm.weight"} <= others
    assert {"blocks.1.memory.projection.weight", "embedding.weight", "head.weight", "blocks.0.ffn.down.weight"} <= decayed
    assert not [name for name in decayed if "norm" in name]


def test_a_parameter_without_a_role_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="new_matrix has no role"):
        parameter_groups(nn.ParameterDict({"new_matrix": nn.Parameter()}))
