"""What is asked is nowhere in training, and nothing is asked of what was never seen."""

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kgclip.graph import KnowledgeGraph
from kgclip.splits import split_scenes
from kgclip.tables import GraphError, build_tables

TRIPLES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2), st.integers(0, 8)), max_size=40)


@given(TRIPLES, st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_no_pair_is_in_two_parts(rows, seed):
    graph = KnowledgeGraph.from_triples(rows).split(seed=seed)
    parts = {}
    for head, tail, split in graph.triples.select("head", "tail", "split").iter_rows():
        parts.setdefault(frozenset((head, tail)), set()).add(split)
    assert all(len(found) == 1 for found in parts.values())
    train = graph.triples.filter(pl.col("split") == "train")
    assert set(train["relation"]) == set(range(graph.num_relations))
    assert set(train["head"]) | set(train["tail"]) == set(range(graph.num_entities))


def test_shares_are_met():
    rows = [(f"a{i}", "r", f"a{j}") for i in range(50) for j in range(i)]
    graph = KnowledgeGraph.from_triples(rows)
    split = graph.split((0.7, 0.2, 0.1), seed=1)
    counts = dict(split.triples["split"].value_counts().iter_rows())
    assert counts["valid"] == pytest.approx(0.2 * len(rows), rel=0.05)
    assert counts["test"] == pytest.approx(0.1 * len(rows), rel=0.05)
    assert split == graph.split((0.7, 0.2, 0.1), seed=1)
    assert split != graph.split((0.7, 0.2, 0.1), seed=2)


@pytest.mark.parametrize("ratios", [(0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_bad_ratios(ratios):
    with pytest.raises(GraphError, match="sum 1"):
        KnowledgeGraph.from_triples([("a", "r", "b")]).split(ratios)


def scenes(count):
    """Scenes of two objects of one class each, a caption a scene, and a fact about the class."""
    names, types, owners, triples, images = ["class", "fact"], ["class", None], [None, None], [], []
    for number in range(count):
        first = len(names)
        names += [f"scene{number}", f"one{number}", f"two{number}", f"caption{number}"]
        types += ["scene", "object", "object", "caption"]
        owners += [None, f"scene{number}", f"scene{number}", None]
        triples += [(first + 1, first + 2), (first + 1, 0), (first, first + 3)]
        images += [first, first + 1, first + 2]
    head, tail = zip(*triples, (0, 1), strict=True)
    return build_tables(
        {
            "entities": {"name": names, "type": types, "scene": owners},
            "relations": {"name": ["r"]},
            "triples": {"head": head, "relation": [0] * len(head), "tail": tail},
            "images": {"entity": images, "path": ["a.png"] * len(images)},
        }
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_a_scene_is_held_out_as_a_whole(seed):
    tables = scenes(20)
    split = split_scenes(tables, ratios=(0.6, 0.15, 0.25), seed=seed)
    owner, parts = split.entities["scene"], {}
    for entity, part in split.images.select("entity", "split").iter_rows():
        parts.setdefault(owner[entity] or split.entities["name"][entity], set()).add(part)
    assert all(len(found) == 1 for found in parts.values())
    counts = Counter(next(iter(found)) for found in parts.values())
    assert counts == {"train": 12, "valid": 3, "test": 5}
    for head, tail, part in split.triples.select("head", "tail", "split").iter_rows():
        scene = owner[head] or split.entities["name"][head]
        assert part == next(iter(parts.get(scene, {"train"}))), (head, tail)
    again, other = (
        split_scenes(tables, ratios=(0.6, 0.15, 0.25), seed=number) for number in (seed, seed + 2)
    )
    assert split.images.equals(again.images)
    assert split.triples.equals(again.triples)
    assert not split.images.equals(other.images)


def test_a_triple_between_scenes_goes_with_the_one_held_out():
    tables = scenes(4)
    pairs = [2 + 4 * number for number in range(4)]
    frame = tables.triples.head(0).select("head", "relation", "tail")
    rows = [(a, 0, b) for a in pairs for b in pairs]
    triples = pl.DataFrame(rows, schema=frame.schema, orient="row")
    tables = build_tables({**tables.frames(), "triples": triples})
    split = split_scenes(tables, ratios=(0.5, 0.25, 0.25))
    part = dict(split.images.filter(pl.col("entity").is_in(pairs)).select("entity", "split").rows())
    order = ("train", "valid", "test")
    for head, tail, found in split.triples.select("head", "tail", "split").iter_rows():
        assert found == max(part[head], part[tail], key=order.index)


def test_without_pictures_there_are_no_scenes():
    with pytest.raises(GraphError, match="'triples' splits those"):
        split_scenes(KnowledgeGraph.from_triples([("a", "r", "b")]).tables)
