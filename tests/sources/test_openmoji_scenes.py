"""Scenes show what their tables say, and nothing that is held out leaks into training."""

import itertools
from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from PIL import Image

from kgclip.graph import KnowledgeGraph
from kgclip.sources.openmoji import picture_of
from kgclip.sources.openmoji_scenes import (
    COLOURS,
    NOUNS,
    RELATIONS,
    SIZES,
    Thing,
    hold_out,
    read_openmoji_scenes,
    relation_between,
)
from kgclip.tables import GraphError

OPTIONS = {"seed": 3, "num_train": 80, "num_valid": 12, "num_test": 16, "num_nouns": 20}
CHOSEN = np.linspace(0, len(NOUNS) - 1, 20).round().astype(int)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def tables(folder):
    return read_openmoji_scenes(folder / "images", **OPTIONS)


@pytest.fixture(scope="module")
def scenes(tables):
    """Scene → its objects, read back from the tables alone."""
    names = [tables.relations["name"][i] for i in tables.literals["relation"]]
    said = defaultdict(dict)
    for entity, name, value in zip(
        tables.literals["entity"], names, tables.literals["value"], strict=True
    ):
        said[entity][name] = value
    boxes = dict(tables.images.select("entity", "box").iter_rows())
    found = defaultdict(list)
    for entity, words in said.items():
        thing = Thing(
            NOUNS.index(words["noun"]),
            list(SIZES).index(words["size"]),
            list(COLOURS).index(words["colour"]),
            tuple(int(number) for number in boxes[entity]),
        )
        found[tables.entities["scene"][entity]].append((entity, thing))
    return found


def of_part(scenes, part):
    return [
        [thing for _, thing in things] for name, things in scenes.items() if name.startswith(part)
    ]


def pairs_of(things):
    return {tuple(sorted(pair)) for pair in itertools.combinations([t.noun for t in things], 2)}


def worn(things):
    return {(thing.noun, thing.colour) for thing in things}


def test_held_out_shares():
    held_out = hold_out(np.arange(80), 0)
    assert [len(held_out.pairs[split]) for split in ("valid", "test")] == [316, 316]
    assert [len(held_out.combinations[split]) for split in ("valid", "test")] == [36, 36]
    assert not held_out.pairs["valid"] & held_out.pairs["test"]
    assert not held_out.combinations["valid"] & held_out.combinations["test"]


def test_every_part_holds_out_what_it_says(scenes):
    held_out = hold_out(CHOSEN, OPTIONS["seed"])
    pairs = held_out.pairs["valid"] | held_out.pairs["test"]
    combinations = held_out.combinations["valid"] | held_out.combinations["test"]
    for things in of_part(scenes, "train"):
        assert not pairs_of(things) & pairs
        assert not worn(things) & combinations
    for split in ("valid", "test"):
        for part in ("pairs", "three"):
            for things in of_part(scenes, f"{split}-{part}"):
                assert pairs_of(things[:2]) <= held_out.pairs[split]
                assert len(pairs_of(things) & pairs) == 1
                assert not worn(things) & combinations
                swapped = {(things[0].noun, things[1].colour), (things[1].noun, things[0].colour)}
                assert not swapped & combinations
                assert len(things) == (3 if part == "three" else 2)
        for things in of_part(scenes, f"{split}-combinations"):
            assert worn(things) & held_out.combinations[split]
            assert not pairs_of(things) & pairs
        for things in of_part(scenes, f"{split}-seen"):
            assert not pairs_of(things) & pairs
            assert not worn(things) & combinations


def test_sizes_of_the_parts(scenes):
    assert len(of_part(scenes, "train/")) == 80
    for split, count in (("valid", 12), ("test", 16)):
        for part in ("pairs", "combinations", "seen"):
            assert len(of_part(scenes, f"{split}-{part}/")) == count
        assert len(of_part(scenes, f"{split}-three/")) == count // 2
    lengths = [len(things) for things in of_part(scenes, "train/")]
    assert set(lengths) == {2, 3}


def test_what_is_asked_can_be_told_apart(scenes):
    for name, things in scenes.items():
        (_, first), (_, second) = things[:2]
        if not name.startswith("train"):
            assert first.size != second.size
            assert first.colour != second.colour
        assert len({thing.noun for _, thing in things}) == len(things)
        for _, thing in things:
            low, high = list(SIZES.values())[thing.size]
            assert low <= thing.box[2] == thing.box[3] <= high
            assert min(thing.box) >= 0
            assert max(thing.box[0], thing.box[1]) + thing.box[2] <= 128


def test_tiles_never_touch(scenes):
    for things in scenes.values():
        canvas = np.zeros((128, 128), dtype=int)
        for _, thing in things:
            x, y, width, height = thing.box
            canvas[y : y + height, x : x + width] += 1
        assert canvas.max() == 1


def test_relations_are_those_of_the_boxes_with_their_inverses(tables, scenes):
    names = tables.relations["name"].to_list()
    inverse = dict(tables.relations.select("name", "inverse").iter_rows())
    assert names[: len(RELATIONS)] == list(RELATIONS)
    found = set()
    for head, relation, tail in tables.triples.select("head", "relation", "tail").iter_rows():
        found.add((head, names[relation], tail))
    assert len(found) == len(tables.triples)
    expected = set()
    for things in scenes.values():
        for (a, first), (b, second) in itertools.permutations(things, 2):
            # The slow way: centres in pixels, the longer axis decides.
            across = (second.box[0] + second.box[2] / 2) - (first.box[0] + first.box[2] / 2)
            down = (second.box[1] + second.box[3] / 2) - (first.box[1] + first.box[3] / 2)
            if abs(abs(across) - abs(down)) < 14:
                continue
            if abs(across) > abs(down):
                expected.add((a, "left_of" if across > 0 else "right_of", b))
            else:
                expected.add((a, "above" if down > 0 else "below", b))
    assert found == expected
    assert {(t, inverse[r], h) for h, r, t in found} == found
    assert all(
        relation_between(things[0][1], things[1][1]) is not None for things in scenes.values()
    )


def test_pictures_show_the_tiles_where_the_boxes_are(tables, scenes, folder):
    paths = dict(zip(tables.images["entity"], tables.images["path"], strict=True))
    for things in list(scenes.values())[:20]:
        with Image.open(folder / paths[things[0][0]]) as picture:
            assert picture.size == (128, 128)
            for _, thing in things:
                x, y, side, _ = thing.box
                # Left edge, half-way down: the tile, where no emoji reaches.
                assert picture.getpixel((x, y + side // 2)) == list(COLOURS.values())[thing.colour]


def test_captions_and_labels(tables):
    graph = KnowledgeGraph(tables)
    captions = graph.texts.filter(pl.col("kind") == "caption")["text"]
    assert len(captions) == len(graph.entities.filter(pl.col("type") == "scene"))
    assert all(any(f" {label} a " in text for label in RELATIONS.values()) for text in captions)
    first = graph.texts.filter(pl.col("kind") == "label")["text"][0]
    assert captions[0].startswith(f"a {first} ")


def test_the_same_seed_draws_the_same(tables, folder, tmp_path):
    again = read_openmoji_scenes(tmp_path / "images", **OPTIONS)
    for name, frame in again.frames().items():
        assert frame.equals(getattr(tables, name)), name
    other = read_openmoji_scenes(tmp_path / "other", **{**OPTIONS, "seed": 4})
    assert not other.images["sha256"].equals(tables.images["sha256"])


def test_every_noun_has_a_picture():
    files = [picture_of(noun) for noun in NOUNS]
    assert len(set(NOUNS)) == len(set(files)) == 80
    with pytest.raises(GraphError, match="kow"):
        picture_of("kow")


@pytest.mark.parametrize("options", [{"num_train": -1}, {"num_nouns": 81}, {"size": 64}])
def test_options_out_of_range(options, tmp_path):
    with pytest.raises(GraphError, match="expected counts"):
        read_openmoji_scenes(tmp_path, **options)
