"""A saved graph is the graph, the same bytes twice, and never half of one."""

import json
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.graph import KnowledgeGraph, load_graph
from kgclip.storage import MANIFEST, load_tables, save_tables
from kgclip.tables import SCHEMAS, GraphError, Origin, build_tables

NAMES = st.one_of(
    st.text(min_size=1, max_size=5), st.sampled_from(["_:b0", "ünï", "a b", "http://x/y"])
)


CELLS = {
    pl.String: st.text(max_size=4),
    pl.Boolean: st.booleans(),
    pl.Float64: st.floats(allow_nan=False),
    pl.Array: st.lists(st.floats(0, 99, width=32), min_size=4, max_size=4),
}
NEVER_NULL = ("type", "value", "text", "kind", "path", "url")


@st.composite
def rows(draw, table, num_entities, num_relations):
    """A few rows of a table that refers to entities; ids in range, other columns null or any."""
    columns = {}
    relational = "relation" in SCHEMAS[table]
    possible = num_entities and (num_relations or not relational)
    count = draw(st.integers(0, 8 if table == "triples" else 3)) if possible else 0
    for name, dtype in SCHEMAS[table].items():
        if name in ("entity", "head", "tail"):
            cell = st.integers(0, max(0, num_entities - 1))
        elif name == "relation":
            cell = st.integers(0, max(0, num_relations - 1))
        else:
            required = name in NEVER_NULL and table != "entities"
            cell = CELLS[type(dtype)] if required else st.none() | CELLS[type(dtype)]
        values = draw(st.lists(cell, min_size=count, max_size=count))
        columns[name] = pl.Series(values, dtype=dtype)
    return columns


@st.composite
def graphs(draw):
    """Any graph: unicode, blank nodes, duplicates, self loops, isolated entities, no triples."""
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    relations = draw(st.lists(NAMES, unique=True, max_size=3))
    kind, label = (
        [draw(st.none() | st.sampled_from(["x", "Río", "http://x/T"])) for _ in named]
        for named in (names, relations)
    )
    own = ("types", "triples", "literals", "texts", "images", "links")
    return build_tables(
        {
            "entities": {
                "name": pl.Series(names, dtype=pl.String),
                "type": pl.Series(kind, dtype=pl.String),
            },
            "relations": {
                "name": pl.Series(relations, dtype=pl.String),
                "label": pl.Series(label, dtype=pl.String),
            },
            **{table: draw(rows(table, len(names), len(relations))) for table in own},
        },
        (Origin("made", "0" * 64),),
    )


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_round_trip_is_equal_and_repeats_to_the_byte(tmp_path_factory, tables):
    folder = tmp_path_factory.mktemp("graph")
    save_tables(tables, folder / "a")
    save_tables(tables, folder / "b")
    again = load_tables(folder / "a")
    assert again.origins == tables.origins
    for name, frame in tables.frames().items():
        assert frame.equals(again.frames()[name]), name
        file = f"{name}.parquet"
        assert (folder / "a" / file).read_bytes() == (folder / "b" / file).read_bytes()
    assert (folder / "a" / MANIFEST).read_bytes() == (folder / "b" / MANIFEST).read_bytes()


@pytest.fixture
def graph(tmp_path):
    (tmp_path / "source" / "images").mkdir(parents=True)
    (tmp_path / "source" / "images" / "a.png").write_bytes(b"picture")
    tables = build_tables(
        {"entities": {"name": ["a"]}, "images": {"entity": [0], "path": ["images/a.png"]}}
    )
    return KnowledgeGraph(tables, tmp_path / "source")


def test_pictures_are_copied_and_stay_where_they_were(graph, tmp_path):
    graph.save(tmp_path / "one")
    load_graph(tmp_path / "one").save(tmp_path / "two")
    for folder in ("source", "one", "two"):
        assert (tmp_path / folder / "images" / "a.png").read_bytes() == b"picture"
    one = load_graph(tmp_path / "one")
    one.save(tmp_path / "one")  # in its own place
    assert load_graph(tmp_path / "one").image_path(0).read_bytes() == b"picture"


def test_missing_picture_is_named(graph, tmp_path):
    (tmp_path / "source" / "images" / "a.png").unlink()
    with pytest.raises(GraphError, match=r"a\.png: cannot be copied"):
        graph.save(tmp_path / "one")
    assert not (tmp_path / "one").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "source"], "nothing half-written"


def test_other_folders_are_refused(graph, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not delete")
    with pytest.raises(GraphError, match="is no graph"):
        graph.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def change(folder, key, value):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, key: value}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "triples.parquet").unlink(), r"triples\.parquet: missing"),
        (lambda f: (f / "texts.parquet").write_bytes(b"x"), r"texts\.parquet: its bytes"),
        (lambda f: (f / MANIFEST).unlink(), "no graph"),
        (lambda f: (f / MANIFEST).write_text("{"), "damaged"),
        (lambda f: change(f, "origins", [{"name": "a", "sha": ""}]), "damaged"),
        (lambda f: change(f, "sha256", "x"), "damaged"),
        (lambda f: change(f, "sha256", None), "damaged"),
        (lambda f: (f / MANIFEST).write_text('{"schema_version": 99}'), "schema version 99"),
    ],
)
def test_damage_is_named(graph, tmp_path, damage, message):
    folder = graph.save(tmp_path / "one")
    damage(folder)
    with pytest.raises(GraphError, match=message):
        load_graph(folder)


def test_absent_folder_is_said(tmp_path):
    with pytest.raises(GraphError, match="no such folder"):
        load_graph(tmp_path / "absent")


def test_manifest_says_counts_and_no_paths(graph, tmp_path):
    text = (graph.save(tmp_path / "one") / MANIFEST).read_text()
    assert json.loads(text)["counts"]["images"] == 1
    assert str(tmp_path) not in text


ENDLESS = """
import sys
from kgclip.graph import KnowledgeGraph
n = 0
while True:
    n += 1
    rows = [(f"e{i}", "r", f"e{i + n}") for i in range(2000)]
    KnowledgeGraph.from_triples(rows).save(sys.argv[1])
    print(n, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.029])
def test_a_kill_leaves_a_whole_graph(tmp_path, delay):
    folder = tmp_path / "graph"
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()  # one graph is there; the next is being written
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert load_graph(folder).num_triples == 2000


KILLED = """
import os, signal, sys
import kgclip.storage as storage
from kgclip.graph import KnowledgeGraph
if sys.argv[3] == "renames":
    storage._exchange = lambda one, other: False
steps = int(sys.argv[2])
def counted(function):
    def call(*arguments, **options):
        global steps
        if not steps:
            os.kill(os.getpid(), signal.SIGKILL)
        steps -= 1
        return function(*arguments, **options)
    return call
for owner, name in ((os, "replace"), (storage, "_exchange"), (storage.shutil, "rmtree")):
    setattr(owner, name, counted(getattr(owner, name)))
KnowledgeGraph.from_triples([("new", "r", "new")]).save(sys.argv[1])
print("done")
"""


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_kill_before_any_step_of_the_change_leaves_a_graph(tmp_path, way):
    left = set()
    for steps in range(9):
        folder = tmp_path / str(steps) / "graph"
        KnowledgeGraph.from_triples([("old", "r", "old")]).save(folder)
        command = [sys.executable, "-c", KILLED, str(folder), str(steps), way]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0 or run.returncode == -signal.SIGKILL, run.stderr
        left.add(load_graph(folder).entities["name"][0])
        KnowledgeGraph.from_triples([("later", "r", "later")]).save(folder)
        assert load_graph(folder).entities["name"][0] == "later"
        assert not list(folder.parent.glob(".graph.old"))
        if run.stdout:
            break
    assert steps > 2
    assert left == {"old", "new"}
