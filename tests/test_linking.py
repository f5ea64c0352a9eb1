import json

import pytest

import kgclip
from kgclip.linking import add_mentions, link_captions
from kgclip.tables import build_tables

NAMES = ["dog", "hot dog", "bank", "Bank of England", "bus", "horse", "berry", "glass"]


@pytest.fixture
def graph():
    tables = build_tables(
        {
            "entities": {"name": [f"e{i}" for i in range(len(NAMES) + 2)]},
            "texts": {
                "entity": [*range(len(NAMES)), len(NAMES), 0],
                "text": [*NAMES, "bank", "domestic dog"],
                "kind": ["label"] * (len(NAMES) + 1) + ["alias"],
            },
        }
    )
    return kgclip.KnowledgeGraph(tables)


def mentions(graph, caption, **options):
    rows = link_captions([caption], graph, **options).rows()
    return [(caption[start:end], entity, count) for _, entity, start, end, count in rows]


def test_the_longest_label_wins(graph):
    assert mentions(graph, "A hot dog, and a Dog!") == [("hot dog", 1, 1), ("Dog", 0, 1)]
    assert mentions(graph, "the Bank of England") == [("Bank of England", 3, 1)]
    assert mentions(graph, "domestic dog") == [("domestic dog", 0, 1)]


def test_what_is_ambiguous_is_reported_with_every_candidate(graph):
    assert mentions(graph, "a river bank") == [("bank", 2, 2), ("bank", 8, 2)]


@pytest.mark.parametrize(
    ("text", "entity"),
    [("dogs", 0), ("buses", 4), ("horses", 5), ("berries", 6), ("glasses", 7), ("glass", 7)],
)
def test_plurals(graph, text, entity):
    assert mentions(graph, f"two {text} here") == [(text, entity, 1)]
    assert mentions(graph, f"two {text} here", plurals=False) == (
        [(text, entity, 1)] if text in NAMES else []
    )


def test_words_are_whole_and_stop_words_stay_out(graph):
    assert mentions(graph, "dogma hotdog") == []
    assert mentions(graph, "dog", stop_words=["Dog"]) == []


def test_an_entity_without_a_text_is_its_name(graph):
    assert mentions(graph, "see e9") == [("e9", 9, 1)]


def test_rows_are_of_their_caption(graph):
    frame = link_captions(["nothing", "a dog", "", "dog dog"], graph)
    assert frame["caption"].to_list() == [1, 3, 3]


def test_empty_graph_and_unknown_kind(graph):
    empty = kgclip.KnowledgeGraph(build_tables({}))
    assert link_captions(["a dog"], empty).is_empty()
    with pytest.raises(ValueError, match="'lable' given"):
        link_captions([], graph, kinds=["lable"])


def test_real_captions(shared_data):
    """COCO's class names are found in its captions; most photographs are tagged with a class."""
    from kgclip.sources import read_graph

    folder = shared_data / "coco_mini"
    captions = read_graph(
        folder / "annotations/captions_train2017.json",
        format="pairs", images=folder / "train2017",
    ).texts["text"].to_list()  # fmt: skip

    names = [c["name"] for c in json.loads(
        (folder / "annotations/instances_train2017.json").read_text())["categories"]]  # fmt: skip
    tables = build_tables({"entities": {"name": names}})
    found = link_captions(captions, kgclip.KnowledgeGraph(tables))
    assert found["num_candidates"].max() == 1
    assert found["caption"].n_unique() / len(captions) > 0.5


LABELS = ("dog", "bus", "dog", "bank", "bank", "word")


def test_mentions_become_triples_of_what_is_described():
    tables = build_tables(
        {
            "entities": {
                "name": ["s1", "s2", "dog", "bus", "o1", "bank", "bank2", "word"],
                "type": ["scene", "scene", "class", "class", "object", "class", "class", None],
                "scene": [None, None, None, None, "s1", None, None, None],
            },
            "texts": {
                "entity": [0, 0, 1, 2, 3, 4, 5, 6, 7],
                "text": ["A dog", "two dogs at the bank", "a bus, one word", *LABELS],
                "kind": ["caption"] * 3 + ["label"] * 6,
            },
        }
    )
    graph = kgclip.KnowledgeGraph(tables)

    def joined(linked):
        names = linked.entities["name"]
        return {
            (names[h], linked.relations["name"][r], names[t], source)
            for h, r, t, source in linked.triples.select(
                "head", "relation", "tail", "source"
            ).iter_rows()
        }

    expected = {("s1", "mentions", "dog", "mentions"), ("s2", "mentions", "bus", "mentions")}
    with pytest.warns(UserWarning, match="1 mentions left out"):
        assert joined(add_mentions(graph, types=["class"])) == expected
    with pytest.warns(UserWarning, match="1 mentions left out"):
        everything = joined(add_mentions(graph, relation="says"))
    assert everything == {(h, "says", t, "says") for h, _, t, _ in expected} | {
        ("s2", "says", "word", "says")
    }
    assert add_mentions(graph, types=["object"]).num_triples == 1
    assert add_mentions(graph, types=["class"], stop_words=["dog", "bus", "bank"]) == graph
