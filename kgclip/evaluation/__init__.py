"""Evaluation: scores, features or a callable come in, a flat dictionary of figures comes out.

Nothing here knows the trainer or our model, so it also serves somebody else's. A tie is never
a success: ranks take the mean of the tied places, recall and accuracy count it as wrong.
"""

from kgclip.evaluation.bootstrap import bootstrap_ratio
from kgclip.evaluation.entity_classification import (
    evaluate_entity_classification,
    summarise_seeds,
)
from kgclip.evaluation.frequency import FrequencyScorer
from kgclip.evaluation.link_prediction import (
    evaluate_link_prediction,
    evaluate_ranking,
    rank_answers,
)
from kgclip.evaluation.probes import evaluate_probes
from kgclip.evaluation.ranking import rank_candidates, rank_metrics, tie_averaged_ranks
from kgclip.evaluation.retrieval import evaluate_retrieval
from kgclip.evaluation.zero_shot import evaluate_probe, evaluate_zero_shot

__all__ = [
    "FrequencyScorer",
    "bootstrap_ratio",
    "evaluate_entity_classification",
    "evaluate_link_prediction",
    "evaluate_probe",
    "evaluate_probes",
    "evaluate_ranking",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "rank_answers",
    "rank_candidates",
    "rank_metrics",
    "summarise_seeds",
    "tie_averaged_ranks",
]
