import pytest
import torch

from kgclip.evaluation import FrequencyScorer, rank_candidates

TRIPLES = torch.tensor([[0, 0, 1], [2, 0, 1], [0, 1, 2], [0, 0, 1]])


def test_counts():
    scorer = FrequencyScorer(TRIPLES, 3)
    relations, anchors = torch.tensor([1, 0, 2]), torch.tensor([0, 0, 0])
    assert scorer(anchors, relations, "tail").tolist() == [[0, 0, 1], [0, 3, 0], [0, 0, 0]]
    assert scorer(anchors, relations, "head").tolist() == [[1, 0, 0], [2, 0, 1], [0, 0, 0]]
    assert scorer.count(relations, torch.tensor([2, 1, 0]), "tail").tolist() == [1, 3, 0]


@pytest.mark.parametrize("ties", ["realistic", "optimistic", "pessimistic"])
@pytest.mark.parametrize("tolerance", [0.0, 0.5, 1.0, float("inf")])
@pytest.mark.parametrize("triples", [TRIPLES, TRIPLES[:0], torch.randint(0, 4, (60, 3))])
def test_ranks_equal_those_of_the_scores(triples, tolerance, ties):
    generator = torch.Generator().manual_seed(0)
    scorer = FrequencyScorer(triples, 5)
    relations = torch.randint(0, 5, (20,), generator=generator)  # some without a triple
    truth = torch.randint(0, 5, (20,), generator=generator)
    ignore = torch.rand(20, 5, generator=generator) < 0.3
    ignore[torch.arange(20), truth] = False
    for side in ("tail", "head"):
        cells = ignore.nonzero(as_tuple=True)
        fast = scorer.rank(relations, truth, cells, side, ties=ties, tolerance=tolerance)
        scores = scorer(truth, relations, side).double()
        slow = rank_candidates(scores, truth, ignore, ties=ties, tolerance=min(tolerance, 1e9))
        assert torch.equal(fast, slow)
