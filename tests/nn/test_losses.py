"""Every entry of LOSSES meets one generic case; then each loss against its formula written out."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss

from kgclip.nn.info_nce import info_nce, masked_info_nce
from kgclip.nn.losses import (
    LOSSES,
    ContrastiveLoss,
    DistillationLoss,
    E2ELoss,
    E2RLoss,
    G2ELoss,
    GraphFactLoss,
    MultiPositiveLoss,
    SigLIPLoss,
)
from kgclip.nn.output import KnowledgeOutput, Targets

FROZEN = json.loads(Path(__file__).with_name("losses.json").read_text())
SQUARE = ("head_known", "tail_known")
PAIRS, ENTITIES, TRIPLES, RELATIONS, NEGATIVES, WIDTH = 6, 7, 5, 4, 3, 8


def unit(generator, rows):
    return F.normalize(torch.randn(rows, WIDTH, generator=generator), dim=1).requires_grad_()


def unit_negatives(generator):
    draw = torch.randn(PAIRS, NEGATIVES, WIDTH, generator=generator)
    return F.normalize(draw, dim=-1).requires_grad_()


def build_case(seed=0):
    """A batch with repeated pairs, entities and tails; the teacher differs from the student."""
    g = torch.Generator().manual_seed(seed)
    output = KnowledgeOutput(
        image_features=unit(g, PAIRS),
        text_features=unit(g, PAIRS),
        logit_scale=torch.tensor(10.0, requires_grad=True),
        entity_features=unit(g, ENTITIES),
        graph_features=unit(g, ENTITIES),
        head_query=unit(g, TRIPLES),
        tail_query=unit(g, TRIPLES),
        relation_logits=torch.randn(TRIPLES, RELATIONS, generator=g).requires_grad_(),
        teacher_image_features=unit(g, PAIRS),
        teacher_text_features=unit(g, PAIRS),
        teacher_logit_scale=torch.tensor(20.0),
        fused_features=unit(g, ENTITIES),
        logit_bias=torch.tensor(-3.0, requires_grad=True),
        pair_graph_features=unit(g, PAIRS),
        negative_graph_features=unit_negatives(g),
        negative_text_features=unit_negatives(g),
        region_features=unit(g, ENTITIES),
        region_text_features=unit(g, ENTITIES),
    )
    known = torch.eye(TRIPLES, dtype=torch.bool)
    known[0, 2] = known[3, 1] = True  # not symmetric, so that a wrong transpose shows
    mask = torch.ones(PAIRS, NEGATIVES, dtype=torch.bool)
    mask[1] = mask[2, 0] = False  # a pair without any negative
    targets = Targets(
        pair_ids=torch.tensor([0, 1, 2, 0, 3, 4]),
        region_ids=torch.tensor([1, 2, 1, 3, 4, 5, 6]),
        entity_ids=torch.tensor([5, 6, 7, 8, 5, 9, 1]),
        head_rows=torch.tensor([0, 1, 2, 3, 0]),
        tail_rows=torch.tensor([4, 5, 6, 4, 1]),
        relation_ids=torch.tensor([0, 1, 3, 3, 2]),
        relation_known=F.one_hot(torch.tensor([0, 1, 3, 3, 2]), RELATIONS).bool(),
        head_known=known,
        tail_known=known.flip(0, 1),
        negative_graph_mask=mask,
        negative_text_mask=mask.flip(0),
    )
    return output, targets


def collapse(output):
    """The same output with every feature at one point and all logits equal."""

    def flat(value):
        if value is None or value.ndim < 2:
            return value
        return F.normalize(torch.ones_like(value), dim=-1)

    fields = {f.name: flat(getattr(output, f.name)) for f in dataclasses.fields(output)}
    return KnowledgeOutput(**fields)


@pytest.mark.parametrize("name", LOSSES)
class TestEveryLoss:
    def test_frozen_number(self, name):
        assert LOSSES[name]()(*build_case()).item() == pytest.approx(FROZEN[name], abs=1e-5)

    def test_gradient_reaches_all_it_reads_and_nothing_else(self, name):
        loss, (output, targets) = LOSSES[name](), build_case()
        value = loss(output, targets)
        assert value.shape == ()
        value.backward()
        for field in dataclasses.fields(output):
            tensor = getattr(output, field.name)
            reached = tensor.grad is not None and bool(tensor.grad.any())
            fixed = field.name.startswith("teacher") or field.name == getattr(loss, "teacher", "")
            learns = field.name in loss.reads and not fixed
            if name == "fusion":  # moves the entity gate alone
                learns = field.name == "fused_features"
            assert reached == learns

    def test_missing_field_is_named(self, name):
        loss = LOSSES[name]()
        for field in loss.reads:
            output, targets = build_case()
            owner, word = (output, "output") if hasattr(output, field) else (targets, "targets")
            setattr(owner, field, None)
            with pytest.raises(ValueError, match=rf"{type(loss).__name__} reads '{field}'.*{word}"):
                loss(output, targets)

    def test_empty_batch_costs_nothing(self, name):
        output, targets = build_case()
        for record in (output, targets):
            for field in dataclasses.fields(record):
                value = getattr(record, field.name)
                if value.ndim:
                    empty = value[:0, :0] if field.name in SQUARE else value[:0]
                    setattr(record, field.name, empty)
        value = LOSSES[name]()(output, targets)
        value.backward()
        assert value.item() == 0.0

    def test_order_of_the_batch_does_not_matter(self, name):
        output, targets = build_case()
        expected = LOSSES[name]()(output, targets).item()
        triples = torch.tensor([3, 0, 4, 2, 1])
        for field in ("head_query", "tail_query", "relation_logits"):
            setattr(output, field, getattr(output, field)[triples])
        for field in ("head_rows", "tail_rows", "relation_ids", "relation_known"):
            setattr(targets, field, getattr(targets, field)[triples])
        for field in ("head_known", "tail_known"):
            setattr(targets, field, getattr(targets, field)[triples][:, triples])
        assert LOSSES[name]()(output, targets).item() == pytest.approx(expected, abs=1e-6)


def test_collapsed_encoder_gets_the_log_of_the_number_of_candidates():
    output, targets = build_case()
    targets.pair_ids, targets.entity_ids = torch.arange(PAIRS), torch.arange(ENTITIES)
    targets.region_ids = torch.arange(ENTITIES)
    targets.head_known = targets.tail_known = torch.eye(TRIPLES, dtype=torch.bool)
    candidates = {
        "contrastive": PAIRS,
        "regions": ENTITIES,
        "multi_positive": PAIRS,
        "e2e": TRIPLES,
        "e2r": RELATIONS,
        "g2e": ENTITIES,
        "graph_fact": TRIPLES,
        "fusion": TRIPLES,
        "distillation": 1,  # the collapsed teacher says nothing either
        "graph_alignment": PAIRS,
        "graph_negatives": 2,
        "text_negatives": 2,
    }
    # Each has a test of its own.
    others = {"siglip", "negclip", "margin", "distance", "angle", "kernel_alignment"}
    others |= {"laplacian", "gromov_wasserstein"}
    assert candidates.keys() | others == LOSSES.keys()
    for name, candidate_count in candidates.items():
        value = LOSSES[name]()(collapse(output), targets).item()
        assert value == pytest.approx(math.log(candidate_count), abs=1e-6), name


def test_masked_candidates_do_not_count():
    """One of the five others is a known answer in two rows: log 5 there becomes log 4."""
    output, targets = build_case()
    value = E2ELoss(both_directions=False)(collapse(output), targets).item()
    assert value == pytest.approx((3 * math.log(5) + 2 * math.log(4)) / 5, abs=1e-6)


# The functional core


def test_info_nce_is_the_mean_over_positives_of_the_log_softmax():
    g = torch.Generator().manual_seed(1)
    queries, keys = unit(g, 4), unit(g, 6)
    positives = torch.rand(4, 6, generator=g) < 0.4
    positives[:, 2] = True
    expected = 0.0
    for i in range(4):
        exp = [math.exp(7.0 * (queries[i] @ key).item()) for key in keys]
        chosen = [j for j in range(6) if positives[i, j]]
        expected -= sum(math.log(exp[j] / sum(exp)) for j in chosen) / len(chosen) / 4
    assert info_nce(queries, keys, 7.0, positives).item() == pytest.approx(expected, abs=1e-5)


def test_both_cores_agree_on_one_positive():
    g = torch.Generator().manual_seed(2)
    queries, keys = unit(g, 5), unit(g, 9)
    single = info_nce(queries, keys, 5.0, torch.eye(5, 9, dtype=torch.bool))
    assert torch.allclose(single, masked_info_nce(queries, keys, 5.0), atol=1e-6)


def test_masked_core_drops_columns_but_never_the_own():
    g = torch.Generator().manual_seed(3)
    queries, keys = unit(g, 3), unit(g, 3)
    ignore = torch.ones(3, 3, dtype=torch.bool)
    before = ignore.clone()
    assert masked_info_nce(queries, keys, 5.0, ignore).item() == 0.0
    assert torch.equal(ignore, before)  # the caller's mask is left alone
    ignore = torch.zeros(3, 3, dtype=torch.bool)
    ignore[0, 2] = True
    rows = [
        F.cross_entropy(5.0 * queries[0] @ keys[:2].T, torch.tensor(0)),
        F.cross_entropy(5.0 * queries[1] @ keys.T, torch.tensor(1)),
        F.cross_entropy(5.0 * queries[2] @ keys.T, torch.tensor(2)),
    ]
    value = masked_info_nce(queries, keys, 5.0, ignore)
    assert torch.allclose(value, torch.stack(rows).mean(), atol=1e-6)


def test_masked_core_has_finite_gradients_where_all_others_are_masked():
    g = torch.Generator().manual_seed(3)
    queries, keys = unit(g, 3), unit(g, 3)
    masked_info_nce(queries, keys, 100.0, torch.ones(3, 3, dtype=torch.bool)).backward()
    assert torch.equal(queries.grad, torch.zeros(3, WIDTH))


def test_appended_duplicate_of_an_answer_changes_nothing_when_masked():
    g = torch.Generator().manual_seed(4)
    query, tails = unit(g, 1), unit(g, 4)
    more = torch.cat([tails, tails[:1]])
    ignore = torch.tensor([[False, False, False, False, True]])
    once = masked_info_nce(query, tails, 5.0)
    assert torch.allclose(masked_info_nce(query, more, 5.0, ignore), once, atol=1e-6)
    assert masked_info_nce(query, more, 5.0) > once  # unmasked it is punished


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("D", lambda x: masked_info_nce(x, x[:, :4], 1.0)),
        ("2 rows for 3 queries", lambda x: masked_info_nce(x, x[:2], 1.0)),
        ("torch.bool", lambda x: masked_info_nce(x, x, 1.0, torch.ones(3, 3))),
        (r"\[3, 3\] expected", lambda x: masked_info_nce(x, x, 1.0, torch.ones(3, 2).bool())),
        ("query 1 has no positive", lambda x: info_nce(x, x, 1.0, torch.eye(3).bool() & _row1())),
        ("alpha", lambda x: MultiPositiveLoss(alpha=1.5)),
        ("sides", lambda x: E2ELoss(sides=("heads",))),
        ("sides", lambda x: E2ELoss(sides=())),
        ("temperature", lambda x: DistillationLoss(temperature=0.0)),
    ],
)
def test_wrong_arguments_are_named(message, call):
    with pytest.raises(ValueError, match=message):
        call(unit(torch.Generator().manual_seed(0), 3))


def _row1():
    return (torch.arange(3) != 1)[:, None].expand(3, 3)


# Image-text pairs


@pytest.mark.parametrize("ids", [None, torch.arange(PAIRS)])
def test_contrastive_is_open_clips_loss(ids):
    output, targets = build_case()
    targets.pair_ids = ids
    expected = ClipLoss()(output.image_features, output.text_features, output.logit_scale)
    assert torch.allclose(ContrastiveLoss()(output, targets), expected, atol=1e-6)


def test_contrastive_drops_the_pairs_of_the_same_entity():
    output, targets = build_case()  # pairs 0 and 3 are one entity
    logits = output.logit_scale * output.image_features @ output.text_features.T
    expected = 0.0
    for i in range(PAIRS):
        keep = [j for j in range(PAIRS) if j == i or {i, j} != {0, 3}]
        for row in (logits[i], logits[:, i]):
            expected -= (row[i] - row[keep].logsumexp(0)).item() / (2 * PAIRS)
    assert ContrastiveLoss()(output, targets).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("num_twins", [0, 1, 3])
def test_duplicates_cost_clip_loss_what_ours_do_not_pay(num_twins):
    """m of B items in duplicate pairs: ClipLoss cannot fall below (m/B) ln 2."""
    size, distinct = 8, 8 - num_twins
    ids = torch.cat([torch.arange(distinct), torch.arange(num_twins)])
    floor = 2 * num_twins / size * math.log(2)
    scale = torch.tensor(100.0)
    perfect = torch.eye(WIDTH)[ids].requires_grad_()
    assert ClipLoss()(perfect, perfect, scale).item() == pytest.approx(floor, abs=1e-5)
    for seed in range(20):  # the same picture and caption have the same features, whatever these
        g = torch.Generator().manual_seed(seed)
        image, text = (unit(g, distinct).detach()[ids] for _ in "ab")
        assert ClipLoss()(image, text, scale).item() >= floor - 1e-6
    output = KnowledgeOutput(image_features=perfect, text_features=perfect, logit_scale=scale)
    targets = Targets(pair_ids=ids)
    assert ContrastiveLoss()(output, targets).item() == pytest.approx(0, abs=1e-5)
    # Soft targets keep their own entropy, but nothing pushes the twins apart.
    soft = MultiPositiveLoss(alpha=1.0)(output, targets)
    assert soft.item() == pytest.approx(floor, abs=1e-5)
    soft.backward()
    assert perfect.grad.abs().max() < 1e-4


def test_multi_positive_without_alpha_is_open_clips_loss():
    output, targets = build_case()
    expected = ClipLoss()(output.image_features, output.text_features, output.logit_scale)
    assert torch.allclose(MultiPositiveLoss(alpha=0.0)(output, targets), expected, atol=1e-6)


def test_multi_positive_with_alpha_one_is_unicl():
    output, targets = build_case()
    image, text, scale = output.image_features, output.text_features, output.logit_scale
    same = targets.pair_ids[:, None] == targets.pair_ids[None, :]
    expected = (info_nce(image, text, scale, same) + info_nce(text, image, scale, same)) / 2
    assert torch.allclose(MultiPositiveLoss(alpha=1.0)(output, targets), expected, atol=1e-6)


def test_multi_positive_soft_targets_from_a_directed_similarity():
    """Rows shifted to minimum 0 and normalised; the other direction normalises the columns."""
    output, targets = build_case()
    similarity = torch.rand(PAIRS, PAIRS, generator=torch.Generator().manual_seed(5)) - 0.5
    similarity[2] = 0.3  # says nothing: the identity's row
    logits = output.logit_scale * output.image_features @ output.text_features.T
    expected = 0.0
    for matrix, scores in ((similarity, logits), (similarity.T, logits.T)):
        for i in range(PAIRS):
            row = matrix[i] - matrix[i].min()
            own = torch.eye(PAIRS)[i]
            spread = row / row.sum() if row.sum() > 0 else own
            wanted = 0.3 * spread + 0.7 * own
            expected -= ((wanted * scores[i].log_softmax(0)).sum()).item() / (2 * PAIRS)
    value = MultiPositiveLoss(alpha=0.3, similarity=lambda ids: similarity)(output, targets)
    assert value.item() == pytest.approx(expected, abs=1e-5)


# Triples


def one_way(queries, keys, scale, known):
    """The loss of each query written out: its own key against those not known."""
    logits = scale * queries @ keys.T
    size = len(queries)
    keep = [[j for j in range(size) if j == i or not known[i, j]] for i in range(size)]
    return sum((logits[i, keep[i]].logsumexp(0) - logits[i, i]).item() for i in range(size)) / size


@pytest.mark.parametrize(
    ("loss", "features"), [(E2ELoss, "entity_features"), (GraphFactLoss, "graph_features")]
)
@pytest.mark.parametrize("side", ["head", "tail"])
@pytest.mark.parametrize("both", [False, True])
def test_triples_ask_for_their_missing_end(loss, features, side, both):
    output, targets = build_case()
    query, rows, known = (
        getattr(output, f"{side}_query"),
        getattr(targets, f"{side}_rows"),
        getattr(targets, f"{side}_known"),
    )
    ends = getattr(output, features)[rows]
    expected = one_way(query, ends, output.logit_scale, known)
    if both:
        expected = (expected + one_way(ends, query, output.logit_scale, known.T)) / 2
    value = loss(sides=(side,), both_directions=both)(output, targets)
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_both_sides_are_averaged_and_read():
    output, targets = build_case()
    loss = E2ELoss(sides=("head", "tail"))
    parts = [E2ELoss(sides=(side,))(output, targets) for side in ("head", "tail")]
    assert torch.allclose(loss(output, targets), (parts[0] + parts[1]) / 2)
    assert {"head_query", "tail_query", "head_known", "tail_known"} <= set(loss.reads)


@pytest.mark.parametrize("loss", [E2ELoss, GraphFactLoss])
def test_a_fact_that_is_repeated_is_no_negative_of_itself(loss):
    output, targets = build_case()
    output.head_query = output.head_query[:1].repeat(3, 1)
    targets.head_rows = targets.head_rows[:1].repeat(3)
    targets.head_known = torch.ones(3, 3, dtype=torch.bool)
    assert loss()(output, targets).item() == 0.0
    targets.head_known = torch.eye(3, dtype=torch.bool)
    assert loss()(output, targets).item() == pytest.approx(math.log(3), abs=1e-6)


def test_g2e_does_not_push_rows_of_one_entity_apart():
    output, targets = build_case()  # rows 0 and 4 are entity 5
    same = torch.eye(ENTITIES, dtype=torch.bool)
    same[0, 4] = same[4, 0] = True
    entity, graph, scale = output.entity_features, output.graph_features, output.logit_scale
    expected = one_way(entity, graph, scale, same) + one_way(graph, entity, scale, same)
    assert G2ELoss()(output, targets).item() == pytest.approx(expected / 2, abs=1e-5)


# Relations and the teacher


def test_e2r_adjusts_the_logits_by_the_prior():
    output, targets = build_case()
    counts = [100, 10, 0, 1]
    prior = torch.tensor([100.0, 10, 1, 1]) / 112
    shifted = output.relation_logits + 0.5 * prior.log()
    expected = F.cross_entropy(shifted, targets.relation_ids)
    assert torch.allclose(E2RLoss(counts, tau=0.5)(output, targets), expected, atol=1e-6)
    plain = F.cross_entropy(output.relation_logits, targets.relation_ids)
    assert torch.allclose(E2RLoss()(output, targets), plain, atol=1e-6)
    assert torch.allclose(E2RLoss([7] * RELATIONS)(output, targets), plain, atol=1e-6)
    with pytest.raises(ValueError, match="4 relations, relation_counts has 2"):
        E2RLoss([1, 2])(output, targets)


def test_e2r_does_not_deny_the_other_relations_of_a_pair():
    output, targets = build_case()
    known = torch.zeros(TRIPLES, RELATIONS, dtype=torch.bool)
    known[0, 0] = known[0, 2] = known[3, 1] = True  # the own relation is never left out
    targets.relation_known = known
    rows = []
    for i, relation in enumerate(targets.relation_ids.tolist()):
        kept = [r for r in range(RELATIONS) if r == relation or not known[i, r]]
        logits = output.relation_logits[i]
        rows.append(logits[kept].logsumexp(0) - logits[relation])
    torch.testing.assert_close(E2RLoss()(output, targets), torch.stack(rows).mean())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_is_the_divergence_from_the_teacher(temperature):
    output, targets = build_case()
    student = output.logit_scale * output.image_features @ output.text_features.T
    teacher = (
        output.teacher_logit_scale * output.teacher_image_features @ output.teacher_text_features.T
    )
    expected = 0.0
    for s, t in ((student, teacher), (student.T, teacher.T)):
        p, q = (t / temperature).softmax(1), (s / temperature).softmax(1)
        expected += ((p * (p.log() - q.log())).sum()).item() / PAIRS / 2 * temperature**2
    value = DistillationLoss(temperature)(output, targets)
    assert value.item() == pytest.approx(expected, rel=1e-4)
    distance = F.mse_loss(output.image_features, output.teacher_image_features) + F.mse_loss(
        output.text_features, output.teacher_text_features
    )
    more = DistillationLoss(temperature, feature_weight=3.0)(output, targets)
    assert torch.allclose(more - value, 3 * distance, atol=1e-5)


def test_distillation_is_zero_with_zero_gradient_when_student_is_teacher():
    output, targets = build_case()
    output.teacher_image_features = output.image_features.detach().clone()
    output.teacher_text_features = output.text_features.detach().clone()
    output.teacher_logit_scale = output.logit_scale.detach().clone()
    value = DistillationLoss(feature_weight=2000.0)(output, targets)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    for tensor in (output.image_features, output.text_features, output.logit_scale):
        assert tensor.grad.abs().max().item() < 1e-5


def test_distillation_takes_a_wider_teacher_but_not_for_features():
    output, targets = build_case()
    wide = F.normalize(torch.randn(2, PAIRS, 12, generator=torch.Generator().manual_seed(6)), dim=2)
    output.teacher_image_features, output.teacher_text_features = wide
    assert DistillationLoss()(output, targets).item() > 0
    with pytest.raises(ValueError, match="teacher_image_features"):
        DistillationLoss(feature_weight=1.0)(output, targets)


def test_siglip_is_the_sigmoid_of_every_cell():
    output, targets = build_case()
    logits = output.logit_scale * output.image_features @ output.text_features.T + output.logit_bias
    total = 0.0
    for i, one in enumerate(targets.pair_ids.tolist()):
        for j, other in enumerate(targets.pair_ids.tolist()):
            sign = 1 if one == other else -1
            total -= math.log(1 / (1 + math.exp(-sign * logits[i, j].item())))
    assert SigLIPLoss()(output, targets).item() == pytest.approx(total / PAIRS, rel=1e-5)
    targets.pair_ids = None
    theirs = SigLipLoss()(
        output.image_features, output.text_features, output.logit_scale, output.logit_bias
    )
    torch.testing.assert_close(SigLIPLoss()(output, targets), theirs)
