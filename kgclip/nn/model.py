"""Knowledge-CLIP: an open_clip model with a graph encoder beside it.

Pictures, texts, triples and a piece of the graph come in, a
:class:`~kgclip.nn.output.KnowledgeOutput` goes out. What one would not guess: without a triple
encoder a triple without its head is encoded by the *text tower* reading "relation tail" as one
text, because fusing pooled features of relation and tail learns far less in the same steps.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import HeteroData

from kgclip.hetero import global_edges
from kgclip.nn.chunks import encode_in_chunks
from kgclip.nn.clip import build_tokenizer, evaluating, project_image
from kgclip.nn.clip import create_model_and_transforms as create_clip_and_transforms
from kgclip.nn.output import KnowledgeOutput, unit_vectors
from kgclip.nn.relation_gate import RelationGateConv
from kgclip.nn.teacher import Teacher, TeacherFeatures
from kgclip.nn.token_inputs import TokenInputs, run_towers
from kgclip.nn.tokens import encode_text_trimmed, encode_tokens, num_prefix_tokens
from kgclip.nn.triples import PRESETS, TripleEncoder, TripleEncoderOptions


@dataclasses.dataclass
class TripleInputs:
    """T triples: E uses of entities, each as its text or its picture, and T verbalised facts.

    Attributes:
        text: Tokens of each entity's text, long [E, L], or cached features, float [E, D].
        fact_text: Tokens of "relation tail", long [T, L], or cached features, float [T, D].
        image: Trunk features or pictures of the entities that ``image_mask`` names, in its
            order. Float [I, W] or [I, 3, H, W].
        image_mask: True where the entity is read as its picture; I are. Bool [E].
    """

    text: Tensor
    fact_text: Tensor
    image: Tensor
    image_mask: Tensor


@dataclasses.dataclass
class GraphInputs:
    """The graph around the triples' entities, without what would give the answer away.

    Attributes:
        x: Text features of the entities, unit vectors. Float [N, D].
        edge_index: Messages go from row 0 to row 1. Long [2, M].
        edge_type: Relation of each edge, inverse relations included. Long [M].
        relation_features: Text features of the relations. Float [R, D].
        rows: Node of each of the E entity uses. Long [E].
    """

    x: Tensor
    edge_index: Tensor
    edge_type: Tensor
    relation_features: Tensor
    rows: Tensor


class GraphEncoder(nn.Module):
    """What the graph around an entity says about it, without the entity itself.

    A stack of :class:`~kgclip.nn.relation_gate.RelationGateConv`: the first hop counts fully,
    each further hop by a gate that starts at zero, so that the untrained encoder is the mean
    of the neighbours.

    Args:
        channels: Width D of the entities' and the relations' features.
        num_layers: Number of hops, at least 1.
    """

    def __init__(self, channels: int, num_layers: int = 2) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers is {num_layers}; expected 1 or more hops")
        self.convs = nn.ModuleList(RelationGateConv(channels, channels) for _ in range(num_layers))
        self.hop_gates = nn.Parameter(torch.zeros(num_layers - 1))

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_type: Tensor, relation_features: Tensor
    ) -> Tensor:
        """Encode every entity of the graph.

        Args:
            x: Features of the entities. Float [N, D].
            edge_index: Messages go from row 0 to row 1. Long [2, M].
            edge_type: Relation of each edge. Long [M], each in [0, R).
            relation_features: Text features of the relations. Float [R, D].

        Returns:
            Unit vectors, zeros for an entity without neighbours. Float [N, D].
        """
        # Unit vectors have entries of 1/sqrt(D); gates learn at the usual rates on entries of 1.
        relations = relation_features * relation_features.shape[-1] ** 0.5
        hop = self.convs[0](x, edge_index, edge_type, relations)
        out = hop
        for conv, gate in zip(self.convs[1:], self.hop_gates, strict=True):
            hop = conv(hop, edge_index, edge_type, relations)
            out = out + torch.tanh(gate) * hop
        return unit_vectors(out)  # a closed gate may fill a row of zeros


class KnowledgeCLIP(nn.Module):
    """An open_clip model that also encodes entities with the graph around them.

    ``encode_image``, ``encode_text`` and ``logit_scale`` are open_clip's, untouched.

    Args:
        clip: Any open_clip model.
        graph_encoder: Encodes entities by their neighbours; ``None`` = no graph part.
        triple_encoder: Fuses unpooled tokens of head, relation and tail; ``None`` = the text
            tower reads triples.
        tokenizer: From texts to token ids, for ``encode_entities``.
        teacher: Frozen start model, run on pairs that bring no cached features of it;
            ``None`` = the teacher's fields stay empty without those.
    """

    def __init__(
        self,
        clip: nn.Module,
        graph_encoder: nn.Module | None = None,
        triple_encoder: TripleEncoder | None = None,
        tokenizer: Callable[[list[str]], Tensor] | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.graph_encoder = graph_encoder
        self.triple_encoder = triple_encoder
        self.tokenizer = tokenizer
        self.teacher = teacher
        self.entity_gate = nn.Parameter(torch.zeros(())) if graph_encoder is not None else None

    @property
    def logit_scale(self) -> Tensor:
        """open_clip's logarithm of the inverse temperature. Float scalar."""
        return self.clip.logit_scale  # type: ignore[return-value]  # nn.Module types attributes as Tensor | Module

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        """open_clip's ``encode_image``: float [B, 3, H, W] to float [B, D]."""
        features: Tensor = self.clip.encode_image(image, normalize=normalize)  # type: ignore[operator]  # open_clip is untyped
        return features

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """open_clip's ``encode_text``: long [B, L] to float [B, D]."""
        features: Tensor = self.clip.encode_text(text, normalize=normalize)  # type: ignore[operator]  # open_clip is untyped
        return features

    def forward(
        self,
        image: Tensor | None = None,
        text: Tensor | None = None,
        triples: TripleInputs | TokenInputs | None = None,
        graph: GraphInputs | None = None,
        teacher: TeacherFeatures | None = None,
        negative_text: Tensor | None = None,
        chunk_size: int | None = None,
    ) -> KnowledgeOutput:
        """Encode whatever is given; each tower runs once, over all it is given.

        Args:
            image: Pictures of the image-text pairs, float [B, 3, H, W], or their cached trunk
                features, float [B, W].
            text: Tokens of their captions, long [B, L], or cached features, float [B, D].
            triples: T triples with E entity uses; ``TokenInputs`` need ``triple_encoder``.
            graph: The graph around the triples' entities; needs ``graph_encoder``.
            teacher: The frozen start model's features of the pairs.
            negative_text: Tokens of corrupted captions, beside captions that are tokens.
                Long [B, K, L].
            chunk_size: Pictures and texts encoded at once: the gradient of the whole batch in
                the memory of a chunk, see :mod:`kgclip.nn.chunks`. Without triples that the
                triple encoder reads.

        Returns:
            The fields that the input allows; the others are ``None``.

        Raises:
            ValueError: If ``graph`` or ``triples`` need an encoder that the model lacks, or it
                cannot work in chunks.
        """
        output = KnowledgeOutput(logit_scale=self.logit_scale.exp())
        captions = text
        if text is not None and negative_text is not None:
            captions = torch.cat([text, negative_text.flatten(0, 1)])
        if isinstance(triples, TokenInputs):
            if chunk_size is not None:
                raise ValueError("chunk_size: the triple encoder reads its batch at once; None")
            self._read_tokens(output, image, captions, triples)
        else:
            self._read_texts(output, image, captions, triples, chunk_size)
        if output.text_features is not None and negative_text is not None:
            negatives = output.text_features[len(negative_text) :]
            output.text_features = output.text_features[: len(negative_text)]
            output.negative_text_features = negatives.view(*negative_text.shape[:2], -1)
        if graph is not None:
            self._read_graph(output, graph, chunk_size)
        if teacher is None and self.teacher and image is not None and text is not None:
            teacher = self.teacher(image, text)
        if teacher is not None:
            output.teacher_image_features = teacher.image
            output.teacher_text_features = teacher.text
            output.teacher_logit_scale = teacher.logit_scale
        return output

    def fuse(self, own: Tensor, graph: Tensor) -> Tensor:
        """Join an entity's own features with the graph's view of it.

        x' = x + tanh(10 a) G, normalised; a is 0 at the start, so that the untrained model
        returns x.

        Args:
            own: Text or picture features, unit vectors. Float [B, D].
            graph: The graph encoder's view, unit vectors or zeros. Float [B, D].

        Returns:
            Unit vectors. Float [B, D].

        Raises:
            ValueError: If the model has no graph encoder.
        """
        if self.entity_gate is None:
            raise ValueError("the model has no graph_encoder to fuse with; pass one")
        # Times 10: a scalar moves by one learning rate a step, and runs are short.
        return F.normalize(own + torch.tanh(10 * self.entity_gate) * graph, dim=-1)

    def encode_entities(self, data: HeteroData, entity_ids: Tensor) -> Tensor:
        """Encode entities by their labels and the graph around them, fused.

        Args:
            data: As :func:`kgclip.hetero.to_hetero` makes it, whole or cut.
            entity_ids: Rows of the graph's entities; an entity that ``data`` lacks, or that has
                no neighbour in it, is its label alone. Long [B].

        Returns:
            Unit vectors; before training, the text features of the labels. Float [B, D].

        Raises:
            ValueError: If the model has no tokenizer or ``data`` no graph.
        """
        if self.tokenizer is None or not hasattr(data, "graph"):
            raise ValueError(
                "encode_entities needs model.tokenizer, which create_model_and_transforms sets, "
                "and data made by kgclip.hetero.to_hetero"
            )
        labels = data.graph.labels()
        own = self._encode_labels(labels)
        if self.graph_encoder is None:
            return own[entity_ids]
        edge_index, edge_type = global_edges(data)
        names = data.graph.relations["label"].fill_null(data.graph.relations["name"]).to_list()
        relations = self._encode_labels(names + [f"inverse of {name}" for name in names])
        edge_index, edge_type = edge_index.to(own.device), edge_type.to(own.device)
        seen = self.graph_encoder(own, edge_index, edge_type, relations)
        return self.fuse(own[entity_ids], seen[entity_ids])

    def _encode_labels(self, labels: list[str], chunk: int = 1024) -> Tensor:
        assert self.tokenizer is not None
        device = self.logit_scale.device
        parts = [
            encode_text_trimmed(
                self.clip, self.tokenizer(labels[i : i + chunk]).to(device), normalize=True
            )
            for i in range(0, len(labels), chunk)
        ]
        return torch.cat(parts)

    def project_image(self, image: Tensor) -> Tensor:
        """Pictures, or their cached trunk features, to joint features, not normalised."""
        return project_image(self.clip, image)

    def _read_texts(
        self,
        output: KnowledgeOutput,
        image: Tensor | None,
        text: Tensor | None,
        triples: TripleInputs | None,
        chunk_size: int | None,
    ) -> None:
        """Pairs, and triples whose facts the text tower reads."""
        if image is not None:
            output.image_features = self._encode_images(image, chunk_size)
        texts = [] if text is None else [text]
        if triples is not None:
            texts += [triples.text[~triples.image_mask], triples.fact_text]
        encoded = self._encode_texts(texts, chunk_size)
        if text is not None:
            output.text_features = encoded.pop(0)
        if triples is not None:
            output.entity_features = self._entity_features(triples, encoded.pop(0), chunk_size)
            output.head_query = encoded.pop(0)

    def _read_tokens(
        self,
        output: KnowledgeOutput,
        image: Tensor | None,
        text: Tensor | None,
        triples: TokenInputs,
    ) -> None:
        """Pairs, and triples that the triple encoder reads token by token."""
        encoder = self.triple_encoder
        if encoder is None:
            raise ValueError("triples are TokenInputs but the model has no triple_encoder")
        towers = run_towers(self.clip, image, text, triples)
        output.image_features, output.text_features = towers.image_features, towers.text_features
        entities = encoder.embed(towers.text, towers.image, triples.image_mask)
        found = encoder(
            entities,
            towers.relation_features,
            triples.triples,
            triples.asked,
            towers.entity_features,
        )
        for field, value in found.items():
            setattr(output, field, value)

    def _read_graph(
        self, output: KnowledgeOutput, graph: GraphInputs, chunk_size: int | None
    ) -> None:
        if self.graph_encoder is None:
            raise ValueError("graph is given but the model has no graph_encoder; pass one")
        inputs = graph.x, graph.edge_index, graph.edge_type, graph.relation_features
        # Sums over many messages are for float32, under autocast too.
        with torch.autocast(graph.x.device.type, enabled=False):
            # Messages have no rows to cut: all of them are recomputed at once.
            everything: Tensor = (
                self.graph_encoder(*inputs)
                if chunk_size is None
                else checkpoint(self.graph_encoder, *inputs, use_reentrant=False)
            )
        output.graph_features = everything[graph.rows]
        if output.entity_features is not None:
            output.fused_features = self.fuse(
                output.entity_features.detach(), output.graph_features.detach()
            )

    def _encode_images(self, image: Tensor, chunk_size: int | None) -> Tensor:
        """Unit vectors of pictures or of their trunk features."""
        return F.normalize(encode_in_chunks(self.project_image, image, chunk_size), dim=-1)

    def _encode_texts(self, texts: list[Tensor], chunk_size: int | None) -> list[Tensor]:
        """Unit vectors of token ids, in one pass of the tower, and of cached features."""
        ids = [text for text in texts if not text.is_floating_point()]
        encoded: Iterator[Tensor] = iter(())
        if ids:
            encode = functools.partial(encode_text_trimmed, self.clip, normalize=True)
            if chunk_size is None:
                features = encode(torch.cat(ids))
            else:  # equal texts may lie in different chunks
                distinct, rows = torch.unique(torch.cat(ids), dim=0, return_inverse=True)
                features = encode_in_chunks(encode, distinct, chunk_size)[rows]
            encoded = iter(torch.split(features, [len(text) for text in ids]))
        return [
            F.normalize(text, dim=-1) if text.is_floating_point() else next(encoded)
            for text in texts
        ]

    def _entity_features(
        self, triples: TripleInputs, from_text: Tensor, chunk_size: int | None
    ) -> Tensor:
        features = from_text.new_zeros(len(triples.text), from_text.shape[-1])
        features = features.index_put((~triples.image_mask,), from_text)
        if triples.image_mask.any():
            from_image = self._encode_images(triples.image, chunk_size)
            features = features.index_put((triples.image_mask,), from_image.to(features.dtype))
        return features


def create_model_and_transforms(
    model_name: str,
    pretrained: str | None = None,
    *,
    graph_layers: int = 2,
    triple_encoder: str | TripleEncoderOptions | None = None,
    **kwargs: Any,
) -> tuple[KnowledgeCLIP, Callable[[Any], Tensor], Callable[[Any], Tensor]]:
    """Create a Knowledge-CLIP around an open_clip model; open_clip's function otherwise.

    The graph part is conditioned on the texts of relations and needs no graph to be built.

    Args:
        model_name: A name of ``open_clip.list_models()``, ``hf-hub:…``, ``local-dir:…`` or ours.
        pretrained: open_clip's tag of trained weights, or the path of a checkpoint.
        graph_layers: Hops of the graph encoder; 0 = no graph part.
        triple_encoder: Preset or size of the triple encoder; ``None`` = the text tower reads
            triples.
        **kwargs: Everything else that ``open_clip.create_model_and_transforms`` takes.

    Returns:
        The model, the transform for training and the one for evaluation.

    Raises:
        ValueError: If open_clip has no such model, or there is no such preset; says the nearest
            name.
    """
    clip, train, val = create_clip_and_transforms(model_name, pretrained, **kwargs)
    tokenizer = build_tokenizer(model_name)
    graph = GraphEncoder(joint_width(clip), graph_layers) if graph_layers else None
    triples = None if triple_encoder is None else build_triple_encoder(clip, triple_encoder)
    return KnowledgeCLIP(clip, graph, triples, tokenizer), train, val


def build_triple_encoder(
    clip: nn.Module, options: str | TripleEncoderOptions = "small", num_relations: int | None = None
) -> TripleEncoder:
    """Build a triple encoder for an open_clip model, all widths read off its towers.

    Args:
        clip: An open_clip model.
        options: A name in ``PRESETS``, or a size of your own.
        num_relations: Outputs of a fixed relation classifier; ``None`` = classified by text.

    Raises:
        ValueError: If there is no such preset; says the nearest name.
    """
    if isinstance(options, str):
        if options not in PRESETS:
            near = difflib.get_close_matches(options, PRESETS, n=1, cutoff=0)
            raise ValueError(
                f"triple_encoder: {options!r} given, one of {', '.join(PRESETS)} expected; "
                f"the nearest is {near[0]!r}"
            )
        options = PRESETS[options]
    image, text = token_widths(clip)
    return TripleEncoder(
        joint_width(clip),
        image,
        text,
        options,
        num_prefix=num_prefix_tokens(clip),
        num_relations=num_relations,
    )


def token_widths(clip: nn.Module) -> tuple[int, int]:
    """Widths of the tokens of an open_clip model's image tower and text tower."""
    weight = next(clip.parameters())
    size: Any = clip.visual.image_size  # type: ignore[union-attr]  # open_clip is untyped
    height, width = size if isinstance(size, tuple | list) else (size, size)
    length = int(clip.context_length)  # type: ignore[arg-type]  # open_clip is untyped
    with evaluating(clip), torch.no_grad():
        image, _ = encode_tokens(clip, image=weight.new_zeros(1, 3, height, width))
        ids = torch.zeros(1, length, dtype=torch.long, device=weight.device)
        text, _ = encode_tokens(clip, text=ids)
    return image.shape[-1], text.shape[-1]


def joint_width(clip: nn.Module) -> int:
    """Width D of the joint space of an open_clip model, read off its text tower."""
    device = next(clip.parameters()).device
    tokens = torch.zeros(1, int(clip.context_length), dtype=torch.long, device=device)  # type: ignore[arg-type]  # open_clip is untyped
    with torch.no_grad():
        features: Tensor = clip.encode_text(tokens)  # type: ignore[operator]  # open_clip is untyped
    return features.shape[-1]
