"""The task end to end, and the counts of AIFB as R-GCN's paper has them."""

from pathlib import Path

import pytest

from kgclip.entity_classification import (
    EntityClassificationConfig,
    evaluate,
    load_data,
    train,
)
from kgclip.settings import check_settings, read_settings
from kgclip.tables import GraphError
from tests.pretended_gpu import PretendedGPU

AIFB = Path(__file__).parent.parent / "benchmarks" / "configs" / "aifb.toml"


@pytest.fixture
def config(tmp_path):
    """People of two houses, which are named by their class; every third is asked."""
    houses = ["red", "blue"]
    facts = [f"p{i}\tlives in\thouse {houses[i % 2]}\n" for i in range(18)]
    facts += [f"p{i}\tknows\tp{(i + 5) % 18}\n" for i in range(18)]
    (tmp_path / "facts.tsv").write_text("".join(facts))
    for part, wanted in (("train", (0, 1)), ("test", (2,))):
        rows = [f"{houses[i % 2]}\tp{i}\n" for i in range(18) if i % 3 in wanted]
        (tmp_path / f"{part}.tsv").write_text("".join(["house\twho\n", *rows]))
    file = tmp_path / "houses.toml"
    file.write_text(
        'task = "entity_classification"\n'
        f'graph = "{tmp_path / "facts.tsv"}"\noutput = "{tmp_path / "run"}"\n'
        f'[labels]\ntrain = "{tmp_path / "train.tsv"}"\ntest = "{tmp_path / "test.tsv"}"\n'
        'entity = "who"\nlabel = "house"\n'
    )
    return file


def test_a_config_becomes_a_run_and_its_figures(config, tmp_path):
    run = train(config)
    figures = evaluate(run)
    assert figures["accuracy"] == 1.0
    assert figures["baseline/accuracy"] == 0.5
    assert figures["count"] == 6
    assert (run / "log.jsonl").read_text().count("\n") == 50
    assert evaluate(train(config, {"output": str(tmp_path / "b")}))["accuracy"] == 1.0


def test_on_a_gpu_the_figures_are_the_same(config, tmp_path):
    expected = evaluate(train(config))
    with PretendedGPU() as gpu:
        found = evaluate(train(config, {"output": str(tmp_path / "far"), "device": "cuda"}))
        assert gpu.seen > 1000
    del found["cpu_seconds"], expected["cpu_seconds"]
    assert found == expected


def test_relations_that_tell_the_class_can_be_left_out(config):
    values = read_settings(config, {"without_relations": ["lives in"]})
    data = load_data(check_settings(EntityClassificationConfig, values, "config"))
    assert data.edge_index.shape == (2, 36)
    assert data.num_relations == 4  # ids stay
    assert data.class_names == ["blue", "red"]
    assert (data.num_train, len(data.entities)) == (12, 18)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels.entity": "whom"}, r"train\.tsv: no column 'whom'; did you mean 'who'"),
        ({"labels.train": "nowhere.tsv"}, r"nowhere\.tsv: no such file"),
        ({"without_relations": ["lives on"]}, "lives in"),
        ({"labels.entity": "house"}, "'red' is no entity"),
        ({"model.dropout": 1.0}, "dropout"),
    ],
)
def test_mistakes_are_named(config, change, message):
    with pytest.raises(GraphError, match=message):
        train(config, change)


def test_an_entity_is_labelled_once(config, tmp_path):
    with pytest.raises(GraphError, match="'p0' is labelled twice"):
        train(config, {"labels.test": str(tmp_path / "train.tsv")})
    (tmp_path / "holes.tsv").write_text("house\twho\nred\t\n")
    with pytest.raises(GraphError, match=r"holes\.tsv: an entity and a class on each line"):
        train(config, {"labels.test": str(tmp_path / "holes.tsv")})
    with pytest.raises(GraphError, match="trains from the start"):
        train(config, resume="auto")


def test_aifb_is_the_papers(shared_data, monkeypatch):
    monkeypatch.setenv("KGCLIP_DATA", str(shared_data))
    config = check_settings(EntityClassificationConfig, read_settings(AIFB), str(AIFB))
    assert {"source", "licence", "published", "bar", "expected"} <= config.claim.keys()
    data = load_data(config)
    assert (data.num_entities, data.edge_index.shape[1], data.num_relations) == (8285, 58086, 90)
    assert (data.num_train, len(data.entities), len(data.class_names)) == (140, 176, 4)
