"""A model's scores of triples, in the form that link prediction takes.

Both scorers encode all entities once; queries (anchor, relation, side) come in, scores of every
entity as the missing end go out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.nn.model import KnowledgeCLIP
from kgclip.nn.tokens import encode_with_tokens
from kgclip.nn.triples import Tokens, concatenate


class FactScorer:
    """Scores (head, relation, tail) by the cosine of head and "relation tail".

    With a graph encoder, an entity with neighbours is what the graph of training and inference
    triples says about it; else it is its text.

    Args:
        model: In evaluation mode.
        corpus: The graph as tensors.
        tokenizer: From texts to token ids.
    """

    def __init__(
        self, model: KnowledgeCLIP, corpus: Corpus, tokenizer: Callable[[list[str]], Tensor]
    ) -> None:
        self.model, self.corpus, self.tokenizer = model, corpus, tokenizer
        # Each wording once: a thousand dogs in photographs are one text.
        self.wordings = list(dict.fromkeys(corpus.labels))
        place = {wording: number for number, wording in enumerate(self.wordings)}
        self.wording_ids = torch.tensor([place[label] for label in corpus.labels])
        self.entities = self._of_entities(tokenizer(self.wordings))
        if model.graph_encoder is not None:
            edges = corpus.edges(["train", "inference"])
            edge_index, edge_type = (ids.to(self.entities.device) for ids in edges)
            relations = corpus.text_features(model.clip, corpus.relation_text)
            seen = model.graph_encoder(self.entities, edge_index, edge_type, relations)
            has_neighbors = seen.any(dim=1, keepdim=True)
            self.entities = torch.where(has_neighbors, seen, self.entities)
        self._facts: dict[int, Tensor] = {}

    @torch.no_grad()
    def __call__(self, anchor_ids: Tensor, relation_ids: Tensor, side: str) -> Tensor:
        """Score every entity as the missing side.

        Args:
            anchor_ids: Heads where ``side`` is ``"tail"``, else tails. Long [Q].
            relation_ids: Long [Q].
            side: ``"tail"`` or ``"head"``: what is asked.

        Returns:
            Cosines. Float [Q, N].
        """
        scores = self.entities.new_empty(len(anchor_ids), len(self.entities))
        for relation in torch.unique(relation_ids).tolist():
            rows = torch.nonzero(relation_ids == relation).squeeze(1)
            facts, anchors = self._fact_features(relation), anchor_ids[rows]
            if side == "tail":
                scores[rows] = self.entities[anchors] @ facts.T
            else:
                scores[rows] = facts[anchors] @ self.entities.T
        return scores

    def _fact_features(self, relation: int) -> Tensor:
        """The fact "relation e" for every entity e. Float [N, D]."""
        if relation not in self._facts:
            label = self.corpus.relation_labels[relation]
            tokens = self.tokenizer([f"{label} {tail}" for tail in self.wordings])
            self._facts[relation] = self._of_entities(tokens)
        return self._facts[relation]

    def _of_entities(self, tokens: Tensor) -> Tensor:
        """From one text a wording to one vector an entity. Float [N, D]."""
        return self.corpus.text_features(self.model.clip, tokens)[self.wording_ids]


class TokenScorer:
    """Scores (head, relation, tail) with the triple encoder, all entities read as their labels.

    The cosine of f(h, r, ∅) with f(t, ∅, ∅) where tails are asked, of f(∅, r, t) with
    f(h, ∅, ∅) where heads are: one pass a query, whatever the number of entities.

    Args:
        model: In evaluation mode, with a triple encoder.
        corpus: The graph as tensors.
        chunk: Texts or queries in one pass.
    """

    @torch.no_grad()
    def __init__(self, model: KnowledgeCLIP, corpus: Corpus, chunk: int = 256) -> None:
        assert model.triple_encoder is not None
        self.encoder, self.chunk = model.triple_encoder, chunk
        self.relations = corpus.text_features(model.clip, corpus.relation_text)
        self.tokens = self._read(model, corpus.text)
        self.entities = self._alone(model, corpus)

    @torch.no_grad()
    def __call__(self, anchor_ids: Tensor, relation_ids: Tensor, side: str) -> Tensor:
        """Score every entity as the missing side; as :class:`FactScorer`. Float [Q, N]."""
        queries = []
        for rows in torch.split(torch.arange(len(anchor_ids)), self.chunk):
            anchor, relation = self.tokens[anchor_ids[rows]], self.relations[relation_ids[rows]]
            ends = (anchor, relation, None) if side == "tail" else (None, relation, anchor)
            queries.append(self.encoder.encode(*ends))
        return torch.cat(queries) @ self.entities.T

    def _alone(self, model: KnowledgeCLIP, corpus: Corpus) -> Tensor:
        """f(e, ∅, ∅) of every entity. Float [N, D]."""
        if self.encoder.options.alone == "towers":
            return corpus.text_features(model.clip, corpus.text)
        rows = torch.split(torch.arange(len(corpus.text)), self.chunk)
        return torch.cat([self.encoder.encode(self.tokens[r], None, None) for r in rows])

    def _read(self, model: KnowledgeCLIP, text: Tensor) -> Tokens:
        """Embedded tokens of all texts, padded to one length. [N, L, width]."""
        parts = []
        for ids in torch.split(text.to(model.logit_scale.device), self.chunk):
            _, states, mask = encode_with_tokens(model.clip, text=ids)
            none = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
            parts.append(self.encoder.embed(Tokens(states, mask), None, none))
        return concatenate(parts)
