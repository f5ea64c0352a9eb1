"""The split keeps its promises: what is held out is nowhere in training."""

import polars as pl
import pytest

from kgclip.sources.openmoji_splits import ASKED_RELATIONS, emoji_families, split_world
from kgclip.tables import GraphError, build_tables


@pytest.fixture(scope="module", params=[1234, 7])
def split(request, openmoji_tables):
    return split_world(openmoji_tables, seed=request.param)


def named(tables):
    names = tables.relations.with_row_index("relation").select(
        pl.col("relation").cast(pl.Int64), "name"
    )
    return tables.triples.join(names, on="relation")


def new_countries(tables):
    asked = tables.triples.filter(pl.col("split").is_in(["valid", "test"]))
    return set(asked["head"])


def test_no_training_triple_touches_a_new_country(split):
    new = new_countries(split)
    train = split.triples.filter(pl.col("split") == "train")
    assert not new & (set(train["head"]) | set(train["tail"]))


def test_inference_graph_holds_no_asked_fact(split):
    new = list(new_countries(split))
    given = named(split).filter(pl.col("split") == "inference")
    assert set(given["name"]) == {"borders", "capital", "demonym"}
    asked = named(split).filter(pl.col("split").is_in(["valid", "test"]))
    assert set(asked["name"]) == set(ASKED_RELATIONS)
    hidden = named(split).filter(pl.col("head").is_in(new) & pl.col("name").is_in(ASKED_RELATIONS))
    assert set(hidden["split"]) == {"valid", "test"}


def test_valid_and_test_countries_are_disjoint(split):
    asked = split.triples.filter(pl.col("split").is_in(["valid", "test"]))
    assert asked.group_by("head").agg(pl.col("split").n_unique())["split"].max() == 1


def test_held_out_flags_are_only_ever_pairs(split):
    parts = dict(split.images.select("entity", "split").iter_rows())
    assert {parts[entity] for entity in new_countries(split)} == {"pairs_valid", "pairs_test"}


def test_shares(split):
    countries = split.images.filter(pl.col("split").str.starts_with("pairs_"))
    new = len(new_countries(split))
    assert new == pytest.approx(0.2 * 248, abs=2)
    assert len(countries) == pytest.approx(0.6 * 248, abs=2)
    unseen = split.images.filter(pl.col("split").is_in(["valid", "test"]))
    assert 150 < len(unseen) < 500


def test_a_family_is_pictured_or_not(split):
    parts = dict(split.images.select("entity", "split").iter_rows())
    variant_of = split.relations["name"].to_list().index("variant_of")
    variants = set(split.triples.filter(pl.col("relation") == variant_of)["head"])
    for family in emoji_families(split):
        whole = {parts[entity] for entity in family if entity not in variants}
        assert len(whole) <= 1, [split.texts["text"][entity] for entity in family]


def test_families_hold_relatives(openmoji_tables):
    labels = openmoji_tables.texts["text"].to_list()
    families = [{labels[entity] for entity in family} for family in emoji_families(openmoji_tables)]
    [astronauts] = [family for family in families if "astronaut" in family]
    assert {"woman astronaut", "man astronaut", "rocket"} <= astronauts
    assert max(map(len, families)) < 40
    assert sum(map(len, families)) == (openmoji_tables.entities["type"] == "emoji").sum()


def test_seed_decides(openmoji_tables):
    once, again = (split_world(openmoji_tables, seed=3) for _ in range(2))
    other = split_world(openmoji_tables, seed=4)
    assert once.triples.equals(again.triples)
    assert once.images.equals(again.images)
    assert not once.images.equals(other.images)


def test_other_graphs_are_refused():
    tables = build_tables({"entities": {"name": ["a"]}})
    with pytest.raises(GraphError, match="method 'triples'"):
        split_world(tables, seed=0)


def test_shares_are_checked(openmoji_tables):
    with pytest.raises(GraphError, match=r"in \[0, 1\]"):
        split_world(openmoji_tables, seed=0, known_share=0.9, new_share=0.2)
