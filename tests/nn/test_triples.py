"""The fusion encoder equals a plain transformer over the whole, zero-padded concatenation."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from kgclip.nn.triples import (
    PRESETS,
    Tokens,
    TripleEncoder,
    TripleEncoderOptions,
    pool_tokens,
)

CHANNELS, IMAGE, TEXT, WIDTH = 6, 10, 5, 16
SMALL = TripleEncoderOptions(width=WIDTH, num_heads=2, max_tokens=4, missing_tokens=3)


def build(**options):
    torch.manual_seed(0)
    options = dataclasses.replace(SMALL, **options)
    return TripleEncoder(CHANNELS, IMAGE, TEXT, options).double().eval()


def entities(count, length=4, seed=1):
    """Embedded entities; the first is shorter than the others."""
    g = torch.Generator().manual_seed(seed)
    states = torch.randn(count, length, WIDTH, generator=g, dtype=torch.double)
    mask = torch.ones(count, length, dtype=torch.bool)
    mask[0, 2:] = False
    return Tokens(states, mask)


def relations(count, seed=2):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, CHANNELS, generator=g, dtype=torch.double), dim=-1)


def slow_read(encoder, head, relation, tail):
    """One triple, every zero vector written out, attention by its formula."""
    options = encoder.options
    rows, keys, real = [], [], []
    for slot, part in enumerate((head, relation, tail)):
        missing = part is None or (slot != 1 and not part.mask.any())
        if missing:
            x = torch.zeros(1 if slot == 1 else options.missing_tokens, options.width).double()
        elif slot == 1:
            x = encoder.from_relation(part * CHANNELS**0.5)[None]
        else:
            x = part.states[part.mask]
        rows.append(x + encoder.slots[slot])
        keys += [not missing or options.mask == "zero"] * len(x)
        real += [not missing] * len(x)
    place, x = len(rows[0]), torch.cat(rows)
    keys, real = torch.tensor(keys), torch.tensor(real)
    if not keys.any():
        keys[place] = True
    if not real.any():
        real[place] = True
    for layer in encoder.layers:
        q, k, v = layer.qkv(layer.attention_norm(x)).chunk(3, dim=1)
        mixed = []
        for a, b, c in zip(*(part.chunk(layer.num_heads, 1) for part in (q, k, v)), strict=True):
            scores = (a @ b[keys].T) / a.shape[1] ** 0.5
            mixed.append(scores.softmax(1) @ c[keys])
        x = x + layer.out(torch.cat(mixed, dim=1))
        x = x + layer.mlp(layer.mlp_norm(x))
    x = encoder.norm(x)
    return x[real].mean(0), x[place]


CASES = [(1, 1, 0), (0, 1, 1), (1, 0, 0), (0, 0, 1), (1, 1, 1), (1, 0, 1), (0, 1, 0)]


@pytest.mark.parametrize("mask", ["zero", "key_padding"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_whole_concatenation(mask, case):
    encoder = build(mask=mask)
    head, relation, tail = entities(3), relations(3), entities(3, seed=5)
    head.mask[2] = False  # an entity without any token counts as missing
    given = [part if there else None for part, there in zip((head, relation, tail), case,
                                                            strict=True)]  # fmt: skip
    fast = encoder.encode(*given)
    for row in range(3):
        parts = [None if part is None else part[row] for part in given]
        mean, _ = slow_read(encoder, *parts)
        expected = F.normalize(encoder.output(mean), dim=-1)
        torch.testing.assert_close(fast[row], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mask", ["zero", "key_padding"])
def test_relations_are_classified_at_their_place_by_their_text(mask):
    encoder, head, tail = build(mask=mask), entities(2), entities(2, seed=5)
    known = relations(4)
    logits = encoder.classify(head, tail, known)
    assert logits.shape == (2, 4)
    for row in range(2):
        _, at_place = slow_read(encoder, head[row], None, tail[row])
        found = F.normalize(encoder.relation_head(at_place), dim=-1)
        expected = encoder.logit_scale.exp() * known @ found
        torch.testing.assert_close(logits[row], expected, rtol=1e-9, atol=1e-12)
    unseen = encoder.classify(head, tail, torch.cat([known, relations(1, seed=9)]))
    torch.testing.assert_close(unseen[:, :4], logits)


def test_a_fixed_classifier_has_one_output_a_relation():
    encoder = TripleEncoder(CHANNELS, IMAGE, TEXT, SMALL, num_relations=7).double()
    assert encoder.classify(entities(2), entities(2), relations(3)).shape == (2, 7)


def test_slots_tell_head_from_tail():
    """Without them the encoder cannot see direction: f(h, r, ∅) = f(∅, r, h)."""
    entity, relation = entities(3), relations(3)
    for slots, differs in ((True, True), (False, False)):
        encoder = build(slots=slots)
        as_head = encoder.encode(entity, relation, None)
        as_tail = encoder.encode(None, relation, entity)
        difference = (as_head - as_tail).abs().max().item()
        assert (difference > 1e-2) if differs else (difference <= 1e-6)
        assert encoder.slots.requires_grad == slots


def test_padding_and_company_change_nothing():
    encoder, relation = build(), relations(3)
    few = entities(3)
    padded = Tokens(F.pad(few.states, (0, 0, 0, 5), value=7.0), F.pad(few.mask, (0, 5)))
    torch.testing.assert_close(
        encoder.encode(padded, relation, None), encoder.encode(few, relation, None)
    )
    alone = encoder.encode(few[torch.tensor([1])], relation[1:2], None)
    torch.testing.assert_close(alone[0], encoder.encode(few, relation, None)[1])


def test_a_batch_is_what_its_parts_are():
    encoder, known, known_relations = build(), entities(4), relations(3)
    triples = torch.tensor([[0, 1, 3], [2, 0, 0], [1, 1, 0]])
    found = encoder(known, known_relations, triples)
    assert set(found) == {"entity_features", "head_query", "tail_query", "relation_logits"}
    torch.testing.assert_close(found["entity_features"], encoder.encode(known, None, None))
    for number, (head, relation, tail) in enumerate(triples.T.tolist()):
        one = torch.tensor([head]), known_relations[relation][None], torch.tensor([tail])
        torch.testing.assert_close(
            found["head_query"][number], encoder.encode(None, one[1], known[one[2]])[0]
        )
        torch.testing.assert_close(
            found["tail_query"][number], encoder.encode(known[one[0]], one[1], None)[0]
        )
    assert set(encoder(known, known_relations, triples, ["tail_query"])) == {
        "entity_features", "tail_query"
    }  # fmt: skip
    empty = encoder(known, known_relations, triples[:, :0])
    assert empty["head_query"].shape == (0, CHANNELS)
    assert empty["relation_logits"].shape == (0, 3)


def test_entities_keep_their_order_and_modality():
    encoder = build()
    g = torch.Generator().manual_seed(3)
    text = Tokens(torch.randn(3, 2, TEXT, generator=g).double(), torch.ones(3, 2).bool())
    image = Tokens(torch.randn(2, 9, IMAGE, generator=g).double(), torch.ones(2, 9).bool())
    embedded = encoder.embed(text, image, torch.tensor([True, False, False, True, False]))
    assert embedded.states.shape == (5, 4, WIDTH)
    assert embedded.mask.sum(dim=1).tolist() == [4, 2, 2, 4, 2]
    pooled = pool_tokens(image, 4).states
    for place, row in ((0, 0), (3, 1)):
        torch.testing.assert_close(embedded.states[place], encoder.from_image(pooled[row]))
    for place, row in ((1, 0), (2, 1), (4, 2)):
        torch.testing.assert_close(embedded.states[place, :2], encoder.from_text(text.states[row]))


def test_tokens_are_pooled_in_equal_runs():
    g = torch.Generator().manual_seed(4)
    tokens = Tokens(torch.randn(4, 11, 3, generator=g), torch.ones(4, 11, dtype=torch.bool))
    tokens.mask[1, 7:] = tokens.mask[2, 2:] = tokens.mask[3] = False
    pooled = pool_tokens(tokens, 4)
    for row in range(4):
        real = tokens.states[row][tokens.mask[row]]
        runs = min(len(real), 4)
        assert pooled.mask[row].tolist() == [number < runs for number in range(4)]
        places = [i * runs // len(real) for i in range(len(real))]
        for number in range(runs):
            run = [x for x, place in zip(real, places, strict=True) if place == number]
            torch.testing.assert_close(pooled.states[row, number], torch.stack(run).mean(0))
    assert not pooled.states[~pooled.mask].any()
    for length in (None, 11, 20):
        assert pool_tokens(tokens, length) is tokens
    kept = pool_tokens(tokens, 4, num_prefix=1)
    torch.testing.assert_close(kept.states[0, 0], tokens.states[0, 0])
    rest = pool_tokens(Tokens(tokens.states[:, 1:], tokens.mask[:, 1:]), 3)
    torch.testing.assert_close(kept.states[:, 1:], rest.states)


def test_layers_are_dropped_in_training_alone():
    encoder, entity = build(drop_path=0.5), entities(40)
    assert torch.equal(encoder.encode(entity, None, None), encoder.encode(entity, None, None))
    encoder.train()
    drawn = [encoder.encode(entity, None, None) for _ in range(2)]
    assert not torch.equal(*drawn)


def test_presets_have_the_published_sizes():
    sizes = {name: (o.num_layers, o.width, o.max_tokens) for name, o in PRESETS.items()}
    assert sizes == {"small": (2, 512, 16), "paper": (4, 1024, None)}
    assert PRESETS["paper"].drop_path == 0.1
    layers = TripleEncoder(512, 768, 512).layers
    assert sum(p.numel() for p in layers.parameters()) == pytest.approx(6.3e6, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "none"}, "mask: 'none'"),
        ({"alone": "tower"}, "alone: 'tower'"),
        ({"num_heads": 3}, "no multiple of num_heads 3"),
        ({"max_tokens": 0}, "max_tokens: 0"),
        ({"drop_path": 1.0}, r"drop_path: 1\.0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **options)


def test_something_must_be_given():
    with pytest.raises(ValueError, match="all missing"):
        build().encode(None, None, None)
