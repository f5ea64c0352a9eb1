"""Questions to a small trained model of Kenya and what is around it."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from kgclip.cli import app
from kgclip.graph import KnowledgeGraph, load_graph
from kgclip.models import open_model
from kgclip.query import add_entity, encode_graph, predict_tails, search_entities
from kgclip.tables import GraphError, build_tables
from kgclip.training import train

CONFIG = """
graph = "{folder}/graph"
output = "{folder}/run"
model = {{ graph_layers = 1 }}
batches = {{ num_pairs = 8, num_triples = 16, graph = true, refresh_every = 10 }}
trainer = {{ steps = 60, warmup_steps = 5 }}

[losses]
contrastive = {{}}
e2e = {{}}
graph_fact = {{}}
fusion = {{}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, openmoji_tables, openmoji_folder):
    folder = tmp_path_factory.mktemp("query")
    graph = KnowledgeGraph(openmoji_tables, openmoji_folder).select(
        relations=["borders", "capital", "currency", "region"], seeds=["country:KE"], hops=2
    )
    graph.save(folder / "graph")
    (folder / "config.toml").write_text(CONFIG.format(folder=folder))
    train(folder / "config.toml")
    return folder


@pytest.fixture(scope="module")
def opened(folder):
    return open_model(folder / "run")


def test_search_by_text_and_by_picture(folder, opened):
    graph = load_graph(folder / "graph")
    found = search_entities(opened, graph, text="Kenya", k=3)
    assert found["label"][0] == "Kenya"
    assert found["score"].is_sorted(descending=True)
    assert "Kenya capital Nairobi" in found["facts"][0].to_list()
    row = graph.images["entity"].to_list().index(graph.entity_id("country:KE"))
    seen = search_entities(opened, graph, image=graph.image_path(row), k=graph.num_entities)
    assert seen["label"].to_list().index("Kenya") < graph.num_entities / 10
    with pytest.raises(ValueError, match="either a text or a picture"):
        search_entities(opened, graph)


def test_predicted_tails_and_what_they_rest_on(folder, opened):
    graph = load_graph(folder / "graph")
    answers = predict_tails(opened, graph, "Kenya", "region", k=3)
    assert {answer.label for answer in answers} <= {"Africa", "Americas", "Asia", "Europe"}
    scores = [answer.score for answer in answers]
    assert scores == sorted(scores, reverse=True)
    assert answers[0].label == "Africa"
    assert answers[0].known
    assert "Africa" in [label for label, _ in answers[0].because]
    # What is left out of the explanation is left out of the graph: the slow way agrees.
    label, fall = answers[0].because[0]
    labels, kenya = graph.labels(), graph.entity_id("country:KE")
    other = [labels.index(label)]
    between = pl.col("head").is_in([kenya, *other]) & pl.col("tail").is_in([kenya, *other])
    tables = graph.tables.__class__(
        **{**graph.tables.frames(), "triples": graph.triples.filter(~between)}
    )
    without = encode_graph(opened, KnowledgeGraph(tables))[kenya]
    with torch.no_grad():
        fact = opened.model.encode_text(opened.tokenizer(["region Africa"]), normalize=True)[0]
    assert answers[0].score - float(fact @ without) == pytest.approx(fall, abs=1e-4)
    plain = predict_tails(opened, graph, "country:KE", "region", k=3, explain=False)
    assert [answer.label for answer in plain] == [answer.label for answer in answers]
    assert plain[0].because == ()


def test_a_new_entity_is_usable_at_once(folder, opened):
    """As good as if it had always been there: Kenya taken out, and in again as a new entity."""
    graph = load_graph(folder / "graph")
    kenya, labels = graph.entity_id("country:KE"), graph.labels()
    own = graph.triples.filter(pl.col("head") == kenya)
    around = (pl.col("head") == kenya) | (pl.col("tail") == kenya)
    frames = {**graph.tables.frames(), "triples": graph.triples.filter(~around)}
    without = KnowledgeGraph(build_tables(frames), graph.root)
    frames["triples"] = pl.concat([frames["triples"], own])
    wanted = encode_graph(opened, KnowledgeGraph(build_tables(frames), graph.root))[kenya]
    names = graph.relations["name"]
    facts = [(names[r], labels[t]) for r, t in own.select("relation", "tail").iter_rows()]
    assert len(facts) >= 2
    texts = without.texts.with_columns(
        text=pl.when(entity=kenya).then(pl.lit("Old")).otherwise("text")
    )
    without = KnowledgeGraph(
        build_tables({**without.tables.frames(), "texts": texts}), without.root
    )
    more = add_entity(without, "Kenya", facts)
    assert more.num_entities == graph.num_entities + 1
    torch.testing.assert_close(encode_graph(opened, more)[-1], wanted)
    answers = predict_tails(opened, more, "Kenya", "region", k=3)
    assert {label for answer in answers for label, _ in answer.because} <= {t for _, t in facts}
    assert (answers[0].label, answers[0].known) == ("Africa", True)
    with pytest.raises(GraphError, match="is in the graph"):
        add_entity(graph, "Kenya", facts)
    with pytest.raises(GraphError, match="region"):
        add_entity(graph, "Atlantis", [("regoin", "Africa")])


def test_a_new_entity_on_the_command_line(folder):
    given = ["predict", str(folder / "run"), "Atlantis", "currency", "--graph",
             str(folder / "graph")]  # fmt: skip
    facts = ["--fact", "borders=Kenya", "--fact", "region=Africa"]
    result = CliRunner().invoke(app, [*given, *facts, "--json"])
    assert result.exit_code == 0, result.output
    answers = json.loads(result.stdout)
    assert answers
    assert not any(answer["known"] for answer in answers)
    assert {label for label, _ in answers[0]["because"]} == {"Kenya", "Africa"}
    assert CliRunner().invoke(app, [*given, "--fact", "borders"]).exit_code == 2


def test_unknown_names_suggest_the_nearest(folder, opened):
    graph = load_graph(folder / "graph")
    with pytest.raises(GraphError, match="capital"):
        predict_tails(opened, graph, "Kenya", "capitol")
    with pytest.raises(GraphError, match="country:KE"):
        predict_tails(opened, graph, "country:KEE", "capital")
    with pytest.raises(ValueError, match="k: 0"):
        predict_tails(opened, graph, "Kenya", "capital", k=0)


def test_commands(folder):
    graph, run = ["--graph", str(folder / "graph")], str(folder / "run")
    runner = CliRunner()
    result = runner.invoke(app, ["search", run, "Kenya", *graph, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["label"] == "Kenya"
    result = runner.invoke(app, ["predict", run, "Kenya", "region", *graph])
    assert result.exit_code == 0, result.output
    assert "Africa" in result.stdout.splitlines()[0]
    file = folder / "entities.parquet"
    result = runner.invoke(app, ["embed", run, *graph, "-o", str(file)])
    assert result.exit_code == 0, result.output
    vectors = pl.read_parquet(file)
    assert vectors["name"].to_list() == load_graph(folder / "graph").entities["name"].to_list()
    lengths = np.linalg.norm(vectors["embedding"].to_numpy(), axis=1)
    assert np.allclose(lengths, 1, atol=1e-5)
    assert runner.invoke(app, ["embed", run, "-o", str(file)]).exit_code == 2


def test_embeddings_of_texts_and_pictures_with_any_model(folder):
    (folder / "texts.txt").write_text("Kenya\nUganda\n")
    file, runner = folder / "vectors.parquet", CliRunner()
    pictures = load_graph(folder / "graph").image_path(0).parent
    for option, place in (("--texts", folder / "texts.txt"), ("--images", pictures)):
        command = ["embed", "kgclip-effnet-lite0", option, str(place), "-o", str(file)]
        result = runner.invoke(app, command)
        assert result.exit_code == 0, result.output
        assert pl.read_parquet(file)["embedding"].dtype == pl.Array(pl.Float32, 128)
