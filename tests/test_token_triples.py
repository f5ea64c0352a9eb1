"""How entities are read is drawn anew each time, from what may be trained on."""

import pytest
import torch

from kgclip.batches import BatchOptions, Corpus, KnowledgeBatches
from kgclip.graph import KnowledgeGraph
from kgclip.negatives import NegativeSampler
from kgclip.nn.losses import E2ELoss, E2RLoss, G2ELoss
from kgclip.nn.model import GraphEncoder, KnowledgeCLIP, build_triple_encoder
from kgclip.nn.triples import TripleEncoderOptions
from kgclip.tables import build_tables
from kgclip.token_triples import TokenTriples, known_among
from tests.test_batches import clip, tokenizer  # noqa: F401  # a fixture

NAMES = ["a", "b", "c", "d"]
TRIPLES = torch.tensor([[0, 0, 1], [1, 0, 2], [2, 1, 3], [0, 0, 2], [3, 1, 3]])
TEXTS = [(0, "a", "en", "label"), (0, "alpha", "en", "alias"), (0, "l'a", "fr", "alias"),
         (1, "b", "en", "label"), (2, "gamma", "en", "description")]  # fmt: skip


@pytest.fixture
def graph():
    """Entity 0 has two pictures to train on, entity 1 one that is held out."""
    columns = zip(*TEXTS, strict=True)
    return KnowledgeGraph(
        build_tables(
            {
                "entities": {"name": NAMES},
                "relations": {"name": ["likes", "near"]},
                "triples": dict(zip(("head", "relation", "tail"), TRIPLES.T.tolist(), strict=True)),
                "texts": dict(zip(("entity", "text", "language", "kind"), columns, strict=True)),
                "images": {
                    "entity": [0, 1, 0],
                    "path": ["x", "y", "z"],
                    "split": ["train", "test", "train"],
                },
            }
        )
    )


@pytest.fixture
def image_tokens():
    return torch.arange(3 * 5 * 32).reshape(3, 5, 32).float() / 100


def draw(maker, seed=0, triples=TRIPLES):
    known = NegativeSampler(TRIPLES, 4, 2)
    return maker(triples, known, torch.Generator().manual_seed(seed))


def readings(maker, image_tokens, entity, draws=60):
    """Every way in which an entity was read."""
    seen = set()
    for seed in range(draws):
        inputs, targets = draw(maker, seed)
        images, texts = iter(inputs.image), iter(inputs.text)
        for owner, is_image in zip(targets.entity_ids, inputs.image_mask, strict=True):
            read = next(images if is_image else texts)
            if owner == entity:
                source = image_tokens if is_image else maker.text
                seen.add((bool(is_image), int((source == read).flatten(1).all(1).nonzero()[0])))
    return seen


def test_every_picture_and_text_of_the_labels_language_is_drawn(graph, image_tokens):
    maker = TokenTriples(graph, tokenizer, image_tokens)
    wording = {tuple(row): text for row, text in zip(maker.text.tolist(), maker_texts(graph),
                                                     strict=True)}  # fmt: skip
    assert set(wording.values()) == {"a", "b", "c", "d", "alpha"}

    def of(entity):
        return {
            read if read[0] else (False, wording[tuple(maker.text[read[1]].tolist())])
            for read in readings(maker, image_tokens, entity)
        }

    assert of(0) == {(True, 0), (True, 2), (False, "a"), (False, "alpha")}
    assert of(1) == {(False, "b")}, "its picture is held out"
    assert of(3) == {(False, "d")}, "no text at all: its name"


def maker_texts(graph):
    texts = []
    TokenTriples(graph, lambda given: texts.append(given) or tokenizer(given), torch.zeros(3, 1, 1))
    return texts[0]


def test_triples_point_at_their_entities(graph, image_tokens):
    inputs, targets = draw(TokenTriples(graph, tokenizer, image_tokens, image_share=0.0))
    head, relation, tail = inputs.triples
    assert torch.equal(targets.entity_ids[head], TRIPLES[:, 0])
    assert torch.equal(targets.entity_ids[tail], TRIPLES[:, 2])
    assert torch.equal(relation, TRIPLES[:, 1])
    assert torch.equal(targets.head_rows, head)
    assert torch.equal(targets.tail_rows, tail)
    used = sorted(targets.entity_ids.tolist())
    assert used in ([0, 1, 2, 3], [0, 0, 1, 2, 3]), "read the same way twice: encoded once"


def test_known_answers_are_those_of_training(graph, image_tokens):
    _, targets = draw(TokenTriples(graph, tokenizer, image_tokens))
    true = {tuple(row) for row in TRIPLES.tolist()}
    for i, (h, r, t) in enumerate(TRIPLES.tolist()):
        for j, (head, _, tail) in enumerate(TRIPLES.tolist()):
            assert targets.head_known[i, j] == ((head, r, t) in true)
            assert targets.tail_known[i, j] == ((h, r, tail) in true)
        for relation in range(2):
            assert targets.relation_known[i, relation] == ((h, relation, t) in true)
    nothing = torch.zeros(0, dtype=torch.long)
    known = NegativeSampler(TRIPLES, 4, 2)
    assert known_among(known, nothing[None], nothing[:, None], nothing[None]).shape == (0, 0)


def test_the_same_draw_twice(graph, image_tokens):
    maker = TokenTriples(graph, tokenizer, image_tokens)
    for left, right in zip(*(vars(draw(maker, 7)[0]).values() for _ in "ab"), strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


@pytest.fixture
def model(clip):  # noqa: F811
    options = TripleEncoderOptions(width=32, num_heads=2, max_tokens=4)
    return KnowledgeCLIP(clip, GraphEncoder(16), build_triple_encoder(clip, options)).eval()


def test_a_batch_trains_every_part(graph, image_tokens, model):
    corpus = Corpus(graph, tokenizer, torch.zeros(3, 16), image_tokens)
    maker = TokenTriples(graph, tokenizer, image_tokens, image_share=1.0)
    options = BatchOptions(num_pairs=0, num_triples=4, graph=True)
    batch = KnowledgeBatches(corpus, [None] * 4, options, model.clip, token_triples=maker)(1)
    assert batch.targets.entity_ids is not None
    output = model(**batch.inputs)
    losses = [E2ELoss(sides=("head", "tail")), E2RLoss(), G2ELoss()]
    sum(loss(output, batch.targets) for loss in losses).backward()
    assert output.graph_features.shape == output.entity_features.shape
    for name, parameter in model.triple_encoder.named_parameters():
        assert parameter.grad is not None, name
    assert model.clip.get_parameter("token_embedding.weight").grad.any()


def test_the_graphs_view_of_an_entity_holds_nothing_of_it(graph, image_tokens, model):
    """At two hops with inverse edges its own features would come back to it."""
    corpus = Corpus(graph, tokenizer, torch.zeros(3, 16), image_tokens)
    maker = TokenTriples(graph, tokenizer, image_tokens)
    options = BatchOptions(num_pairs=0, num_triples=1, graph=True)
    batches = KnowledgeBatches(corpus, [None] * 4, options, model.clip, token_triples=maker)
    with torch.no_grad():
        model.graph_encoder.hop_gates.fill_(0.5)

    seen = 0
    for step in range(1, 20):
        batch = batches(step)
        before = model(**batch.inputs).graph_features
        for row, entity in enumerate(batch.targets.entity_ids.tolist()):
            features = batches._features[0].clone()
            batches._features[0][entity] += torch.arange(16.0)
            after = model(**batches(step).inputs).graph_features
            torch.testing.assert_close(after[row], before[row])
            batches._features[0].copy_(features)
            seen += bool(before[row].any())
    assert seen > 5


def test_texts_of_a_frozen_tower_are_read_once(graph, image_tokens, model):
    with torch.no_grad():
        plain = TokenTriples(graph, tokenizer, image_tokens)
        cached = TokenTriples(graph, tokenizer, image_tokens)
        cached.cache_texts(model.clip, max_tokens=4, chunk=2)
        expected_features = model.encode_text(plain.text)
        torch.testing.assert_close(cached.text_features, expected_features)
        expected = model(triples=draw(plain)[0])
        model.clip.transformer.resblocks[0].register_forward_hook(lambda *_: pytest.fail("read"))
        found = model(triples=draw(cached)[0])
    for field in ("entity_features", "head_query", "tail_query", "relation_logits"):
        torch.testing.assert_close(getattr(found, field), getattr(expected, field))


def test_one_row_a_picture(graph):
    with pytest.raises(ValueError, match="has 2 rows"):
        TokenTriples(graph, tokenizer, torch.zeros(2, 5, 32))
