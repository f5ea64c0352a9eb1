"""A wrong config is told where and how."""

import pytest

from kgclip.config import check_config, load_config
from kgclip.tables import GraphError

VALUES = {"graph": "g", "output": "o", "trainer": {"steps": 5}}


def test_defaults_and_overrides(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('graph = "g"\noutput = "o"\n[trainer]\nsteps = 5\n')
    config = load_config(file, {"trainer.lr": 0.5, "losses.e2e.weight": 2.0})
    assert (config.trainer.steps, config.trainer.lr) == (5, 0.5)
    assert config.losses["e2e"].weight == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": {}}, "unknown key 'modle'; did you mean 'model'"),
        ({"trainer": {"steps": 5, "lrr": 1}}, r"'trainer\.lrr'; did you mean 'lr'"),
        ({"batches": {"num_pair": 1}}, "did you mean 'num_pairs'"),
        ({"losses": {"e2ee": {}}}, "unknown loss 'e2ee'; did you mean 'e2e'"),
        ({"losses": {"e2e": {"wieght": 1}}}, "did you mean 'weight'"),
        ({"trainer": {"steps": "many"}}, r"trainer\.steps.*given: 'many'"),
        ({"trainer": {"steps": 0}}, "at least 1 expected"),
        (
            {"model": {"triple_encoder": "smal"}},
            "unknown triple_encoder 'smal'; did you mean 'small'",
        ),
        ({"model": {"triple_options": {"width": 64}}}, "without triple_encoder"),
        (
            {"model": {"triple_encoder": "small", "triple_options": {"widht": 64}}},
            "unknown triple_options key 'widht'; did you mean 'width'",
        ),
        (
            {"model": {"triple_encoder": "small", "triple_options": {"width": 63}}},
            "no multiple of num_heads",
        ),
        ({"model": {"unlocked_groups": 1, "lock_image": False}}, "without lock_image"),
        ({"model": {"lora": {}, "lock_text": True}}, "both towers are locked"),
        ({"model": {"lora": {}, "unlocked_groups": 1}}, "adapters or weights"),
        ({"model": {"lora": {"rnak": 2}}}, "did you mean 'rank'"),
        ({"model": {"triple_encoder": "small"}, "batches": {"chunk_size": 2}}, "at once"),
        ({"batches": {"chunk_size": 0}}, "chunk_size: 0 given, at least 1"),
        ({"batches": {"graph": True}}, "needs model.graph_layers"),
        ({"evaluation": {"classses": "x"}}, "did you mean 'classes'"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(GraphError, match=message):
        check_config({**VALUES, **change})


def test_config_files_that_cannot_be_read(tmp_path):
    with pytest.raises(GraphError, match="no such config"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("graph = ")
    with pytest.raises(GraphError, match=r"broken\.toml: not a TOML file"):
        load_config(tmp_path / "broken.toml")
    (tmp_path / "ok.toml").write_text('graph = "g"\noutput = "o"\n')
    with pytest.raises(GraphError, match="'graph' is a value"):
        load_config(tmp_path / "ok.toml", {"graph.name": 1})


def test_config_survives_json():
    config = check_config({**VALUES, "batches": {"repeats": {"country": 2}}})
    assert check_config(config.model_dump(mode="json")) == config


def test_a_preset_can_be_changed():
    model = {"triple_encoder": "paper", "triple_options": {"width": 64}}
    options = check_config({**VALUES, "model": model}).model.triple_encoder_options()
    assert (options.width, options.num_layers) == (64, 4)
    assert check_config(VALUES).model.triple_encoder_options() is None
