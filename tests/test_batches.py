"""Batches are a pure function of the step and leak nothing that they ask."""

import dataclasses

import open_clip
import polars as pl
import pytest
import torch
from open_clip.model import CLIP

from kgclip.batches import BatchOptions, Corpus, KnowledgeBatches, edges_between, find_cut
from kgclip.graph import KnowledgeGraph
from kgclip.nn.losses import ContrastiveLoss, E2ELoss, G2ELoss
from kgclip.nn.model import GraphEncoder, KnowledgeCLIP
from kgclip.nn.teacher import TeacherFeatures
from kgclip.tables import GraphError, build_tables

NAMES = ["a", "b", "c", "d", "e"]
#          train                    train      train      test       train, inverse of the first
TRIPLES = [("a", "likes", "b"), ("b", "likes", "c"), ("c", "near", "d"), ("d", "near", "e"),
           ("b", "near", "a")]  # fmt: skip
SPLITS = ["train", "train", "train", "test", "train"]
IMAGE_SPLITS = ["train", "pairs_test", "test"]


def tokenizer(texts):
    tokens = torch.zeros(len(texts), 8, dtype=torch.long)
    for row, text in enumerate(texts):
        ids = [1 + ord(letter) % 90 for letter in text][:7]
        tokens[row, : len(ids) + 1] = torch.tensor([*ids, 99])
    return tokens


@pytest.fixture
def graph():
    ids = {name: number for number, name in enumerate(NAMES)}
    relations = ["likes", "near"]
    return KnowledgeGraph(
        build_tables(
            {
                "entities": {"name": NAMES, "type": ["x", "x", "y", "y", None]},
                "relations": {"name": relations, "label": ["likes", None]},
                "triples": {
                    "head": [ids[h] for h, _, _ in TRIPLES],
                    "relation": [relations.index(r) for _, r, _ in TRIPLES],
                    "tail": [ids[t] for _, _, t in TRIPLES],
                    "split": SPLITS,
                },
                "images": {"entity": [0, 1, 2], "path": ["a", "b", "c"], "split": IMAGE_SPLITS},
            }
        )
    )


@pytest.fixture
def corpus(graph):
    return Corpus(graph, tokenizer, torch.arange(6.0).reshape(3, 2))


@pytest.fixture
def clip():
    torch.manual_seed(0)
    vision = {"layers": 1, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}
    return CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval()


def batches(graph_, corpus, clip, **options):
    options = {"num_pairs": 4, "num_triples": 3, **options}
    return KnowledgeBatches(
        corpus, graph_.entities["type"].to_list(), BatchOptions(**options), clip
    )


def test_pictures_are_the_same_by_bytes_and_box():
    first, second = [0.0, 0.0, 5.0, 5.0], [5.0, 0.0, 5.0, 5.0]
    images = {
        "entity": [0] * 6,
        "path": list("abcdef"),
        "sha256": ["x", "x", "x", "y", None, None],
        "box": [first, second, first, first, None, None],
    }
    graph = KnowledgeGraph(build_tables({"entities": {"name": ["e"]}, "images": images}))
    corpus = Corpus(graph, tokenizer, torch.zeros(6, 2))
    assert corpus.same_image.tolist() == [0, 1, 0, 3, 4, 5]


def test_corpus_says_what_the_graph_says(corpus):
    assert corpus.labels == NAMES
    assert corpus.relation_labels == ["likes", "near"]
    facts = [(corpus.relation_labels[r], corpus.labels[t]) for r, t in corpus.facts.tolist()]
    pairs = zip(corpus.triples[:, 0].tolist(), corpus.fact_ids.tolist(), strict=True)
    rebuilt = [(corpus.labels[head], *facts[fact]) for head, fact in pairs]
    assert rebuilt == TRIPLES
    assert corpus.first_image.tolist() == [0, 1, 2, -1, -1]
    assert torch.equal(corpus.fact_text, tokenizer([" ".join(fact) for fact in facts]))


def test_edges_go_both_ways_and_only_where_asked(corpus):
    edge_index, edge_type = corpus.edges(["train"])
    assert edge_index.shape == (2, 8)
    assert edge_type.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(edge_index[:, 4:], edge_index[:, :4].flip(0))
    assert corpus.edges(["valid"])[0].shape == (2, 0)


def test_a_step_is_always_the_same(graph, corpus, clip):
    makers = [batches(graph, corpus, clip, graph=True, seed=3) for _ in range(2)]
    makers[0](0), makers[0](1)  # another history
    first, second = makers[0](2), makers[1](2)
    for name in ("image", "text"):
        assert torch.equal(first.inputs[name], second.inputs[name])
    for name in ("x", "edge_index", "edge_type", "rows"):
        assert torch.equal(
            getattr(first.inputs["graph"], name), getattr(second.inputs["graph"], name)
        )
    assert torch.equal(first.targets.head_known, second.targets.head_known)


def test_order_of_pairs_does_not_depend_on_the_rest(graph, corpus, clip):
    plain = batches(graph, corpus, clip, num_triples=0)
    full = batches(graph, corpus, clip, graph=True)
    for step in range(3):
        assert torch.equal(plain(step).targets.pair_ids, full(step).targets.pair_ids)


def test_an_epoch_holds_each_pair_once_and_repeats_by_type(graph, corpus, clip):
    maker = batches(graph, corpus, clip, num_pairs=3, repeats={"x": 2})  # a, a, b, b
    seen = torch.cat([maker(step).targets.pair_ids for step in range(4)])
    assert sorted(seen.tolist()) == [0] * 6 + [1] * 6, "c's picture is held out"


def test_held_out_triples_are_never_drawn(graph, corpus, clip):
    maker = batches(graph, corpus, clip)
    drawn = torch.cat([maker(step).targets.entity_ids for step in range(20)])
    assert 3 not in drawn.tolist()  # d heads only the test triple


def test_only_pictures_of_split_train_stand_for_a_head(graph, corpus, clip):
    maker = batches(graph, corpus, clip, image_share=1.0)
    for step in range(5):
        batch = maker(step)
        shown = batch.targets.entity_ids[batch.inputs["triples"].image_mask]
        assert set(shown.tolist()) <= {0}, "b's flag is for pairs alone"
        assert torch.equal(
            batch.inputs["triples"].image, corpus.image_features[corpus.first_image[shown]]
        )


def test_message_graph_is_without_the_batch(graph, corpus, clip):
    maker = batches(graph, corpus, clip, graph=True, num_triples=1)
    for step in range(30):
        batch = maker(step)
        inputs = batch.inputs["graph"]
        head, tail = maker._drawn[0, 0], maker._drawn[0, 2]
        ends = {frozenset(pair) for pair in inputs.edge_index.T.tolist()}
        assert frozenset((int(head), int(tail))) not in ends, "also in the other direction"
        assert not inputs.x[head].any()


def test_drawn_messages_are_the_whole_graphs_around_the_batch(graph, corpus, clip, monkeypatch):
    """With all neighbours drawn and nothing dropped, the encoder sees the same."""
    monkeypatch.setattr(torch, "rand", lambda *size, generator=None: torch.zeros(size))
    torch.manual_seed(0)
    encoder = GraphEncoder(16)
    with torch.no_grad():
        encoder.hop_gates.fill_(0.5)
    options = {"num_triples": 2, "num_pairs": 0}
    whole = batches(graph, corpus, clip, **options)
    drawn = batches(graph, corpus, clip, num_neighbors=[-1, -1], **options)
    for step in range(10):
        seen = []
        for maker in (whole, drawn):
            batch = KnowledgeBatches.__call__(with_graph(maker), step).inputs["graph"]
            out = encoder(batch.x, batch.edge_index, batch.edge_type, batch.relation_features)
            seen.append(out[batch.rows])
        torch.testing.assert_close(*seen)


def with_graph(maker):
    maker.options = dataclasses.replace(maker.options, graph=True)
    return maker


def test_drawn_messages_are_few_and_repeat(graph, corpus, clip):
    makers = [
        with_graph(batches(graph, corpus, clip, num_triples=1, num_neighbors=[1])) for _ in "ab"
    ]
    for step in range(5):
        one, other = (maker(step).inputs["graph"] for maker in makers)
        assert torch.equal(one.edge_index, other.edge_index)
        assert torch.equal(one.x, other.x)
        assert one.edge_index.shape[1] <= 1
        assert len(one.x) <= 2


def test_known_heads_are_those_of_training(graph, corpus, clip):
    batch = batches(graph, corpus, clip)(0)
    triples = set(zip(*corpus.triples[torch.tensor([0, 1, 2, 4])].T.tolist(), strict=True))
    drawn = batches(graph, corpus, clip)
    drawn(0)
    for i, (_, relation, tail) in enumerate(drawn._drawn.tolist()):
        for j, head in enumerate(batch.targets.entity_ids.tolist()):
            assert batch.targets.head_known[i, j] == ((head, relation, tail) in triples)


def test_edges_between_equals_the_loop():
    torch.manual_seed(0)
    edges, heads, tails = torch.randint(6, (2, 40)), torch.randint(6, (4,)), torch.randint(6, (4,))
    pairs = {frozenset(pair) for pair in zip(heads.tolist(), tails.tolist(), strict=True)}
    expected = [frozenset(edge) in pairs for edge in edges.T.tolist()]
    assert edges_between(edges, heads, tails).tolist() == expected
    assert edges_between(edges[:, :0], heads, tails).shape == (0,)
    assert not edges_between(edges, heads[:0], tails[:0]).any()


def test_the_model_takes_what_the_batch_gives(graph, corpus, clip):
    model = KnowledgeCLIP(clip, GraphEncoder(16))
    batch = batches(graph, corpus, clip, graph=True, image_share=0.0, num_pairs=0)(0)
    output = model(**batch.inputs)
    assert output.entity_features.shape == output.graph_features.shape == (3, 16)


def test_nothing_to_train_on_is_said(graph, clip):
    with pytest.raises(ValueError, match="2 rows"):
        Corpus(graph, tokenizer, torch.zeros(2, 2))
    bare = KnowledgeGraph.from_triples([("a", "r", "b")])
    corpus = Corpus(bare, tokenizer, torch.zeros(0, 2))
    with pytest.raises(ValueError, match="no image-text pair"):
        batches(bare, corpus, clip)
    assert batches(bare, corpus, clip, num_pairs=0)(0).size == 3


@pytest.mark.parametrize("num_neighbors", [(), (2, 2)])
def test_cached_texts_give_the_losses_and_graph_gradients_of_the_tower(
    graph, corpus, clip, tmp_path, num_neighbors
):
    model = KnowledgeCLIP(clip, GraphEncoder(16, 2))
    options = BatchOptions(4, 3, graph=True, image_share=0.5, num_neighbors=num_neighbors)
    corpus.image_features = torch.randn(3, 16)
    passes = []
    clip.transformer.register_forward_pre_hook(lambda *_: passes.append(1))
    found = []
    for texts in (None, corpus.cache_texts(clip, tmp_path), corpus.cache_texts(clip, tmp_path)):
        passes.clear()
        model.zero_grad()
        batch = KnowledgeBatches(corpus, [None] * 5, options, clip, texts=texts)(1)
        output = model(**batch.inputs)
        losses = [loss(output, batch.targets) for loss in (ContrastiveLoss(), E2ELoss(), G2ELoss())]
        sum(losses).backward()
        assert bool(passes) == (texts is None)
        gradients = [value.grad for value in model.graph_encoder.parameters()]
        found.append([*losses, *gradients])
    for cached in found[1:]:
        for mine, theirs in zip(cached, found[0], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def described(graph, **frames):
    """The graph with captions for "a" (no label) and "b" (labelled), and sources of its triples."""
    texts = {"entity": [0, 0, 1, 1], "text": ["one a", "an a more", "be", "b"],
             "kind": ["caption", "caption", "caption", "label"]}  # fmt: skip
    triples = graph.triples.with_columns(source=pl.Series(["x", "x", "y", "y", "z"]))
    return KnowledgeGraph(
        build_tables({**graph.tables.frames(), "texts": texts, "triples": triples, **frames})
    )


def test_a_picture_is_paired_with_a_caption_drawn_anew(graph, clip):
    graph = described(graph)
    corpus = Corpus(graph, tokenizer, torch.arange(6.0).reshape(3, 2))
    assert corpus.labels[:3] == ["one a", "b", "c"]
    assert corpus.described.tolist() == [True, False, False, False, False]
    make = batches(graph, corpus, clip, num_pairs=2)
    assert make.epoch_size == 2
    said = {0: set(), 1: set()}
    for step in range(20):
        batch = make(step)
        again = batches(graph, corpus, clip, num_pairs=2)(step)
        assert torch.equal(batch.inputs["text"], again.inputs["text"])
        assert sorted(batch.targets.pair_ids.tolist()) == [0, 1]  # an epoch is a step
        for entity, tokens in zip(batch.targets.pair_ids, batch.inputs["text"], strict=True):
            said[int(entity)].add(tuple(tokens.tolist()))
    captions = [tuple(row) for row in tokenizer(["one a", "an a more", "be"]).tolist()]
    assert said == {0: set(captions[:2]), 1: set(captions[2:])}


def test_features_of_captions_and_the_teachers_are_those_of_the_text_that_was_drawn(graph, clip):
    graph = described(graph)
    corpus = Corpus(graph, tokenizer, torch.arange(6.0).reshape(3, 2))
    cached = corpus.cache_texts(clip)
    read = torch.cat([corpus.text, corpus.caption_text])
    teacher = TeacherFeatures(torch.zeros(3, 16), corpus.text_features(clip, read), torch.ones(()))
    options = BatchOptions(num_pairs=4, num_triples=0)
    plain = KnowledgeBatches(corpus, [None] * 5, options, clip, teacher=teacher)
    frozen = KnowledgeBatches(corpus, [None] * 5, options, clip, texts=cached)
    for step in range(5):
        ids = plain(step).inputs["text"]
        expected = corpus.text_features(clip, ids)
        features = torch.nn.functional.normalize(frozen(step).inputs["text"], dim=-1)
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(plain(step).inputs["teacher"].text, expected)


def test_parts_of_scenes_called_the_same_are_no_negatives(graph):
    entities = graph.entities.with_columns(
        name=pl.Series(["a", "b", "dog", "o1", "o2"]), scene=pl.Series([None, None, None, "a", "b"])
    )
    texts = {"entity": [2, 3, 4], "text": ["dog"] * 3, "kind": ["label"] * 3}
    graph = KnowledgeGraph(
        build_tables({**graph.tables.frames(), "entities": entities, "texts": texts})
    )
    corpus = Corpus(graph, tokenizer, torch.zeros(3, 2))
    assert corpus.pair_ids.tolist() == [0, 1, 2, 3, 3]


def test_each_source_has_its_share_of_the_triples(graph, clip):
    graph = described(graph)
    corpus = Corpus(graph, tokenizer, torch.zeros(3, 2))
    make = batches(graph, corpus, clip, num_triples=3, ratios={"x": 1.0, "z": 3.0})
    shares = {"x": 0.0, "y": 0.0, "z": 0.0}
    sources = corpus.triple_source[corpus.triple_split == "train"]
    for weight, source in zip(make.weights.tolist(), sources, strict=True):
        shares[source] += weight
    assert shares == pytest.approx({"x": 1.0, "y": 0.0, "z": 3.0})
    for wrong in ({"w": 1.0}, {"x": 0.0}):
        with pytest.raises(GraphError, match=r"batches\.ratios: .*'x', 'y', 'z'"):
            batches(graph, corpus, clip, ratios=wrong)


def test_texts_that_are_cut_are_counted():
    tokenizer_ = open_clip.get_tokenizer("ViT-B-32")
    texts = ["a cat", "word " * 75, "word " * 76, "word " * 400]  # 77 tokens with start and end
    graph = KnowledgeGraph.from_triples([(text, "r", "a cat") for text in texts[1:]])
    with pytest.warns(UserWarning, match="2 of 4 texts are longer than the 77 tokens"):
        corpus = Corpus(graph, tokenizer_, torch.zeros(0, 2))
    assert corpus.num_cut == 2  # of the labels; all facts say "r a cat"
    assert find_cut(tokenizer_, texts, tokenizer_(texts)) == texts[2:]
    assert find_cut(tokenizer, ["a" * 99], tokenizer(["a" * 99])) == []
