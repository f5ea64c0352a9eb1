"""The task end to end: a config, a run, its held-out figures; and the benchmark's own configs."""

import json
from pathlib import Path

import pytest

from kgclip import read_graph
from kgclip.link_prediction import LinkPredictionConfig, evaluate, train, triples_by_split
from kgclip.settings import check_settings, read_settings
from kgclip.tables import GraphError
from tests.pretended_gpu import PretendedGPU

CONFIGS = Path(__file__).parent.parent / "benchmarks" / "configs"


@pytest.fixture
def config(tmp_path):
    """A circle of 12 towns in both directions; every fourth step back is asked."""
    data = tmp_path / "circle"
    data.mkdir()
    steps = [(f"t{i}", "next", f"t{(i + 1) % 12}") for i in range(12)]
    back = [(tail, "previous", head) for head, _, tail in steps]
    parts = {"train": steps + back[3:], "valid": back[:1], "test": back[1:3]}
    for part, rows in parts.items():
        (data / f"{part}.txt").write_text("".join("\t".join(row) + "\n" for row in rows))
    file = tmp_path / "circle.toml"
    file.write_text(
        f'task = "link_prediction"\ngraph = "{data}"\noutput = "{tmp_path / "run"}"\n'
        "model = { channels = 16 }\n"
        "training = { epochs = 60, batch_size = 16, validate_every = 20, n3 = 0.1 }\n"
    )
    return file


def test_a_config_becomes_a_run_and_its_figures(config, tmp_path):
    run = train(config)
    figures = evaluate(run)
    assert figures["both/mrr"] > figures["baseline/mrr"]
    assert figures["both/count"] == 4
    assert figures["cpu_seconds"] > 0
    assert "relation/previous/mrr" in figures
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [one["epoch"] for one in log if "valid_mrr" in one] == [20, 40, 60]
    again = evaluate(train(config, {"output": str(tmp_path / "again")}))
    del figures["cpu_seconds"], again["cpu_seconds"]
    assert again == figures
    other = evaluate(train(config, {"training.seed": 5, "output": str(tmp_path / "other")}))
    assert other != figures


def test_on_a_gpu_the_figures_are_the_same(config, tmp_path):
    expected = evaluate(train(config))
    with PretendedGPU() as gpu:
        found = evaluate(train(config, {"output": str(tmp_path / "far"), "device": "cuda"}))
        assert gpu.seen > 1000
    del found["cpu_seconds"], expected["cpu_seconds"]
    assert found == expected


def test_triples_without_a_split_are_trained_on(tmp_path):
    (tmp_path / "facts.tsv").write_text("a\tr\tb\n")
    parts = triples_by_split(read_graph(tmp_path / "facts.tsv"))
    assert {name: part.tolist() for name, part in parts.items()} == {"train": [[0, 0, 1]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"graph": "nowhere"}, "nowhere: no such file or folder"),
        ({"model.chanels": 3}, r"unknown key 'model\.chanels'; did you mean 'channels'"),
        ({"training.epoch": 3}, r"unknown key 'training\.epoch'; did you mean 'epochs'"),
        ({"training.epochs": 0}, "epochs: 0 given, at least 1 expected"),
        ({"model.scoring": "transh"}, "'transh' given"),
    ],
)
def test_mistakes_are_named(config, change, message):
    with pytest.raises(ValueError, match=message):
        train(config, change)


def test_nothing_held_out_is_said(config, tmp_path):
    file = tmp_path / "facts.tsv"
    file.write_text("a\tr\tb\n")
    run = train(config, {"graph": str(file)})
    with pytest.raises(GraphError, match="no triple has the split test"):
        evaluate(run)
    with pytest.raises(GraphError, match="train from the start"):
        train(config, resume="auto")


@pytest.mark.parametrize("name", ["umls", "nations", "codex_s", "wn18rr"])
def test_the_experiments_carry_their_claim(name):
    file = CONFIGS / f"{name}.toml"
    config = check_settings(LinkPredictionConfig, read_settings(file), str(file))
    assert {"source", "licence", "published", "bar", "expected"} <= config.claim.keys()
    assert config.claim["expected"]["both/mrr"] >= config.claim["bar"]
    assert not Path(config.graph).is_absolute()
