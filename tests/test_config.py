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
