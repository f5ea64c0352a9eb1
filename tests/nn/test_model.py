"""Knowledge-CLIP is open_clip until it is trained, and asks only for what it is given."""

import dataclasses

import open_clip
import pytest
import torch
from open_clip.model import CLIP

from kgclip.graph import KnowledgeGraph
from kgclip.hetero import to_hetero
from kgclip.nn.losses import ContrastiveLoss, DistillationLoss, E2ELoss, G2ELoss
from kgclip.nn.model import (
    GraphEncoder,
    GraphInputs,
    KnowledgeCLIP,
    TripleInputs,
    build_triple_encoder,
    create_model_and_transforms,
    joint_width,
)
from kgclip.nn.output import Targets
from kgclip.nn.teacher import Teacher, TeacherFeatures
from kgclip.nn.token_inputs import TokenInputs
from kgclip.nn.tokens import encode_tokens
from kgclip.nn.triples import TripleEncoderOptions

WIDTH = 16


@pytest.fixture
def clip():
    torch.manual_seed(0)
    vision = {"layers": 1, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16}
    text = {"context_length": 12, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    return CLIP(embed_dim=WIDTH, vision_cfg=vision, text_cfg=text).eval()


def texts(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(count, 12, dtype=torch.long)
    tokens[:, :4] = torch.randint(1, 48, (count, 4), generator=generator)
    tokens[:, 4] = 49  # end of text: the largest id
    return tokens


def triples(image_mask):
    mask = torch.tensor(image_mask)
    return TripleInputs(
        texts(len(mask), 1), texts(3, 2), torch.randn(int(mask.sum()), 3, 16, 16), mask
    )


def graph(rows):
    x = torch.nn.functional.normalize(torch.randn(5, WIDTH), dim=-1)
    edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
    return GraphInputs(x, edges, torch.tensor([0, 1, 0]), torch.randn(2, WIDTH), torch.tensor(rows))


def test_encodings_are_open_clips(clip):
    model = KnowledgeCLIP(clip, GraphEncoder(WIDTH))
    image, text = torch.randn(2, 3, 16, 16), texts(2)
    for normalize in (False, True):
        assert torch.equal(
            model.encode_image(image, normalize), clip.encode_image(image, normalize=normalize)
        )
        assert torch.equal(
            model.encode_text(text, normalize), clip.encode_text(text, normalize=normalize)
        )


def test_pairs_alone_give_open_clips_output(clip):
    image, text = torch.randn(2, 3, 16, 16), texts(2)
    output, expected = KnowledgeCLIP(clip)(image=image, text=text), clip(image, text)
    torch.testing.assert_close(output.image_features, expected[0])
    torch.testing.assert_close(output.text_features, expected[1])
    torch.testing.assert_close(output.logit_scale, expected[2])
    assert output.entity_features is None
    assert output.graph_features is None


@pytest.mark.parametrize("mask", [[True, False, True], [False] * 3, [True] * 3])
def test_entities_are_read_as_picture_or_text(clip, mask):
    model, inputs = KnowledgeCLIP(clip), triples(mask)
    output = model(triples=inputs)
    from_text = clip.encode_text(inputs.text, normalize=True)
    from_image = iter(clip.encode_image(inputs.image, normalize=True) if any(mask) else [])
    for row, is_image in enumerate(mask):
        expected = next(from_image) if is_image else from_text[row]
        torch.testing.assert_close(output.entity_features[row], expected)
    torch.testing.assert_close(
        output.head_query, clip.encode_text(inputs.fact_text, normalize=True)
    )


def test_gradients_reach_both_towers_and_the_graph(clip):
    model = KnowledgeCLIP(clip, GraphEncoder(WIDTH))
    output = model(triples=triples([True, False, True]), graph=graph([1, 2, 3]))
    (
        output.entity_features.sum() + output.head_query.sum() + output.graph_features.sum()
    ).backward()
    for name in ("visual.conv1.weight", "token_embedding.weight"):
        assert clip.get_parameter(name).grad.abs().sum() > 0, name
    assert model.graph_encoder.convs[0].gate.weight.grad.abs().sum() > 0


def test_untrained_graph_encoder_is_the_neighbour_mean():
    inputs = graph([0])
    out = GraphEncoder(WIDTH, num_layers=3)(
        inputs.x, inputs.edge_index, inputs.edge_type, inputs.relation_features
    )
    torch.testing.assert_close(out[1], inputs.x[0])
    assert not out[0].any()


def test_a_row_that_only_a_closed_gate_could_fill_gets_a_small_gradient():
    encoder, x = GraphEncoder(WIDTH), torch.randn(3, WIDTH)
    x[1] = 0  # the only neighbour of node 0 is in the batch too; what is behind it, is not
    edges = torch.tensor([[1, 2], [0, 1]])
    out = encoder(x, edges, torch.tensor([0, 0]), torch.randn(1, WIDTH))
    out[0].sum().backward()
    assert not out[0].any()
    assert 0 < encoder.hop_gates.grad.abs() < 100


def test_graph_without_graph_encoder_is_refused(clip):
    with pytest.raises(ValueError, match="no graph_encoder"):
        KnowledgeCLIP(clip)(graph=graph([0]))


def test_at_least_one_hop():
    with pytest.raises(ValueError, match="num_layers is 0"):
        GraphEncoder(WIDTH, num_layers=0)


@pytest.fixture(scope="module")
def whole():
    graph = KnowledgeGraph.from_triples(
        [("Kenya", "capital", "Nairobi"), ("Kenya", "near", "Chad")]
    )
    torch.manual_seed(0)
    model, _, _ = create_model_and_transforms("RN50", image_interpolation="bicubic")
    return model.eval(), graph


def test_entities_before_training_are_their_labels(whole):
    model, graph = whole
    with torch.no_grad():
        encoded = model.encode_entities(to_hetero(graph), torch.tensor([2, 0]))
        labels = model.encode_text(model.tokenizer(["Chad", "Kenya"]), normalize=True)
    torch.testing.assert_close(encoded, labels, atol=2e-6, rtol=0)


def test_an_open_gate_lets_the_graph_in(whole):
    model, graph = whole
    with torch.no_grad():
        before = model.encode_entities(to_hetero(graph), torch.arange(3))
        model.entity_gate.fill_(0.1)
        after = model.encode_entities(to_hetero(graph, by_type=False), torch.arange(3))
        model.entity_gate.zero_()
    assert (after - before).norm(dim=1).min() > 0.01
    torch.testing.assert_close(after.norm(dim=1), torch.ones(3))


def test_entities_need_a_tokenizer(clip):
    graph = KnowledgeGraph.from_triples([("a", "r", "b")])
    with pytest.raises(ValueError, match=r"needs model\.tokenizer"):
        KnowledgeCLIP(clip).encode_entities(to_hetero(graph), torch.tensor([0]))


@pytest.mark.parametrize("with_triples", [False, True])
def test_corrupted_captions_are_read_beside_the_captions(clip, with_triples):
    model = KnowledgeCLIP(clip, None, build_triple_encoder(clip, SMALL)).eval()
    text, negative = texts(2), texts(6, 3).view(2, 3, 12)
    triples_ = token_inputs([False] * 3) if with_triples else None
    output = model(text=text, negative_text=negative, triples=triples_)
    torch.testing.assert_close(output.text_features, clip.encode_text(text, normalize=True))
    expected = clip.encode_text(negative.flatten(0, 1), normalize=True).view(2, 3, WIDTH)
    torch.testing.assert_close(output.negative_text_features, expected)


# Triples read token by token

SMALL = TripleEncoderOptions(width=32, num_heads=2, max_tokens=4)


def token_inputs(image_mask, count=5, **options):
    mask = torch.tensor(image_mask)
    return TokenInputs(
        text=texts(int((~mask).sum()), 1),
        image=torch.randn(int(mask.sum()), 3, 16, 16),
        image_mask=mask,
        relation_text=texts(2, 2),
        triples=torch.tensor([[0, 1, 2, 0, 1], [0, 1, 0, 1, 1], [1, 2, 0, 2, 1]])[:, :count],
        **options,
    )


@pytest.fixture
def fused(clip):
    return KnowledgeCLIP(clip, None, build_triple_encoder(clip, SMALL)).eval()


@pytest.mark.parametrize("mask", [[True, False, True], [False] * 3, [True] * 3])
def test_the_triple_encoder_fills_its_fields(fused, mask):
    output = fused(triples=token_inputs(mask))
    assert output.entity_features.shape == (3, WIDTH)
    assert output.head_query.shape == output.tail_query.shape == (5, WIDTH)
    assert output.relation_logits.shape == (5, 2)
    for features in (output.entity_features, output.head_query, output.tail_query):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))


def test_pairs_beside_triples_are_the_pairs_alone(fused, clip):
    image, text = torch.randn(2, 3, 16, 16), texts(2)
    output = fused(image=image, text=text, triples=token_inputs([True, False, True]))
    alone = fused(image=image, text=text)
    torch.testing.assert_close(output.image_features, alone.image_features)
    torch.testing.assert_close(output.text_features, alone.text_features)
    trunk = clip.encode_image(image)  # cached: this tower is all trunk
    cached = fused(image=trunk, text=alone.text_features, triples=token_inputs([False] * 3))
    torch.testing.assert_close(cached.image_features, alone.image_features)
    torch.testing.assert_close(cached.text_features, alone.text_features)


def test_a_picture_of_the_pairs_is_not_encoded_again(fused, clip):
    image, text = torch.randn(2, 3, 16, 16), texts(2)
    own = token_inputs([True, False, True])
    own.image[1] = image[0]
    shared = dataclasses.replace(own, image=own.image[:1], image_rows=torch.tensor([2, 0]))
    sizes = []
    clip.visual.register_forward_hook(lambda *_: sizes.append("whole"))
    clip.visual.transformer.resblocks[0].register_forward_hook(
        lambda _, inputs, __: sizes.append(inputs[0].shape[0])
    )
    expected = fused(image=image, text=text, triples=own)
    found = fused(image=image, text=text, triples=shared)
    assert sizes == [4, 3]
    for field in ("image_features", "entity_features", "head_query", "relation_logits"):
        torch.testing.assert_close(getattr(found, field), getattr(expected, field))


def test_cached_tokens_give_what_the_towers_give(fused, clip):
    inputs = token_inputs([True, False, True])
    with torch.no_grad():
        text, mask = encode_tokens(clip, text=inputs.text)
        cached = dataclasses.replace(
            inputs,
            text=text,
            text_mask=mask,
            image=encode_tokens(clip, image=inputs.image)[0],
            relation_text=clip.encode_text(inputs.relation_text),
        )
        expected, found = fused(triples=inputs), fused(triples=cached)
    for field in ("entity_features", "head_query", "tail_query", "relation_logits"):
        torch.testing.assert_close(getattr(found, field), getattr(expected, field))


@pytest.mark.parametrize("mask", [[True, False, True], [False] * 3, [True] * 3])
def test_an_entity_alone_can_be_what_its_tower_says(clip, mask):
    options = dataclasses.replace(SMALL, alone="towers")
    model = KnowledgeCLIP(clip, None, build_triple_encoder(clip, options)).eval()
    inputs = token_inputs(mask)
    output = model(triples=inputs)
    from_text = iter(clip.encode_text(inputs.text, normalize=True))
    from_image = iter(clip.encode_image(inputs.image, normalize=True) if any(mask) else [])
    for row, is_image in enumerate(mask):
        expected = next(from_image if is_image else from_text)
        torch.testing.assert_close(output.entity_features[row], expected)
    assert output.head_query.shape == (5, WIDTH)


def test_cached_tokens_need_features_beside_them_for_that(clip):
    options = dataclasses.replace(SMALL, alone="towers")
    model = KnowledgeCLIP(clip, None, build_triple_encoder(clip, options)).eval()
    inputs = token_inputs([True, False, True])
    with torch.no_grad():
        cached = dataclasses.replace(inputs, image=encode_tokens(clip, image=inputs.image)[0])
        with pytest.raises(ValueError, match="give TokenInputs image_features"):
            model(triples=cached)
        cached.image_features = clip.encode_image(inputs.image)
        torch.testing.assert_close(
            model(triples=cached).entity_features, model(triples=inputs).entity_features
        )


def test_entity_losses_reach_both_towers_through_their_tokens(fused, clip):
    output = fused(triples=token_inputs([True, False, True], asked=["head_query", "tail_query"]))
    assert output.relation_logits is None
    known = torch.eye(5, dtype=torch.bool)
    targets = Targets(head_rows=torch.tensor([0, 1, 2, 0, 1]), head_known=known,
                      tail_rows=torch.tensor([1, 2, 0, 2, 1]), tail_known=known)  # fmt: skip
    E2ELoss(sides=("head", "tail"))(output, targets).backward()
    for name in ("visual.conv1.weight", "token_embedding.weight"):
        assert clip.get_parameter(name).grad.abs().sum() > 0, name


def test_tokens_without_a_triple_encoder_are_refused(clip):
    with pytest.raises(ValueError, match="no triple_encoder"):
        KnowledgeCLIP(clip)(triples=token_inputs([False] * 3))


def test_presets_are_found_by_name(clip):
    assert build_triple_encoder(clip, "small").from_image.in_features == 32
    with pytest.raises(ValueError, match=r"'smal' given.*nearest is 'small'"):
        build_triple_encoder(clip, "smal")


def test_the_teacher_stays_what_the_model_was(clip):
    model = KnowledgeCLIP(clip, teacher=Teacher(clip))
    image, text = torch.randn(2, 3, 16, 16), texts(2)
    before = model(image=image, text=text)
    torch.testing.assert_close(before.teacher_image_features, before.image_features)
    torch.testing.assert_close(before.teacher_text_features, before.text_features)
    assert DistillationLoss()(before, Targets()).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    after = model(image=image, text=text)
    torch.testing.assert_close(after.teacher_image_features, before.image_features)
    assert DistillationLoss()(after, Targets()).item() > 1e-4
    assert not any("teacher" in name for name in model.state_dict())
    cached = TeacherFeatures(before.text_features, before.image_features, torch.tensor(3.0))
    given = model(image=image, text=text, teacher=cached)
    assert given.teacher_image_features is before.text_features


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "RN50", "ViT-B-16-SigLIP", "vit_medium_patch16_gap_256", "hugging face"]
)
@torch.no_grad()
def test_with_gates_at_zero_every_family_is_open_clips_bit_by_bit(name, hugging_face_folder):
    name = f"local-dir:{hugging_face_folder}" if name == "hugging face" else name
    torch.manual_seed(0)
    theirs = open_clip.create_model(name).eval()
    torch.manual_seed(0)
    clip = open_clip.create_model(name)
    width = joint_width(clip)
    model = KnowledgeCLIP(clip, GraphEncoder(width), build_triple_encoder(clip)).eval()
    size = theirs.visual.image_size
    size = size if isinstance(size, tuple) else (size, size)
    image = torch.randn(2, 3, *size)
    text = torch.randint(1, 9, (3, int(theirs.context_length)))
    for normalize in (False, True):
        assert torch.equal(
            model.encode_image(image, normalize), theirs.encode_image(image, normalize=normalize)
        )
        features = theirs.encode_text(text, normalize=normalize)
        assert torch.equal(model.encode_text(text, normalize), features)
    neighbours = torch.nn.functional.normalize(torch.randn(3, width), dim=-1)
    assert (model.fuse(features, neighbours) - features).abs().max() <= 1e-6


def test_a_local_folder_with_a_hugging_face_text_tower(hugging_face_folder):
    name = f"local-dir:{hugging_face_folder}"
    model, _, preprocess = create_model_and_transforms(name)
    theirs, _, their_preprocess = open_clip.create_model_and_transforms(name)
    assert repr(preprocess) == repr(their_preprocess)
    tokens = model.tokenizer(["a red cat", "dog"])
    assert torch.equal(tokens, open_clip.get_tokenizer(name)(["a red cat", "dog"]))
    with torch.no_grad():
        assert torch.equal(model.eval().encode_text(tokens), theirs.eval().encode_text(tokens))


def test_gradient_in_chunks_is_that_of_the_whole_batch(clip):
    """32 pairs, triples with pictures and texts, and the graph around them, 8 at once."""
    torch.manual_seed(3)
    model = KnowledgeCLIP(clip, GraphEncoder(WIDTH)).train()
    mask = torch.rand(32) < 0.5
    triples_ = TripleInputs(
        texts(32, 1), texts(32, 2), torch.randn(int(mask.sum()), 3, 16, 16), mask
    )
    inputs = {
        "image": torch.randn(32, 3, 16, 16),
        "text": texts(32, 4)[torch.randint(0, 20, (32,))],  # some are equal
        "triples": triples_,
        "graph": graph(torch.randint(0, 4, (32,)).tolist()),
    }
    targets = Targets(
        pair_ids=torch.arange(32),
        entity_ids=torch.arange(32),
        head_rows=torch.arange(32),
        head_known=torch.eye(32, dtype=torch.bool),
    )
    found = []
    for chunk_size in (None, 8):
        model.zero_grad()
        output = model(**inputs, chunk_size=chunk_size)
        losses = [loss(output, targets) for loss in (ContrastiveLoss(), E2ELoss(), G2ELoss())]
        sum(losses).backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    whole, chunked = found
    assert whole.keys() == chunked.keys()
    assert {name.split(".")[0] for name in whole} == {"clip", "graph_encoder"}
    for name, expected in whole.items():
        limit = 1e-5 * expected.abs().max()
        assert (chunked[name] - expected).abs().max() <= limit, name


def test_the_triple_encoder_has_no_chunks(clip):
    model = KnowledgeCLIP(clip, None, build_triple_encoder(clip, SMALL))
    with pytest.raises(ValueError, match="chunk_size"):
        model(triples=token_inputs([False] * 3), chunk_size=2)
