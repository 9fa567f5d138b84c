"""Settings reach every field of a run's configuration, lead back from it, and are refused by name where they are wrong."""

import tomllib
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engram_cli.configuring import chosen_config
from hashing.base.errors import EngramError, UsageError
from hashing.named_specs import named_spec
from hashing.spec import HashSpec
from runtime.config import Recipe, RunConfig
from runtime.model.config import MemoryConfig, ModelConfig
from runtime.run import Run
from runtime.settings import ADDRESSING, MemorySettings, ModelSettings, Settings
from runtime.settings_file import SECTIONS, all_settings, to_toml
from runtime.train.choice import chosen_settings
from runtime.train.presets import NANO, PRESETS, TINY, preset
from tests.vocabularies import raw_vocab

GOLDEN = Path(__file__).parent / "golden"
VOCAB = raw_vocab(300)

# Another value for every setting, each allowed beside the tiny preset's others.
OTHERS: dict[str, tuple[str, Any]] = {
    "precision": ("bfloat16", "bfloat16"),
    "memory": ("none", None),
    "recipe.row_place": ("disk", "disk"),
    "model.hidden": ("64", 64),
    "model.blocks": ("4", 4),
    "model.heads": ("4", 4),
    "model.ffn": ("100", 100),
    "model.tied": ("true", True),
    "model.rope_base": ("5e5", 5e5),
    "model.kv_heads": ("1", 1),
    "model.qk_norm": ("true", True),
    "model.streams": ("4", 4),
    "model.stream_form": ("single_pass", "single_pass"),
    "model.experts": ("4", 4),
    "model.experts_per_token": ("1", 1),
    "model.shared_experts": ("0", 0),
    "model.expert_ffn": ("64", 64),
    "model.dense_blocks": ("0", 0),
    "model.router_scale": ("2.5", 2.5),
    "memory.layers": ("1", (1,)),
    "memory.orders": ("2,3,4", (2, 3, 4)),
    "memory.heads": ("2", 2),
    "memory.rows_per_head": ("1_000", 1000),
    "memory.head_dim": ("16", 16),
    "memory.gate": ("sigmoid", "sigmoid"),
    "memory.conv": ("false", False),
    "memory.kernel": ("3", 3),
    "memory.conv_zero_init": ("false", False),
    "memory.bias": ("true", True),
    "memory.pad_token": ("7", 7),
    "memory.boundary_token": ("5", 5),
    "memory.rows_multiple": ("128", 128),
    "memory.seed": ("9", 9),
    "memory.seeding": ("splitmix64", "splitmix64"),
    "recipe.steps": ("7", 7),
    "recipe.batch": ("3", 3),
    "recipe.length": ("32", 32),
    "recipe.learning_rate": ("1e-3", 1e-3),
    "recipe.row_rate_factor": ("0", 0.0),
    "recipe.weight_decay": ("0", 0.0),
    "recipe.warmup_share": ("0.5", 0.5),
    "recipe.row_std": ("0.1", 0.1),
    "recipe.evaluations": ("2", 2),
    "recipe.seed": ("3", 3),
    "recipe.minutes": ("2.5", 2.5),
    "recipe.until_loss": ("3", 3.0),
    "recipe.balance_rate": ("0", 0.0),
    "recipe.sample_prompt": ("def f(x): # a=b\n", "def f(x): # a=b\n"),
    "recipe.sample_tokens": ("0", 0),
    "recipe.compile": ("true", True),
    "recipe.float8_projection": ("true", True),
    "recipe.optimizer": ("adamw", "adamw"),
    "recipe.row_rule": ("sinkhorn", "sinkhorn"),
    "recipe.row_momentum": ("0.5", 0.5),
    "recipe.decay_share": ("0.2", 0.2),
    "recipe.accumulate": ("2", 2),
    "recipe.checkpoint_steps": ("7", 7),
    "recipe.kept": ("3", 3),
    "recipe.rows": ("equal", "equal"),
}


def value_of(found: Settings, name: str) -> Any:
    """The value of a setting by its name with its section."""
    section, _, inner = name.rpartition(".")
    return getattr(getattr(found, section) if section else found, inner)


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every field of a configuration, those within others by their paths; a hash spec's too."""
    found = {}
    for field in fields(config):
        value, path = getattr(config, field.name), f"{prefix}{field.name}"
        found |= leaves(value, f"{path}.") if hasattr(value, "__dataclass_fields__") else {path: value}
    return found


@pytest.fixture(params=["nano", "tiny"])
def golden(request: pytest.FixtureRequest) -> RunConfig:
    return RunConfig.load(GOLDEN / f"run_config_{request.param}_format_2.json")


def test_a_preset_is_what_it_was_but_for_its_optimisers(golden: RunConfig) -> None:
    now = replace(golden.recipe, optimizer="muon", row_rule="rowwise_adam", row_momentum=0.0)
    assert golden.recipe.optimizer == "adamw", "of a file that says nothing of it"
    assert preset(golden.preset, VOCAB, "float32") == replace(golden, recipe=now)


def test_the_default_preset_is_addressed_as_a_run_without_training_is() -> None:
    assert preset("tiny", VOCAB, "float32").spec == named_spec("tiny").spec(VOCAB)


@pytest.mark.parametrize("name", OTHERS)
def test_set_reaches_it(name: str) -> None:
    text, value = OTHERS[name]
    found = chosen_settings(sets=[f"{name}={text}"])
    assert value_of(found, name) == value != value_of(TINY, name)


def test_every_setting_has_another_value_here() -> None:
    assert set(OTHERS) == set(all_settings()) - {"preset"}


def test_every_field_of_a_configuration_follows_from_settings() -> None:
    """But for the preset's name and the vocabulary's facts, no field is the same whatever is set."""
    before = leaves(preset("tiny", VOCAB, "float32"))
    changed = set()
    for name, (text, _) in OTHERS.items():
        if name != "memory":
            after = leaves(chosen_settings(sets=[f"{name}={text}"]).resolve(VOCAB, "float32"))
            changed |= {path for path, value in after.items() if value != before[path]}
    of_the_vocabulary = {"spec.canonical_size", "spec.vocab_fingerprint", "model.vocab_size"}
    assert set(before) - changed == {"preset", *of_the_vocabulary}


def test_every_field_that_settings_name_is_one_of_theirs() -> None:
    assert set(ADDRESSING) < {field.name for field in fields(MemorySettings)}
    assert {field.name for field in fields(ModelSettings)} == {f.name for f in fields(ModelConfig)} - {"vocab_size", "memory"}
    module = {field.name for field in fields(MemoryConfig)} - {"layers", "width", "dilation"}
    assert {field.name for field in fields(MemorySettings)} == {*ADDRESSING, *module, "head_dim"}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    "sets", [[], ["memory=none"], ["recipe.steps=none", "recipe.minutes=3"], ["recipe.sample_prompt=\x7f\t\"'\\é😀"]]
)
def test_toml_holds_all_settings_each_with_a_comment(tmp_path: Path, name: str, sets: list[str]) -> None:
    chosen = chosen_settings(preset=name, sets=sets)
    text, path = to_toml(chosen), tmp_path / "my.toml"
    path.write_text(text)
    assert chosen_settings(config=path) == chosen
    values = [line for line in text.splitlines() if line and not line.startswith("[")]
    assert len(values) == len(all_settings()) - (len(asdict(TINY)["memory"]) if chosen.memory is None else 1)
    assert all("  # " in line for line in values)


numbers = st.floats(1e-300, 1e18)


@given(
    rate=numbers,
    decay=st.floats(0, 1e9),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_value_comes_back_from_toml(rate: float, decay: float, text: str, seed: int) -> None:
    recipe = Recipe(5, 2, 3, rate, weight_decay=decay, sample_prompt=text, seed=seed)
    content = tomllib.loads(to_toml(replace(NANO, recipe=recipe)))["recipe"]
    assert (content["learning_rate"], content["weight_decay"]) == (rate, decay)
    assert (content["sample_prompt"], content["seed"]) == (text, seed)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.sets(st.integers(0, 5), min_size=1).map(lambda found: tuple(sorted(found))),
    order=st.integers(2, 6),
    heads=st.integers(1, 5),
    rows=st.integers(2, 10_000),
    head_dim=st.integers(1, 64),
    tokens=st.tuples(*[st.none() | st.integers(0, 511)] * 2),
    seeding=st.sampled_from(["numpy", "splitmix64"]),
)
def test_settings_lead_to_a_configuration_and_back(
    vocab_run: Run, layers: Any, order: int, heads: int, rows: int, head_dim: int, tokens: Any, seeding: Any
) -> None:
    """What comes back may name another token of the same canonical id, and a prime for the rows: the configuration is equal."""
    vocab = vocab_run.vocab()
    assert TINY.memory
    shape = {
        "layers": layers,
        "orders": tuple(range(2, order + 1)),
        "heads": heads,
        "rows_per_head": rows,
        "head_dim": head_dim,
    }
    memory = replace(TINY.memory, **shape, pad_token=tokens[0], boundary_token=tokens[1], seeding=seeding)
    config = replace(TINY, model=replace(TINY.model, blocks=6), memory=memory).resolve(vocab, "bfloat16")
    assert config.layers == layers
    assert config.head_dim == head_dim
    assert Settings.of(config, vocab).resolve(vocab, "float32") == config


def test_a_later_change_wins(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('preset = "nano"\n[recipe]\nsteps = 5\nbatch = 7\nlength = 8\n[model]\nhidden = 36\nheads = 6')
    found = chosen_settings(config=path, sets=["recipe.length=9", "recipe.batch=2"], options={"recipe.batch": 3})
    assert (found.recipe.steps, found.recipe.length, found.recipe.batch) == (5, 9, 3)
    assert (found.preset, found.model) == ("nano", replace(NANO.model, hidden=36, heads=6))
    assert found.memory == NANO.memory
    in_time = chosen_settings(config=path, sets=["recipe.minutes=2"])
    assert (in_time.recipe.steps, in_time.recipe.minutes) == (None, 2)
    again = chosen_settings(config=path, sets=["recipe.minutes=2"], options={"recipe.steps": 4})
    assert (again.recipe.steps, again.recipe.minutes) == (4, None)


def test_the_control_of_a_configuration_is_the_same_without_memory(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(to_toml(TINY))
    config = chosen_config(VOCAB, config=path, no_memory=True, seed=4)
    assert (config.spec, config.model.memory, config.layers) == (None, None, ())
    assert config.model == replace(preset("tiny", VOCAB, "float32").model, memory=None)
    assert config.recipe == replace(TINY.recipe, seed=4)


@pytest.mark.parametrize("name", ["engram-demo", "FILE"])
def test_a_spec_given_outright_decides_the_addresses(tmp_path: Path, name: str) -> None:
    spec = named_spec("engram-demo").spec(VOCAB)
    spec.save(tmp_path / "spec.json")
    place = str(tmp_path / "spec.json") if name == "FILE" else name
    config = chosen_config(VOCAB, spec=place, sets=["model.blocks=16", "memory.head_dim=4"])
    assert config.spec == spec
    assert config.model.memory == MemoryConfig((1, 15), spec.columns * 4, 3)
    assert config.head_dim == 4


def test_a_spec_that_follows_from_no_settings_has_none() -> None:
    config = preset("nano", VOCAB, "float32")
    assert config.spec
    for spec in (replace(config.spec, seed=None, seeding=None), other_primes(config.spec)):
        with pytest.raises(EngramError, match="no settings express the hash spec") as refused:
            Settings.of(replace(config, spec=spec), VOCAB)
        assert "--save-spec" in refused.value.hint


def other_primes(spec: HashSpec) -> HashSpec:
    """The same with the first two heads' tables the other way round."""
    ((first, second, *others), *orders), *layers = spec.primes
    return replace(spec, primes=(((second, first, *others), *orders), *layers))


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"sets": ["model.block=4"]}, "no setting 'model.block'", "did you mean model.blocks?"),
    ({"sets": ["blocks=4"]}, "no setting 'blocks'", "did you mean model.blocks?"),
    ({"sets": ["seed=4"]}, "no setting 'seed'", "did you mean memory.seed or recipe.seed?"),
    ({"sets": ["lerning_rate=4"]}, "no setting 'lerning_rate'", "did you mean recipe.learning_rate?"),
    ({"sets": ["qqq=4"]}, "no setting 'qqq'", "engram config shows them all"),
    ({"sets": ["=4"]}, "no setting ''", "engram config"),
    ({"sets": ["model.blocks"]}, 'expected KEY=VALUE, found no "="', "as in --set"),
    ({"sets": ["preset=nano"]}, "a preset is what settings are changed of", "--preset nano"),
    ({"sets": ["model.blocks=four"]}, "model.blocks is 'four', expected int", "Transformer blocks"),
    ({"sets": ["model.blocks=2.0"]}, "'2.0', expected int", ""),
    ({"sets": ["model.blocks=none"]}, "'none', expected int", ""),
    ({"sets": ["memory.conv=yes"]}, "'yes', expected true or false", ""),
    ({"sets": ["memory.gate=tanh"]}, "'tanh', expected signed_sqrt or sigmoid or none", ""),
    ({"sets": ["memory.layers=0,x"]}, "memory.layers is 'x', expected int", ""),
    ({"sets": ["memory=5"]}, "memory is '5', expected none", ""),
    ({"sets": ["model.blocks=0"]}, "model.blocks is 0, expected at least 1", "1 to 1,024"),
    ({"sets": [f"recipe.seed={'9' * 30}"]}, "expected at most 9,223,372,036,854,775,807", ""),
    ({"sets": [f"recipe.seed={'9' * 9999}"]}, "expected int", ""),
    ({"sets": ["recipe.learning_rate=nan"]}, "recipe.learning_rate is nan, expected a finite number", ""),
    ({"sets": ["recipe.learning_rate=inf"]}, "expected a finite number", ""),
    ({"sets": ["recipe.learning_rate=0"]}, "expected above 0", ""),
    ({"sets": ["recipe.warmup_share=1.5"]}, "expected at most 1", ""),
    ({"sets": ["recipe.minutes=-1"]}, "recipe.minutes is -1.0, expected above 0", ""),
    ({"sets": ["recipe.until_loss=nan"]}, "recipe.until_loss is nan", ""),
    ({"sets": ["recipe.sample_prompt=\udc80"]}, "which is no text", ""),
    ({"sets": ["recipe.steps=none"]}, "expected one of the two, found neither", "set one of them"),
    ({"sets": ["recipe.steps=4", "recipe.minutes=2"]}, "recipe.steps and recipe.minutes are both set", "leave one out"),
    (
        {"options": {"recipe.steps": 4, "recipe.minutes": 2.0}},
        "--steps, --minutes: recipe.steps and recipe.minutes",
        "leave one",
    ),
    ({"sets": ["model.blocks=3", "model.blocks=4"]}, "model.blocks twice, as 3 and as 4", "leave one"),
    ({"sets": ["memory.orders=3,4"]}, "memory.orders are 3,4, expected 2 to N", "memory.orders to 2,3,4"),
    ({"sets": ["memory.orders=2,9"]}, "memory.orders are 2,9", "memory.orders to 2,3,4,5,6"),
    ({"sets": ["memory.orders="]}, "memory.orders are empty", "memory.orders to 2"),
    ({"sets": ["memory.layers=2,0"]}, "memory.layers are 2,0, expected each block once", "memory.layers to 0,2"),
    ({"sets": ["memory.layers="]}, "memory.layers is empty", "--no-memory"),
    ({"sets": ["model.hidden=102", "model.heads=4"]}, "102 does not split into 4 heads", "to 96 or 104, or model.heads to 3"),
    ({"sets": ["model.hidden=9"]}, "9 does not split into 2 heads", "model.hidden to 8 or 12"),
    ({"sets": ["model.heads=4", "model.kv_heads=3"]}, "4 do not share 3 heads of keys and values evenly", "one of 1,2,4"),
    ({"sets": ["model.experts=2", "model.experts_per_token=3"]}, "is 3, but there are 2 experts", "to 2 at most"),
    ({"sets": ["memory=none", "memory.bias=true"]}, "memory.bias is set, but the memory is left out", "leave one"),
    ({"no_memory": True, "sets": ["memory.heads=2"]}, "--no-memory leaves out what --set memory.heads is about", "leave one"),
    ({"no_memory": True, "spec": "tiny"}, "--no-memory leaves out what --spec tiny is about", "leave one"),
    ({"spec": "tiny", "sets": ["memory=none"]}, "--spec tiny is given, but the memory is left out", "leave one"),
    *(
        ({"spec": "tiny", "sets": [f"memory.{name}={OTHERS[f'memory.{name}'][0]}"]}, "--spec tiny decides that", "leave one")
        for name in ADDRESSING
    ),
    ({"preset": "huge"}, 'no training preset is called "huge"', "the names are"),
]


@pytest.mark.parametrize(("call", "message", "hint"), WRONG)
def test_a_wrong_call_is_refused_by_name(call: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        chosen_settings(**call)
    assert message in str(refused.value)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"sets": ["memory.layers=0,7"]}, "memory.layers are 0,7, but the model's blocks are 0 to 1"),
        ({"sets": ["model.blocks=1"]}, "memory.layers are 0,1, but the model's blocks are 0 to 0"),
        ({"spec": "engram-demo"}, "the layers of the spec are 1,15, but the model's blocks are 0 to 1"),
    ],
)
def test_layers_beyond_the_blocks_are_refused(call: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        chosen_config(VOCAB, **call)
    assert "model.blocks to" in refused.value.hint


@pytest.mark.parametrize("name", ["pad_token", "boundary_token"])
def test_a_token_that_the_vocabulary_lacks_is_refused(name: str) -> None:
    assert chosen_config(VOCAB, sets=[f"memory.{name}=299"]).spec
    with pytest.raises(UsageError, match=f"memory.{name} is 300, but the vocabulary has 300 tokens"):
        chosen_config(VOCAB, sets=[f"memory.{name}=300"])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[model]\nblock = 3", UsageError, "my.toml: there is no setting 'model.block'"),
        ("blocks = 3", UsageError, "my.toml: there is no setting 'blocks'"),
        ("[model]\nblocks = '3'", UsageError, "my.toml: model.blocks is '3', expected int"),
        ("[model]\nblocks = true", UsageError, "model.blocks is True, expected int"),
        ("[memory]\nlayers = 0", UsageError, "memory.layers is 0, expected a list of int"),
        ("model = 3", UsageError, "there is no setting 'model'"),
        ("memory = 3", UsageError, "memory is 3, expected none"),
        ("preset = 3", UsageError, "preset is 3, expected str"),
        ("preset = 'huge'", UsageError, "no training preset"),
        ("[recipe]\nsteps = 3\nminutes = 2", UsageError, "my.toml: recipe.steps and recipe.minutes are both set"),
        ("[recipe]\nlearning_rate = nan", UsageError, "recipe.learning_rate is nan"),
        ("[model", EngramError, "my.toml is not TOML"),
        ("\xff", EngramError, "my.toml is not TOML"),
        (None, EngramError, "no such file"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str | None, error: type[EngramError], message: str) -> None:
    path = tmp_path / "my.toml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(error, match=message):
        chosen_settings(config=path)


def test_a_preset_beside_a_file_of_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('preset = "nano"')
    assert chosen_settings(preset="nano", config=path) == NANO
    with pytest.raises(UsageError, match=r"--preset tiny is given, but .* changes the preset nano"):
        chosen_settings(preset="tiny", config=path)
    path.write_text('memory = "none"')
    with pytest.raises(UsageError, match=r"--set: memory\.bias is set, but the memory has been left out"):
        chosen_settings(config=path, sets=["memory.bias=true"])


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_has_a_meaning(section: str) -> None:
    assert all(found.setting.meaning for name, found in all_settings().items() if name.startswith(section))


@pytest.mark.parametrize("make", [lambda: Recipe(None, 1, 1, 1.0), lambda: Recipe(3, 1, 1, 1.0, minutes=1.0)])
def test_a_recipe_is_for_steps_or_for_minutes(make: Callable[[], Recipe]) -> None:
    with pytest.raises(UsageError, match=r"recipe\.steps and recipe\.minutes .* expected one of the two"):
        make()


def test_a_configuration_has_a_spec_and_a_memory_or_neither(golden: RunConfig) -> None:
    without = replace(golden, spec=None, model=replace(golden.model, memory=None))
    assert without.layers == ()
    with pytest.raises(EngramError, match="there is a hash spec, but the model has no memory"):
        replace(without, spec=golden.spec)
    with pytest.raises(EngramError, match="there is memory, but there is no hash spec"):
        replace(without, model=golden.model)


def test_a_configuration_without_memory_is_saved_and_loaded(tmp_path: Path, golden: RunConfig) -> None:
    recipe = replace(golden.recipe, steps=None, minutes=2.5, until_loss=3.0, sample_prompt="x")
    config = replace(golden, spec=None, model=replace(golden.model, memory=None), recipe=recipe)
    config.save(tmp_path / "config.json")
    assert RunConfig.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    "call", [{"spec": "deepseek-v4.1", "sets": ["model.blocks=15"]}, {"sets": ["memory.rows_per_head=1000000000"]}]
)
def test_tables_beyond_the_machines_memory_are_refused(call: dict[str, Any]) -> None:
    with pytest.raises(EngramError, match=r"rows of .* take .* [GT]iB in training, of") as refused:
        chosen_config(VOCAB, **call)
    assert "memory.rows_per_head" in refused.value.hint
