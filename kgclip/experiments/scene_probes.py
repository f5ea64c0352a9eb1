"""Probes of composition: does a picture prefer what is true to what is almost true?

A picture's vector and the vectors of two captions are compared, no graph: the plain dual encoder
is asked. A tie is wrong, so that an encoder which maps everything to one point fails all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kgclip.evaluation.retrieval import evaluate_retrieval
from kgclip.evaluation.zero_shot import evaluate_probe
from kgclip.experiments.scene_data import Scenes, Wording, corrupt, say, without_attributes

# Probe: how the wrong caption is made, and whether attributes are said.
PROBES = {
    "reverse": ("reverse", True),
    "reverse_nouns": ("reverse", False),
    "inverse": ("relation", True),
    "nouns": ("nouns", True),
    "colours": ("colours", True),
    "sizes": ("sizes", True),
}
BINDING = ("reverse", "nouns", "colours", "sizes")  # their mean is "binding"
PARTS = {  # name in the figures: part of the scenes
    "held_out_pairs": "pairs",
    "held_out_combinations": "combinations",
    "seen": "seen",
    "three_objects": "three",
}
_TOLERANCE = 1e-6  # cosines that differ by less are tied
_GALLERY = 200  # scenes among which a caption's picture is sought, and back

EncodeText = Callable[[Tensor], Tensor]


def evaluate_scenes(
    images: Tensor, encode_text: EncodeText, scenes: Scenes, wording: Wording, split: str
) -> dict[str, float]:
    """Every probe on every part of a split.

    Args:
        images: Unit vectors of the scenes. Float [S, D].
        encode_text: From captions, long [B, L], to unit vectors, float [B, D].
        scenes: What is true.
        wording: How it is said.
        split: ``"valid"`` or ``"test"``.

    Returns:
        ``<part>/<probe>/encoder/accuracy`` (``binding``: mean of four) and
        ``<part>/retrieval/encoder/recall@1``: both directions, mean over galleries of 200.
    """
    figures: dict[str, float] = {}
    for name, part in PARTS.items():
        rows = scenes.rows(f"{split}-{part}")
        if not len(rows):
            continue
        figures |= {
            f"{name}/{key}": value
            for key, value in _evaluate_part(
                images[rows], encode_text, asked_statements(scenes, rows), wording
            ).items()
        }
    return figures


def _evaluate_part(
    images: Tensor, encode_text: EncodeText, statements: Tensor, wording: Wording
) -> dict[str, float]:
    accuracy = {}
    for probe in PROBES:
        right, wrong = captions_of(probe, statements)
        scores = [
            (images * encode_text(wording.captions(said))).sum(dim=1) for said in (right, wrong)
        ]
        accuracy[probe] = evaluate_probe(scores[0], scores[1], _TOLERANCE)["accuracy"]
    accuracy["binding"] = sum(accuracy[probe] for probe in BINDING) / len(BINDING)
    texts = encode_text(wording.captions(statements))
    size = min(_GALLERY, len(images))
    recalls = [
        evaluate_retrieval(images[i : i + size], texts[i : i + size], ks=(1,))["mean/recall@1"]
        for i in range(0, len(images) - size + 1, size)
    ]
    figures = {f"{probe}/encoder/accuracy": value for probe, value in accuracy.items()}
    return {**figures, "retrieval/encoder/recall@1": sum(recalls) / len(recalls)}


def asked_statements(scenes: Scenes, rows: Tensor) -> Tensor:
    """What is said of each scene: its first edge, from one end or the other. Long [B, 7]."""
    draws = torch.Generator().manual_seed(0)
    side = torch.randint(0, 2, (len(rows),), generator=draws)
    return scenes.statements[rows, side]


def captions_of(probe: str, statements: Tensor) -> tuple[Tensor, Tensor]:
    """The right and the wrong statements of a probe, long [B, 7] each."""
    kind, with_attributes = PROBES[probe]
    right = statements if with_attributes else without_attributes(statements)
    return right, corrupt(right, kind)


def show_answers(
    images: Tensor,
    encode_text: EncodeText,
    scenes: Scenes,
    wording: Wording,
    count: int = 6,
) -> list[dict[str, Any]]:
    """What the encoder answers to a few questions about held-out pairs of test.

    Returns:
        By probe: ``title`` and ``items`` with ``path``, ``label`` (the caption that it prefers)
        and ``correct``.
    """
    rows = scenes.rows("test-pairs")[:count]
    shown = []
    for probe in ("reverse_nouns", "colours"):
        both = torch.stack(captions_of(probe, asked_statements(scenes, rows)), dim=1)
        texts = encode_text(wording.captions(both).flatten(0, 1)).view(len(rows), 2, -1)
        scores = torch.einsum("bd,bkd->bk", images[rows], texts)
        right = scores[:, 0] > scores[:, 1] + _TOLERANCE
        items = [
            {
                "path": scenes.paths[row],
                "label": say(both[i, 0 if right[i] else 1]),
                "correct": bool(right[i]),
            }
            for i, row in enumerate(rows.tolist())
        ]
        shown.append({"title": probe.replace("_", ", "), "items": items})
    return shown
