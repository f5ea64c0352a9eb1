"""The OpenMoji world as a triple encoder answers it, reading token by token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.experiments.world_scores import World
from kgclip.nn.model import KnowledgeCLIP
from kgclip.nn.triples import Tokens
from kgclip.scorers import TokenScorer


@torch.no_grad()
def score_tokens(
    model: KnowledgeCLIP, corpus: Corpus, world: World, link: Tensor
) -> dict[str, Tensor]:
    """Cosine of f(e, ∅, ∅) of each country with f(∅, r, t) of each fact.

    Args:
        model: In evaluation mode, with a triple encoder.
        corpus: With cached tokens of the pictures.
        world: The questions.
        link: Which country is this flag, as CLIP says? Float [C, C].

    Returns:
        By scoring, float [C, F]: ``"encoder"`` reads the flag, ``"given"`` the country's name,
        ``"linked"`` the names that the flag may belong to.
    """
    encoder = model.triple_encoder
    assert encoder is not None
    assert corpus.image_tokens is not None
    scorer = TokenScorer(model, corpus)
    if encoder.options.alone == "towers":
        flags = F.normalize(model.project_image(corpus.image_features[world.flags]), dim=-1)
    else:
        states = corpus.image_tokens[world.flags].to(model.logit_scale.device)
        pictures = Tokens(states, torch.ones_like(states[:, :, 0], dtype=torch.bool))
        is_image = torch.ones(len(states), dtype=torch.bool, device=states.device)
        flags = encoder.encode(encoder.embed(None, pictures, is_image), None, None)
    relation, tail = corpus.facts.T
    facts = torch.cat(
        [
            encoder.encode(None, scorer.relations[relation[rows]], scorer.tokens[tail[rows]])
            for rows in torch.split(torch.arange(len(relation)), 256)
        ]
    )
    names = scorer.entities[world.countries]
    given = names @ facts.T
    return {"encoder": flags @ facts.T, "given": given, "linked": link @ given}
