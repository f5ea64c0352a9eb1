"""Tables of triples, with and without header, weight and parts."""

import gzip

import polars as pl
import pytest

from kgclip.sources import read_graph
from kgclip.tables import GraphError


def write(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def rows(graph):
    entities, relations = graph.entities["name"], graph.relations["name"]
    columns = graph.triples.select("head", "relation", "tail", "weight").iter_rows()
    return [(entities[h], relations[r], entities[t], w) for h, r, t, w in columns]


@pytest.mark.parametrize(
    ("name", "text", "options", "expected"),
    [
        ("a.tsv", "x\tr\ty\n", {}, [("x", "r", "y", None)]),
        ("a.tsv.gz", "head\trelation\ttail\nx\tr\ty z\n", {}, [("x", "r", "y z", None)]),
        ("a.csv", 'x,r,"a, ""b""\nc",2\n', {}, [("x", "r", 'a, "b"\nc', 2.0)]),
        ("a.txt", "x\tr\ty\t0.5\n\nx\tr\ty\t1\n", {}, [("x", "r", "y", 0.5), ("x", "r", "y", 1.0)]),
        ("a.txt", "x r y\n", {"separator": " "}, [("x", "r", "y", None)]),
        ("a.tsv", "h\tr\tt\n", {"header": False}, [("h", "r", "t", None)]),
        ("a.tsv", "\ufeffx\tr\ty\r\n", {}, [("x", "r", "y", None)]),
        ("a.tsv", "x\u2028\x0b\tr\ty\n", {}, [("x\u2028\x0b", "r", "y", None)]),
        ("a.csv", "Subject,Object,Predicate\nx,y,r\n", {}, [("x", "r", "y", None)]),
        (
            "a.jsonl",
            '{"head": "x", "r": "r", "tail": 3}\n\n["y", "r", "x", 2]\n',
            {},
            [("x", "r", "3", None), ("y", "r", "x", 2.0)],
        ),
        ("a.ndjson.gz", '{"s": "x", "p": "r", "o": "y", "score": 1}\n', {}, [("x", "r", "y", 1.0)]),
        (
            "a.tsv",
            "r\tx\ty\n",
            {"columns": ["relation", "head", "tail"]},
            [("x", "r", "y", None)],
        ),
    ],
)
def test_layouts(tmp_path, name, text, options, expected):
    assert rows(read_graph(write(tmp_path, name, text), **options)) == expected


def test_parquet(tmp_path):
    frame = pl.DataFrame({"head": [1, 2], "relation": ["r", "s"], "tail": ["x", "y"]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert rows(read_graph(tmp_path / "a.parquet")) == [
        ("1", "r", "x", None), ("2", "s", "y", None)
    ]  # fmt: skip
    frame.drop("tail").write_parquet(tmp_path / "a.parquet")
    with pytest.raises(GraphError, match=r"a\.parquet: .*no tail"):
        read_graph(tmp_path / "a.parquet")
    write(tmp_path, "b.parquet", "PAR1")
    with pytest.raises(GraphError, match=r"b\.parquet: no Parquet file"):
        read_graph(tmp_path / "b.parquet")


def test_a_folder_with_texts_and_pictures(tmp_path):
    for name, text in {
        "train.tsv": "a\tr\tb\n", "dev.tsv": "b\tr\ta\n", "test.tsv": "a\ts\ta\n",
        "train.old.txt": "not\tread\n",
        "entity2text.txt": "a\tAy\nalone\tAlone", "entity2textlong.txt": "a\tThe first letter",
        "relation2text.txt": "r\tis beside\n", "entities.txt": "b\nsilent\n",
        "relations.txt": "r\ns\nunused\n", "entity2image.csv": "a,pictures/a.png\n",
    }.items():  # fmt: skip
        write(tmp_path, f"kg/{name}", text)
    graph = read_graph(tmp_path / "kg")
    assert graph.triples["split"].to_list() == ["train", "valid", "test"]
    assert graph.entities["name"].to_list() == ["a", "b", "silent", "alone"]
    assert graph.relations.select("name", "label").rows() == [
        ("r", "is beside"), ("s", None), ("unused", None)
    ]  # fmt: skip
    assert graph.texts.select("entity", "text", "kind").rows() == [
        (0, "Ay", "label"), (3, "Alone", "label"), (0, "The first letter", "description")
    ]  # fmt: skip
    assert graph.images.select("entity", "path").rows() == [(0, "pictures/a.png")]
    assert len(graph.origins) == 9


OPENKE = {
    "entity2id.txt": "3\nnew york\t1\n/m/a\t0\nalone\t2\n", "relation2id.txt": "1\n/r/in\t0\n",
    "train2id.txt": "1\n1 0 0\n", "test2id.txt": "1\n0\t1\t0\n",
}  # fmt: skip


def test_openke_ids_are_head_tail_relation(tmp_path):
    for name, text in OPENKE.items():
        write(tmp_path, name, text)
    graph = read_graph(tmp_path)
    assert rows(graph) == [("new york", "/r/in", "/m/a", None), ("/m/a", "/r/in", "new york", None)]
    assert graph.triples["split"].to_list() == ["train", "test"]
    assert graph.entities["name"].to_list() == ["/m/a", "new york", "alone"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train2id.txt", "1\n1 0 7\n", r"train2id\.txt:2: relation 7, an id in \[0, 1\)"),
        ("train2id.txt", "2\n1 0 0\n", r"train2id\.txt: 1 lines, its first line says 2"),
        ("train2id.txt", "1\n1 0\n", r"train2id\.txt:2: three ids"),
        ("train2id.txt", "x\n", r"train2id\.txt:1: the number of lines"),
        ("entity2id.txt", "1\na\t1\n", r"entity2id\.txt: ids from 0 to 0"),
        ("entity2id.txt", "1\na\tb\n", r"entity2id\.txt:2: a name and an id"),
    ],
)
def test_mistakes_in_openke_are_named(tmp_path, name, text, message):
    for each, content in {**OPENKE, name: text}.items():
        write(tmp_path, each, content)
    with pytest.raises(GraphError, match=message):
        read_graph(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.tsv", b"x\tr\ty\t1\nx\tr\nx\tr\t\xff\t1\ny\tr\tz\tmuch\ny\tr\tz\t2\n",
         r"3 lines skipped: 1 × not UTF-8 \(line 3\); 1 × wrong number of fields \(line 2\); "
         r"1 × no number \(line 4\)"),
        ("a.jsonl", b'["x", "r", "y", 1]\n{"head": \n[1]\n{"head": 1, "relation": 2, "tail": []}\n'
         b'["y", "r", "z", 2]', r"3 lines skipped: 3 × no triple in JSON \(line 2, 3, 4\)"),
    ],
)  # fmt: skip
def test_skipping_counts_each_kind(tmp_path, name, text, lines):
    (tmp_path / name).write_bytes(text)
    with pytest.warns(UserWarning, match=lines):
        graph = read_graph(tmp_path / name, on_error="skip")
    assert rows(graph) == [("x", "r", "y", 1.0), ("y", "r", "z", 2.0)]
    with pytest.raises(GraphError, match=rf"{name}:\d: "):
        read_graph(tmp_path / name)


def test_folder_keeps_its_parts(tmp_path):
    for part, text in (("train", "a\tr\tb\n"), ("valid", "b\tr\tc\n"), ("test", "c\tr\ta\n")):
        write(tmp_path, f"kg/{part}.txt", text)
    graph = read_graph(tmp_path / "kg")
    assert graph.triples["split"].to_list() == ["train", "valid", "test"]
    assert graph.num_entities == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "x\tr\ty\nx\tr\n", r"a\.tsv:2: 2 fields, expected 3"),
        ("a.tsv", "x\tr\ty\tmuch\n", r"a\.tsv:1: weight 'much' is no number"),
        ("a.tsv", "x\n", "expected head, relation, tail"),
        ("a.csv", 'x,r,"y\n', r"a\.csv:\d+: .*mend the quotes"),
        ("a.tsv", "", "empty"),
    ],
)
def test_mistakes_are_named(tmp_path, name, text, message):
    with pytest.raises(GraphError, match=message):
        read_graph(write(tmp_path, name, text))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"x\tr\ty\nx\tr\t\xff\n")
    with pytest.raises(GraphError, match=r"a\.tsv:2: not UTF-8"):
        read_graph(tmp_path / "a.tsv")
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(b"x\tr\ty\n" * 99)[:-8])
    with pytest.raises(GraphError, match="damaged or cut off"):
        read_graph(tmp_path / "b.tsv.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GraphError, match=r"no train\.txt"):
        read_graph(tmp_path / "empty")


def test_codex_counts_are_the_published_ones(shared_data):
    graph = read_graph(shared_data / "codex" / "codex-s")
    assert (graph.num_entities, graph.num_relations) == (2034, 42)
    assert (graph.triples["split"] == "train").sum() == 32888


def test_wn18rr_has_all_parts_and_a_text_for_every_entity(shared_data):
    graph = read_graph(shared_data / "wn18rr")
    assert (graph.num_entities, graph.num_relations, graph.num_triples) == (40943, 11, 93003)
    assert (graph.triples["split"] == "valid").sum() == 3034
    assert graph.texts["entity"].n_unique() == 40943
    assert graph.relations["label"].null_count() == 0


def test_umls_has_names_and_descriptions(shared_data):
    graph = read_graph(shared_data / "umls_text")
    assert (graph.num_entities, graph.num_relations, graph.num_triples) == (135, 46, 6529)
    assert dict(graph.texts["kind"].value_counts().iter_rows()) == {
        "label": 135, "description": 135
    }  # fmt: skip


def test_conceptnet_100k_as_phrases(shared_data):
    folder = shared_data / "conceptnet100k"
    graph = read_graph(folder)
    train = graph.triples.filter(pl.col("split") == "train")
    assert (len(train), graph.num_entities, graph.num_relations) == (100_000, 78_249, 34)
    labelled = read_graph(folder / "ckbc_dev1.txt", columns=["relation", "head", "tail", "weight"])
    assert rows(labelled)[0] == ("tool", "IsA", "object", 1.0)
    assert sorted(labelled.triples["weight"].unique()) == [0.0, 1.0]
