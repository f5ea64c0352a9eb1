"""Triples for the fusion encoder: each entity as a text or a picture of its own, drawn anew.

Drawn triples come in, :class:`~kgclip.nn.token_inputs.TokenInputs` and the targets of E2E, E2R
and G2E go out. What decides a false negative are the training triples alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from kgclip.graph import KnowledgeGraph
from kgclip.negatives import NegativeSampler, group_members
from kgclip.nn.output import Targets
from kgclip.nn.pictures import Rows
from kgclip.nn.token_inputs import TokenInputs
from kgclip.nn.tokens import encode_text_trimmed, encode_with_tokens
from kgclip.nn.triples import QUERIES, Tokens, concatenate, pool_tokens


class TokenTriples:
    """Turns triples into the fusion encoder's inputs.

    An end of a triple is read as a picture with probability ``image_share`` if it has one to
    train on, else as a text; which of its pictures and texts is drawn evenly. Ends that are read
    the same way are one entity use, encoded once.

    Args:
        graph: Its texts, of the language of an entity's label, and its pictures are drawn from.
        tokenizer: From texts to token ids [B, L].
        image_tokens: Cached tokens (or pictures) by row of ``graph.images``. Float [I, L, W].
        image_features: Cached trunk features by row of ``graph.images``, for an encoder that
            takes the towers' features of entities. Float [I, W].
        image_share: Share of ends that are read as pictures, in [0, 1].
        asked: What the model shall compute, of ``QUERIES``.

    Attributes:
        text: Token ids of all texts, long [X, L], or cached tokens, float [X, L', W].
        text_mask: True at real ones among cached tokens; ``None`` = ``text`` holds ids.
        relation_text: Token ids of the relations, long [R, L], or features, float [R, D].
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        tokenizer: Callable[[list[str]], Tensor],
        image_tokens: Rows,
        *,
        image_features: Rows | None = None,
        image_share: float = 0.5,
        asked: Sequence[str] = QUERIES,
    ) -> None:
        if len(image_tokens) != len(graph.images):
            raise ValueError(
                f"image_tokens has {len(image_tokens)} rows; expected one for each of the graph's "
                f"{len(graph.images)} pictures"
            )
        self.image_tokens, self.image_features = image_tokens, image_features
        self.image_share, self.asked = image_share, tuple(asked)
        owner, texts = _texts(graph)
        self.text = tokenizer(texts)
        self.text_mask: Tensor | None = None
        self.text_features: Tensor | None = None
        names = zip(graph.relations["label"], graph.relations["name"], strict=True)
        self.relation_text = tokenizer([label or name for label, name in names])
        split = graph.images["split"]
        trained = split == "train" if split.null_count() < len(split) else split.is_null()
        rows = torch.from_numpy(np.flatnonzero(trained.fill_null(False).to_numpy()))
        pictured = torch.from_numpy(graph.images["entity"].to_numpy().copy())[rows]
        self._texts = group_members(owner, torch.arange(len(owner)), graph.num_entities)
        self._images = group_members(pictured, rows, graph.num_entities)

    @torch.no_grad()
    def cache_texts(self, clip: nn.Module, max_tokens: int | None = 16, chunk: int = 256) -> None:
        """Read all texts once, because the text tower is frozen.

        Args:
            clip: The model whose tower is frozen.
            max_tokens: Tokens a text; more are averaged in runs. ``None`` = all.
            chunk: Texts in one pass.
        """
        device = next(clip.parameters()).device
        self.relation_text = encode_text_trimmed(clip, self.relation_text.to(device))
        parts, features = [], []
        for ids in torch.split(self.text.to(device), chunk):
            joint, states, mask = encode_with_tokens(clip, text=ids)
            features.append(joint)
            parts.append(pool_tokens(Tokens(states, mask), max_tokens))
        read = concatenate(parts)
        self.text, self.text_mask = read.states, read.mask
        self.text_features = torch.cat(features)

    def __call__(
        self, triples: Tensor, known: NegativeSampler, generator: torch.Generator
    ) -> tuple[TokenInputs, Targets]:
        """Draw how each end is read.

        Args:
            triples: Head, relation, tail. Long [T, 3].
            known: Says which triples are true in training.
            generator: Source of randomness.

        Returns:
            The inputs, and targets with all fields of triples and entities.
        """
        head, relation, tail = triples.T
        ends = torch.cat([head, tail])
        wanted = torch.rand(len(ends), generator=generator) < self.image_share
        nothing = torch.full_like(ends, -1)
        images = self._images.draw(ends, nothing, generator)
        as_image = wanted & (images >= 0)
        row = torch.where(as_image, images, self._texts.draw(ends, nothing, generator))
        # A picture may be shared by entities, so what makes a use is all three.
        uses, use = torch.unique(
            torch.stack([as_image.long(), row, ends], dim=1), dim=0, return_inverse=True
        )
        image_mask = uses[:, 0].bool()
        texts, images = uses[~image_mask, 1], uses[image_mask, 1]

        def of(features: Rows | None, rows: Tensor) -> Tensor | None:
            return None if features is None else features[rows]

        inputs = TokenInputs(
            text=self.text[texts],
            text_mask=of(self.text_mask, texts),
            text_features=of(self.text_features, texts),
            image=self.image_tokens[images],
            image_features=of(self.image_features, images),
            image_mask=image_mask,
            relation_text=self.relation_text,
            triples=torch.stack([use[: len(head)], relation, use[len(head) :]]),
            asked=self.asked,
        )
        targets = Targets(
            entity_ids=uses[:, 2],
            head_rows=inputs.triples[0],
            tail_rows=inputs.triples[2],
            relation_ids=relation,
            relation_known=known_among(
                known, head[:, None], torch.arange(known.num_relations)[None, :], tail[:, None]
            ),
            head_known=known_among(known, head[None, :], relation[:, None], tail[:, None]),
            tail_known=known_among(known, head[:, None], relation[:, None], tail[None, :]),
        )
        return inputs, targets


def _texts(graph: KnowledgeGraph) -> tuple[Tensor, list[str]]:
    """Entity and wording of every text in the language of the entity's label; labels if none."""
    labels = pl.DataFrame({"entity": range(graph.num_entities), "text": graph.labels()})
    labels = labels.with_columns(pl.col("entity").cast(pl.Int64))
    language = graph.texts.filter(pl.col("kind") == "label").unique(
        "entity", keep="first", maintain_order=True
    )
    others = graph.texts.join(language.select("entity", own="language"), on="entity").filter(
        pl.col("language").eq_missing(pl.col("own"))
    )
    texts = pl.concat([labels, others.select("entity", "text")]).unique(maintain_order=True)
    return torch.from_numpy(texts["entity"].to_numpy().copy()), texts["text"].to_list()


def known_among(known: NegativeSampler, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
    """Whether each cell of a table of triples is true in training.

    Args:
        known: The training triples.
        head: Long, of a shape that broadcasts with the others to [T, U].
        relation: Long.
        tail: Long.

    Returns:
        Bool [T, U].
    """
    ends = torch.broadcast_tensors(head, relation, tail)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    cells = torch.stack(ends, dim=-1)
    return known.is_true(cells.reshape(-1, 3)).view(cells.shape[:-1])
