from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kgclip.evaluation import rank_candidates, rank_metrics, tie_averaged_ranks


def slow_ranks(scores: Tensor, truth: Tensor, ignore: Tensor, ties: str, tolerance: float):
    """Sort the rivals one query at a time."""
    ranks = []
    for row, true in enumerate(truth.tolist()):
        mine = scores[row, true].item()
        rivals = [
            scores[row, column].item() - mine
            for column in range(scores.shape[1])
            if column != true and not ignore[row, column]
        ]
        better = sum(gap > tolerance for gap in rivals)
        tied = sum(abs(gap) <= tolerance for gap in rivals)
        share = {"optimistic": 0.0, "realistic": 0.5, "pessimistic": 1.0}[ties]
        ranks.append(1 + better + share * tied)
    return torch.tensor(ranks, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(0, 6),
    candidates=st.integers(1, 9),
    ties=st.sampled_from(["realistic", "optimistic", "pessimistic"]),
    tolerance=st.sampled_from([0.0, 1.0]),
)
def test_ranks_equal_the_slow_ones(seed, queries, candidates, ties, tolerance):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (queries, candidates), generator=generator).float()
    truth = torch.randint(0, candidates, (queries,), generator=generator)
    ignore = torch.rand(queries, candidates, generator=generator) < 0.4
    ranks = rank_candidates(scores, truth, ignore, ties=ties, tolerance=tolerance)
    assert torch.equal(ranks, slow_ranks(scores, truth, ignore, ties, tolerance))
    if ties == "realistic" and tolerance == 0:
        assert torch.equal(tie_averaged_ranks(scores, truth, ignore), ranks)


def test_a_constant_scorer_ranks_at_chance():
    ranks = tie_averaged_ranks(torch.zeros(3, 7), torch.tensor([0, 3, 6]))
    assert ranks.tolist() == [4.0, 4.0, 4.0]
    assert rank_metrics(ranks, 7)["amri"] == 0.0


def test_infinite_scores_are_ordered_like_others():
    scores = torch.tensor([[torch.inf, torch.inf, 0.0], [-torch.inf, -torch.inf, 0.0]])
    assert tie_averaged_ranks(scores, torch.tensor([0, 1])).tolist() == [1.5, 2.5]


def test_inputs_are_left_alone():
    scores, ignore = torch.rand(2, 3), torch.ones(2, 3, dtype=torch.bool)
    before = scores.clone(), ignore.clone()
    assert tie_averaged_ranks(scores, torch.tensor([0, 2]), ignore).tolist() == [1.0, 1.0]
    assert torch.equal(scores, before[0])
    assert torch.equal(ignore, before[1])


@pytest.mark.parametrize(
    ("scores", "truth", "ignore", "message"),
    [
        (torch.zeros(3), torch.tensor([0]), None, "scores: shape"),
        (torch.zeros(2, 3), torch.tensor([0]), None, "truth: shape"),
        (torch.zeros(1, 3), torch.tensor([3]), None, r"in \[0, 3\)"),
        (torch.zeros(1, 3), torch.tensor([-1]), None, r"in \[0, 3\)"),
        (torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), None, "NaN"),
        (torch.zeros(1, 3), torch.tensor([0]), torch.zeros(1, 2, dtype=torch.bool), "ignore"),
        (torch.zeros(1, 3), torch.tensor([0]), torch.zeros(1, 3), "ignore"),
    ],
)
def test_bad_input_is_refused(scores, truth, ignore, message):
    with pytest.raises(ValueError, match=message):
        tie_averaged_ranks(scores, truth, ignore)


def test_bad_options_are_refused():
    scores, truth = torch.zeros(1, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="'realistc' given"):
        rank_candidates(scores, truth, ties="realistc")
    with pytest.raises(ValueError, match="tolerance"):
        rank_candidates(scores, truth, tolerance=-1.0)


def test_rank_metrics_by_hand():
    metrics = rank_metrics(torch.tensor([1.0, 2.5, 4.0, 11.0]), torch.tensor([3, 5, 4, 20]))
    assert metrics == {
        "mrr": pytest.approx((1 + 0.4 + 0.25 + 1 / 11) / 4),
        "mr": 18.5 / 4,
        # Mean rank 4.625; by chance (2 + 3 + 2.5 + 10.5) / 4 = 4.5.
        "amri": pytest.approx(1 - 3.625 / 3.5),
        "hits@1": 0.25,
        "hits@3": 0.5,
        "hits@10": 0.75,
        "count": 4.0,
    }


def test_amri_is_one_if_perfect_and_about_zero_if_random():
    assert rank_metrics(torch.ones(5), 10)["amri"] == 1.0
    ranks = torch.randint(1, 101, (20_000,), generator=torch.Generator().manual_seed(0))
    assert abs(rank_metrics(ranks, 100)["amri"]) < 0.02
    assert rank_metrics(torch.ones(2), 1)["amri"] == 0.0  # nothing to choose from


@pytest.mark.parametrize("ranks", [[], [0.5], [4.0], [torch.nan]])
def test_impossible_ranks_are_refused(ranks):
    with pytest.raises(ValueError, match="rank"):
        rank_metrics(torch.tensor(ranks), 3)
