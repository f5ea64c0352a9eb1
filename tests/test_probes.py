import json

import polars as pl
import pytest

import kgclip
from kgclip.probes import Question, build_probes, read_probes
from kgclip.tables import GraphError, build_tables

ITEMS = {
    "sugarcrepe": (
        {"0": {"filename": "a.jpg", "caption": "a cat", "negative_caption": "a dog"}},
        Question(("a.jpg",), ("a cat", "a dog"), "file"),
    ),
    "aro": (
        [
            {
                "image_path": "a.jpg", "bbox_x": 1, "bbox_y": 2, "bbox_w": 3, "bbox_h": 4,
                "true_caption": "a on b", "false_caption": "b on a", "relation_name": "on",
            }
        ],
        Question(("a.jpg",), ("a on b", "b on a"), "on", (1.0, 2.0, 3.0, 4.0)),
    ),
    "winoground": (
        [{"image_0": "a", "image_1": "b", "caption_0": "x", "caption_1": "y", "tag": "Swap"}],
        Question(("a", "b"), ("x", "y"), "Swap"),
    ),
    "vsr": (
        [{"image": "a.jpg", "caption": "The cat is left.", "label": 0, "relation": "left of"}],
        Question(
            ("a.jpg",), ("The cat is left. (False)", "The cat is left. (True)"), "left of"
        ),
    ),
    "vl_checklist": (
        [["a.jpg", {"POS": ["red car"], "NEG": ["blue car"]}]],
        Question(("a.jpg",), ("red car", "blue car"), "file"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ITEMS)
@pytest.mark.parametrize("given", [True, False])
def test_every_format_is_read_and_guessed(name, given, tmp_path):
    items, expected = ITEMS[name]
    path = tmp_path / "file.json"
    path.write_text(json.dumps(items))
    assert read_probes(path, name if given else None) == [expected]


def test_lines_of_json(tmp_path):
    items, expected = ITEMS["vsr"]
    path = tmp_path / "file.jsonl"
    path.write_text(f"{json.dumps(items[0])}\n\n{json.dumps(items[0])}\n")
    assert read_probes(path) == [expected, expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no question"),
        ('{"a": 1}\n{', ":2: not JSON"),
        ('[{"x": 1}]', "no known probe format; its first item has x"),
        ('[{"image": "a", "caption": "b", "label": 2}]', "item 1.*label 2"),
        ('[{"filename": "a", "caption": "b", "negative_caption": "c"}, {}]', "item 2"),
    ],
)
def test_bad_files_are_named(text, message, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(GraphError, match=message):
        read_probes(path)


def test_unknown_names(tmp_path):
    with pytest.raises(GraphError, match="no such file"):
        read_probes(tmp_path / "none.json")
    path = tmp_path / "file.json"
    path.write_text("[1]")
    with pytest.raises(GraphError, match="known: sugarcrepe"):
        read_probes(path, "sugar")


def test_real_files(shared_data):
    counts = {
        path.stem: len(read_probes(path)) for path in (shared_data / "sugarcrepe").glob("*.json")
    }
    assert sum(counts.values()) == 7511
    assert counts["swap_obj"] == 245
    questions = read_probes(shared_data / "vsr/random/test.jsonl")
    assert len(questions) == 2195
    assert {question.captions[0][-7:] for question in questions} == {" (True)", "(False)"}


def build_graph(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    tables = build_tables(
        {
            "entities": {"name": ["a", "b", "c", "d"]},
            "relations": {"name": ["near", "in"]},
            # a near b is mutual; a is near everything but itself, and in d alone.
            "triples": {
                "head": [0, 1, 0, 0, 1], "relation": [0, 0, 0, 1, 0], "tail": [1, 0, 2, 3, 3]
            },
            "images": {"entity": [0], "path": [str(tmp_path / "a.png")]},
        }
    )  # fmt: skip
    return kgclip.KnowledgeGraph(tables)


def test_questions_from_a_graph_are_never_true(tmp_path):
    graph = build_graph(tmp_path)
    true = {
        f"{'abcd'[h]} {('near', 'in')[r]} {'abcd'[t]}"
        for h, r, t in graph.triples.select("head", "relation", "tail").iter_rows()
    }
    for seed in range(20):
        questions = build_probes(graph, seed=seed)
        assert {question.kind for question in questions} == {"tail", "relation", "swap"}
        for question in questions:
            right, wrong = question.captions
            assert right in true
            assert wrong not in true
            assert question.images == (str(tmp_path / "a.png"),)
    swaps = [q.captions for q in build_probes(graph, ["swap"])]
    assert sorted(swaps) == [("a in d", "d in a"), ("a near c", "c near a")]  # a near b is mutual
    assert build_probes(graph, seed=3) == build_probes(graph, seed=3)
    assert len(build_probes(graph, ["tail"], limit=1)) == 1


def test_a_graph_that_cannot_be_asked(tmp_path):
    with pytest.raises(GraphError, match="no pictures"):
        build_probes(kgclip.KnowledgeGraph.from_triples([("a", "r", "b")]))
    with pytest.raises(GraphError, match="'tails' given"):
        build_probes(build_graph(tmp_path), ["tails"])


def test_labels_are_what_is_read(tmp_path):
    graph = build_graph(tmp_path)
    frames = {**graph.tables.frames(), "texts": pl.DataFrame(
        {"entity": [0], "text": ["Kenya"], "kind": ["label"]}
    )}  # fmt: skip
    named = kgclip.KnowledgeGraph(build_tables(frames))
    assert all(q.captions[0].startswith("Kenya ") for q in build_probes(named, ["tail"]))
