"""Entity classification: logits and classes come in, accuracy goes out; seeds are summed up."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kgclip.evaluation.ranking import check_no_nan


@torch.no_grad()
def evaluate_entity_classification(
    logits: Tensor, labels: Tensor, train_labels: Tensor | None = None
) -> dict[str, float]:
    """Accuracy of the highest logit; a tie for the first place is wrong.

    Args:
        logits: Higher is better. Float [Q, C].
        labels: Right classes. Long [Q], each in [0, C), Q > 0.
        train_labels: Classes that were trained on, for the baseline that always says the most
            frequent one. Long [T], T > 0; the default is no baseline.

    Returns:
        ``accuracy``, ``macro_accuracy`` (mean over the classes that occur in ``labels``),
        ``tie_rate``, ``count`` and, where asked for, ``baseline/accuracy``.

    Raises:
        ValueError: If there is nothing to classify, shapes or classes do not fit, or a logit is
            NaN.
    """
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(
            f"logits: {logits.dtype} {list(logits.shape)} given, float [Q, C] expected"
        )
    checked = {"labels": labels} | ({} if train_labels is None else {"train_labels": train_labels})
    for name, given in checked.items():
        if given.dtype != torch.long or given.ndim != 1 or not len(given):
            raise ValueError(f"{name}: {given.dtype} {list(given.shape)} given, long [n] expected")
        if not 0 <= int(given.min()) <= int(given.max()) < logits.shape[1]:
            raise ValueError(
                f"{name}: classes {int(given.min())} to {int(given.max())} given, "
                f"[0, {logits.shape[1]}) expected"
            )
    if len(labels) != len(logits):
        raise ValueError(f"labels: {len(labels)} given, {len(logits)} expected, one a row")
    check_no_nan("logits", logits)
    labels = labels.to(logits.device)
    best = logits.max(dim=1, keepdim=True).values
    tied = (logits == best).sum(dim=1) > 1
    right = ((logits.argmax(dim=1) == labels) & ~tied).double()
    by_class = [float(right[labels == one].mean()) for one in torch.unique(labels)]
    figures = {
        "accuracy": float(right.mean()),
        "macro_accuracy": statistics.fmean(by_class),
        "tie_rate": float(tied.double().mean()),
        "count": float(len(labels)),
    }
    if train_labels is not None:
        most_frequent = int(torch.bincount(train_labels).argmax())
        figures["baseline/accuracy"] = float((labels == most_frequent).double().mean())
    return figures


def summarise_seeds(figures: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of figures over seeds.

    Args:
        figures: One mapping a seed, all with the same keys.

    Returns:
        ``mean``, ``sd`` (of the sample; 0 for one seed), ``lowest`` and ``highest`` by key.

    Raises:
        ValueError: If there is no seed, or the keys differ.
    """
    if not figures:
        raise ValueError("figures: none given, at least one seed expected")
    keys = list(figures[0])
    for seed, one in enumerate(figures):
        if set(one) != set(keys):
            odd = sorted(set(one) ^ set(keys))
            raise ValueError(f"figures: seed {seed} differs from the first in the keys {odd}")
    columns = {key: [one[key] for one in figures] for key in keys}
    return {
        key: {
            "mean": statistics.fmean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
            "lowest": min(values),
            "highest": max(values),
        }
        for key, values in columns.items()
    }
