"""Scores equal their formulas, and all entities at once score like one at a time."""

import cmath

import pytest
import torch

from kgclip.nn import scoring as scoring_module
from kgclip.nn.scoring import (
    SCORINGS,
    invert_relations,
    score_all,
    score_relations,
    score_triples,
)


def slow_score(h, r, t, scoring):
    if scoring == "transe":
        return -sum(abs(a + b - c) for a, b, c in zip(h, r, t, strict=True))
    if scoring == "distmult":
        return sum(a * b * c for a, b, c in zip(h, r, t, strict=True))
    half = len(h) // 2
    numbers = [[complex(v[i], v[i + half]) for i in range(half)] for v in (h, r, t)]
    if scoring == "complex":
        return sum((a * b * c.conjugate()).real for a, b, c in zip(*numbers, strict=True))
    heads, _, tails = numbers
    turned = [a * cmath.exp(1j * angle) for a, angle in zip(heads, r[:half], strict=True)]
    return -sum(abs(a - b) for a, b in zip(turned, tails, strict=True))


@pytest.mark.parametrize("scoring", SCORINGS)
class TestEveryScoring:
    def test_equals_the_formula(self, scoring):
        torch.manual_seed(0)
        h, r, t = torch.randn(3, 5, 6, dtype=torch.double)
        expected = [slow_score(*(v.tolist() for v in row), scoring) for row in zip(h, r, t)]  # noqa: B905 # one length
        torch.testing.assert_close(
            score_triples(h, r, t, scoring), torch.tensor(expected, dtype=torch.double)
        )

    def test_all_at_once_equals_one_at_a_time(self, scoring):
        torch.manual_seed(0)
        h, r = torch.randn(2, 4, 6, dtype=torch.double)
        entities = torch.randn(7, 6, dtype=torch.double)
        expected = score_triples(h[:, None], r[:, None], entities[None], scoring)
        torch.testing.assert_close(score_all(h, r, entities, scoring), expected)

    def test_memory_is_bounded_without_gradients(self, scoring, monkeypatch):
        monkeypatch.setattr(scoring_module, "_MAX_CELLS", 90)
        torch.manual_seed(0)
        h, r = torch.randn(2, 5, 6, dtype=torch.double)
        entities = torch.randn(7, 6, dtype=torch.double)
        expected = score_all(h.requires_grad_(), r, entities, scoring)
        with torch.no_grad():
            torch.testing.assert_close(score_all(h, r, entities, scoring), expected.detach())
            assert score_all(h[:0], r[:0], entities, scoring).shape == (0, 7)

    def test_every_relation_at_once(self, scoring):
        torch.manual_seed(0)
        h, t = torch.randn(2, 5, 6, dtype=torch.double)
        relations = torch.randn(3, 6, dtype=torch.double)
        expected = score_triples(h[:, None], relations[None], t[:, None], scoring)
        torch.testing.assert_close(score_relations(h, t, relations, scoring), expected)

    def test_an_inverted_relation_leads_back(self, scoring):
        torch.manual_seed(0)
        h, r, t = torch.randn(3, 5, 6, dtype=torch.double)
        back = score_triples(t, invert_relations(r, scoring), h, scoring)
        torch.testing.assert_close(back, score_triples(h, r, t, scoring))

    def test_the_gradient_is_finite_where_a_triple_fits_exactly(self, scoring):
        x = torch.zeros(1, 4, requires_grad=True)
        score_all(x, torch.zeros(1, 4), x, scoring).sum().backward()
        assert bool(x.grad.isfinite().all())


def test_directions_matter_where_they_should():
    torch.manual_seed(0)
    h, r, t = torch.randn(3, 6)
    assert score_triples(h, r, t, "distmult") == pytest.approx(
        float(score_triples(t, r, h, "distmult")), rel=1e-5
    )
    for scoring in ("transe", "complex", "rotate"):
        there, back = score_triples(h, r, t, scoring), score_triples(t, r, h, scoring)
        assert abs(float(there - back)) > 1e-3, scoring


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="'trans' given"):
        score_triples(torch.zeros(2), torch.zeros(2), torch.zeros(2), "trans")
    with pytest.raises(ValueError, match="an even number"):
        score_all(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(2, 3), "complex")
