"""The fusion encoder: a transformer that reads head, relation and tail token by token.

Unpooled tokens of pictures and texts come in (:func:`kgclip.nn.tokens.encode_with_tokens`),
unit vectors of the joint space go out. What one would not guess: the paper masks a missing
element with zero vectors, all of which are alike and stay alike through every layer, so one
position stands for all of them, its attention weighted by their number: the same output, at
half the length.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

# What a triple can be asked for, by the fields of KnowledgeOutput that answer.
QUERIES = ("head_query", "tail_query", "relation_logits")
MASKS = ("zero", "key_padding")
ALONE = ("fused", "towers")


@dataclasses.dataclass
class Tokens:
    """Elements as rows of tokens.

    Attributes:
        states: Float [E, L, W].
        mask: True at real tokens; an element without any is missing. Bool [E, L].
    """

    states: Tensor
    mask: Tensor

    def __getitem__(self, rows: Tensor) -> Tokens:
        return Tokens(self.states[rows], self.mask[rows])


@dataclasses.dataclass(frozen=True)
class TripleEncoderOptions:
    """Size and habits of a :class:`TripleEncoder`.

    Attributes:
        width: Width of the transformer, a multiple of ``num_heads``.
        num_layers: At least 1.
        num_heads: Heads of attention.
        max_tokens: An entity with more tokens is pooled to this many; ``None`` = all are read.
        mask: How a missing element is masked: ``"zero"`` (the paper's: zero vectors, which take
            part in attention) or ``"key_padding"`` (nothing attends to it).
        missing_tokens: How many zero vectors stand for a missing entity.
        drop_path: Rate at which a layer's update is dropped in training, in [0, 1).
        alone: What an entity alone is: ``"fused"`` (the paper's f(e, ∅, ∅)), or ``"towers"``: the
            feature that its tower gives it anyway, so that what E2E learns is the towers' to
            keep and the transformer is needed for questions alone.
        slots: Whether an embedding tells head, relation and tail apart; without it
            f(h, r, ∅) = f(∅, r, h).

    Raises:
        ValueError: If a value is out of range.
    """

    width: int = 512
    num_layers: int = 2
    num_heads: int = 8
    max_tokens: int | None = 16
    mask: str = "zero"
    missing_tokens: int = 16
    drop_path: float = 0.0
    alone: str = "fused"
    slots: bool = True

    def __post_init__(self) -> None:
        for name, known in (("mask", MASKS), ("alone", ALONE)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: {getattr(self, name)!r} given, one of {known} expected")
        if self.num_heads < 1 or self.width % self.num_heads:
            raise ValueError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        for name in ("num_layers", "max_tokens", "missing_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} given, at least 1 expected")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path: {self.drop_path} given, a rate in [0, 1) expected")


PRESETS = {
    "small": TripleEncoderOptions(),
    "paper": TripleEncoderOptions(
        width=1024, num_layers=4, num_heads=16, max_tokens=None, missing_tokens=50, drop_path=0.1
    ),
}


class TripleEncoder(nn.Module):
    """Fuses unpooled tokens of head and tail with one relation into vectors of the joint space.

    An entity alone, f(e, ∅, ∅), is always read in the head's place, so that it is the same
    vector whichever side asks for it. Each modality has a projection of its own, whose bias
    tells pictures from texts. Relations are classified by the cosine of a two-layer MLP's output
    with their text features, so that the encoder needs no graph to be built and a relation never
    seen has a logit too; ``num_relations`` gives the paper's classifier with fixed outputs.

    Off by default, because it did not help: on the OpenMoji world's validation parts (split seeds
    101 and 102, one seed each, 200 steps, 64 triples a step, width 128, E2E of heads) the text
    tower reading "relation tail" answers new entities linked by CLIP with MRR 0.343 from entity
    to fact and 0.131 back, this encoder with 0.294 and 0.090, with ``alone="towers"`` 0.340 and
    0.096; known facts are worse too, and a step costs a quarter to a half more CPU time.

    Args:
        channels: Width D of the joint space and of the relations' features.
        image_channels: Width of the image tower's tokens.
        text_channels: Width of the text tower's tokens.
        options: Size and habits; ``PRESETS`` holds two.
        num_prefix: A picture's tokens that come before its patches; pooling leaves them.
        num_relations: Outputs of a fixed classifier; ``None`` = classified by text.

    Reference:
        Pan et al., NeurIPS 2022 (arXiv 2210.08901), the multi-modal encoder. Slots, the mean
        over real positions as an element's vector, and the classifier by text are ours.
    """

    def __init__(
        self,
        channels: int,
        image_channels: int,
        text_channels: int,
        options: TripleEncoderOptions = PRESETS["small"],
        *,
        num_prefix: int = 0,
        num_relations: int | None = None,
    ) -> None:
        super().__init__()
        width = options.width
        self.options, self.num_prefix = options, num_prefix
        self.from_image = nn.Linear(image_channels, width)
        self.from_text = nn.Linear(text_channels, width)
        self.from_relation = nn.Linear(channels, width)
        self.slots = nn.Parameter(torch.zeros(3, width), requires_grad=options.slots)
        if options.slots:
            nn.init.normal_(self.slots, std=0.5)
        self.layers = nn.ModuleList(
            _Layer(width, options.num_heads, options.drop_path) for _ in range(options.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, channels)
        self.relation_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_relations or channels)
        )
        self.by_text = num_relations is None
        # The trainer keeps it in CLIP's range by its name.
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed(self, text: Tokens | None, image: Tokens | None, image_mask: Tensor) -> Tokens:
        """Bring entities of both modalities to the encoder's width.

        Args:
            text: Tokens of the entities read as text, [E - I, L, W]; ``None`` = there are none.
            image: Tokens of those read as pictures, [I, L', W']; ``None`` = there are none.
            image_mask: True for pictures, I times. Bool [E].

        Returns:
            Pooled and projected tokens. [E, L'', width].
        """
        limit = self.options.max_tokens
        parts = []
        if text is not None:
            pooled = pool_tokens(text, limit)
            parts.append(Tokens(self.from_text(pooled.states), pooled.mask))
        if image is not None:
            pooled = pool_tokens(image, limit, self.num_prefix)
            parts.append(Tokens(self.from_image(pooled.states), pooled.mask))
        joined = concatenate(parts)
        # Texts stand first in `joined`, pictures after them: the place of each entity there.
        order = torch.argsort(image_mask.long(), stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)).to(order))
        return joined[place]

    def encode(self, head: Tokens | None, relation: Tensor | None, tail: Tokens | None) -> Tensor:
        """Encode triples of which parts may be missing, as f(h, r, ∅) or f(e, ∅, ∅).

        Args:
            head: Embedded heads of T triples; ``None`` = missing.
            relation: Features of the relations, float [T, D]; ``None`` = missing.
            tail: Embedded tails.

        Returns:
            Unit vectors. Float [T, D].

        Raises:
            ValueError: If all three are missing.
        """
        states, _, real = self._read(head, relation, tail)
        weights = real / real.sum(dim=1, keepdim=True)
        return F.normalize(self.output(torch.einsum("tsd,ts->td", states, weights)), dim=-1)

    def classify(self, head: Tokens, tail: Tokens, relations: Tensor) -> Tensor:
        """Logits of the relation between heads and tails, from f_r(h, ∅, t).

        Args:
            head: Embedded heads of T triples.
            tail: Embedded tails.
            relations: Features of all relations. Float [R, D]; not read by a fixed classifier.

        Returns:
            Float [T, R].
        """
        states, place, _ = self._read(head, None, tail)
        found: Tensor = self.relation_head(states[:, place])
        if not self.by_text:
            return found
        cosines = F.normalize(found, dim=-1) @ F.normalize(relations, dim=-1).T
        logits: Tensor = self.logit_scale.exp() * cosines
        return logits

    def forward(
        self,
        entities: Tokens,
        relations: Tensor,
        triples: Tensor,
        asked: Sequence[str] = QUERIES,
        alone: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Encode a batch of triples and its entities.

        Args:
            entities: Embedded entities. [E, L, width].
            relations: Features of all relations. Float [R, D].
            triples: Rows of head, relation and tail. Long [3, T].
            asked: What to compute, of ``QUERIES``.
            alone: The towers' features of the entities, unit vectors, where the options say
                that they stand for an entity alone. Float [E, D].

        Returns:
            ``entity_features``, float [E, D], and what is asked: ``head_query`` f(∅, r, t) and
            ``tail_query`` f(h, r, ∅), float [T, D], ``relation_logits``, float [T, R].

        Raises:
            ValueError: If the towers' features are needed and not given.
        """
        head, relation, tail = triples
        if self.options.alone == "fused":
            alone = self.encode(entities, None, None)
        if alone is None:
            raise ValueError(
                "alone='towers' needs the towers' features: give TokenInputs image_features "
                "beside cached image tokens, and text_features beside cached text tokens"
            )
        found = {"entity_features": alone}
        if "head_query" in asked:
            found["head_query"] = self.encode(None, relations[relation], entities[tail])
        if "tail_query" in asked:
            found["tail_query"] = self.encode(entities[head], relations[relation], None)
        if "relation_logits" in asked:
            found["relation_logits"] = self.classify(entities[head], entities[tail], relations)
        return found

    def _read(
        self, head: Tokens | None, relation: Tensor | None, tail: Tokens | None
    ) -> tuple[Tensor, int, Tensor]:
        """Run the transformer: states [T, S, width], the relation's place, real ones [T, S]."""
        sizes = [len(part.mask) for part in (head, tail) if part is not None]
        sizes += [] if relation is None else [len(relation)]
        if not sizes:
            raise ValueError("head, relation and tail are all missing; give one of them")
        size = sizes[0]
        parts = [
            self._entity(head, size),
            self._relation(relation, size),
            self._entity(tail, size),
        ]
        states = torch.cat([x + slot for (x, _, _), slot in zip(parts, self.slots, strict=True)], 1)
        weights = torch.cat([weight for _, weight, _ in parts], dim=1)
        real = torch.cat([mask for _, _, mask in parts], dim=1).to(states.dtype)
        place = parts[0][1].shape[1]
        # Where nothing may be attended to or averaged, the relation's place stands for it all.
        weights[:, place] = torch.where(weights.isneginf().all(1), 0.0, weights[:, place])
        real[:, place] = torch.where(real.any(1), real[:, place], 1.0)
        bias = weights[:, None, None, :].to(states.dtype)
        for layer in self.layers:
            states = layer(states, bias)
        return self.norm(states), place, real

    def _entity(self, tokens: Tokens | None, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """States [T, L, width], attention weights [T, L] as logarithms, real ones [T, L]."""
        if tokens is None:
            tokens = Tokens(
                self.slots.new_zeros(size, 1, self.options.width),
                torch.zeros(size, 1, dtype=torch.bool, device=self.slots.device),
            )
        mask = tokens.mask
        weights = tokens.states.new_zeros(mask.shape).masked_fill(~mask, -math.inf)
        if self.options.mask == "zero":
            zeros = math.log(self.options.missing_tokens)
            weights[:, 0] = torch.where(mask.any(dim=1), weights[:, 0], zeros)
        return tokens.states * mask.unsqueeze(2), weights, mask

    def _relation(self, features: Tensor | None, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """The same of the relation, one position each."""
        weight = 0.0
        if features is None:
            states = self.slots.new_zeros(size, 1, self.options.width)
            weight = -math.inf if self.options.mask == "key_padding" else 0.0
        else:
            # Unit vectors have entries of 1/sqrt(D); a layer learns at the usual rates on 1.
            states = self.from_relation(features * features.shape[-1] ** 0.5).unsqueeze(1)
        real = torch.full((size, 1), features is not None, device=states.device)
        return states, states.new_full((size, 1), weight), real


class _Layer(nn.Module):
    """Attention with weighted keys and an MLP, each normalised before and added."""

    def __init__(self, width: int, num_heads: int, drop_path: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.drop = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        size, length, width = x.shape
        heads = self.num_heads
        qkv = self.qkv(self.attention_norm(x)).view(size, length, 3, heads, width // heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(size, length, width)))
        out: Tensor = x + self.drop(self.mlp(self.mlp_norm(x)))
        return out


def pool_tokens(tokens: Tokens, max_tokens: int | None, num_prefix: int = 0) -> Tokens:
    """Average runs of neighbouring tokens until each element has few enough.

    Args:
        tokens: Float [E, L, W].
        max_tokens: Largest length; ``None``, or no shorter than L, changes nothing.
        num_prefix: Tokens at the start that are kept as they are, as long as they leave room.

    Returns:
        Each element's n real tokens in min(n, ``max_tokens``) runs as equal as can be.
        Float [E, min(L, max_tokens), W].
    """
    states, mask = tokens.states, tokens.mask
    if max_tokens is None or states.shape[1] <= max_tokens:
        return tokens
    if 0 < num_prefix < max_tokens:
        rest = Tokens(states[:, num_prefix:], mask[:, num_prefix:])
        pooled = pool_tokens(rest, max_tokens - num_prefix)
        return Tokens(
            torch.cat([states[:, :num_prefix], pooled.states], dim=1),
            torch.cat([mask[:, :num_prefix], pooled.mask], dim=1),
        )
    count = mask.sum(dim=1, keepdim=True)
    runs = count.clamp(max=max_tokens)
    run = ((mask.cumsum(dim=1) - 1).clamp(min=0) * runs) // count.clamp(min=1)
    total = states.new_zeros(len(states), max_tokens, states.shape[2]).scatter_add(
        1, run.unsqueeze(2).expand_as(states), states * mask.unsqueeze(2)
    )
    size = states.new_zeros(len(states), max_tokens).scatter_add(1, run, mask.to(states.dtype))
    return Tokens(total / size.clamp(min=1).unsqueeze(2), size > 0)


def concatenate(parts: Sequence[Tokens]) -> Tokens:
    """Put elements below each other, padded to the longest.

    Args:
        parts: At least one, of equal width.
    """
    length = max(part.mask.shape[1] for part in parts)
    missing = [length - part.mask.shape[1] for part in parts]
    return Tokens(
        torch.cat([F.pad(p.states, (0, 0, 0, n)) for p, n in zip(parts, missing, strict=True)]),
        torch.cat([F.pad(p.mask, (0, n)) for p, n in zip(parts, missing, strict=True)]),
    )
