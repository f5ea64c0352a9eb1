"""Graph-level alignment: a CLIP that is trained beside an encoder of whole scene graphs.

Pictures, captions and small graphs come in, their vectors in one space go out. A graph's nodes
are read with the text tower's own word embeddings, so what the graph teaches reaches the words.
The graph encoder serves training alone: afterwards the CLIP model stands by itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.nn.clip import image_head, image_trunk_features
from kgclip.nn.compgcn import CompGCNConv
from kgclip.nn.output import KnowledgeOutput
from kgclip.nn.scene_regions import SceneRegions, encode_regions
from kgclip.nn.tokens import encode_text_trimmed
from kgclip.nn.triples import TripleEncoder


@dataclasses.dataclass
class SceneGraphs:
    """G graphs with N nodes in all.

    Attributes:
        words: Token ids of each node's words, without start and end; 0 = no word. Long [N, W].
        edge_index: Messages go from row 0 to row 1. Long [2, E].
        edge_type: Relation of each edge, inverses in the second half. Long [E].
        relation_words: Token ids of each relation's text; 0 = no word. Long [R, V].
        graph_ids: Graph of each node. Long [N], each in [0, G).
        num_graphs: G.
    """

    words: Tensor
    edge_index: Tensor
    edge_type: Tensor
    relation_words: Tensor
    graph_ids: Tensor
    num_graphs: int


class SceneGraphEncoder(nn.Module):
    """A graph as one vector: CompGCN layers over its nodes, then their mean.

    Args:
        in_channels: Width of the nodes' and the relations' features.
        out_channels: Width of the result.
        num_relations: R, inverses included.
        num_layers: Number of layers, at least 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_relations: int, num_layers: int = 2
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            CompGCNConv(
                in_channels,
                in_channels,
                num_relations,
                relation_channels=in_channels,
                composition="mult",
                norm="mean",
            )
            for _ in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(in_channels) for _ in range(num_layers))
        self.relation_norm = nn.LayerNorm(in_channels)
        self.readout = nn.Sequential(
            nn.LayerNorm(in_channels), nn.Linear(in_channels, out_channels)
        )

    def forward(self, x: Tensor, graphs: SceneGraphs, relation_features: Tensor) -> Tensor:
        """Encode graphs.

        Args:
            x: Features of the nodes. Float [N, in_channels].
            graphs: Edges, and which node belongs to which graph.
            relation_features: Float [R, in_channels].

        Returns:
            Unit vectors; of a graph without nodes the readout's bias. Float [G, out_channels].
        """
        relations = self.relation_norm(relation_features)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + F.gelu(conv(norm(x), graphs.edge_index, graphs.edge_type, relations))
        pooled = x.new_zeros(graphs.num_graphs, x.shape[1]).index_add(0, graphs.graph_ids, x)
        sizes = torch.bincount(graphs.graph_ids, minlength=graphs.num_graphs).clamp(min=1)
        return F.normalize(self.readout(pooled / sizes[:, None]), dim=-1)


class SceneCLIP(nn.Module):
    """An open_clip model, and a graph encoder that reads its word embeddings.

    Args:
        clip: An open_clip ``CLIP``.
        graph_encoder: ``None`` = no graphs.
        triple_encoder: Reads triples of regions; its image tower has a
            :class:`~kgclip.nn.grid_tower.GridTower`. ``None`` = no regions.
    """

    def __init__(
        self,
        clip: nn.Module,
        graph_encoder: SceneGraphEncoder | None = None,
        triple_encoder: TripleEncoder | None = None,
    ) -> None:
        super().__init__()
        self.clip: Any = clip
        self.graph_encoder = graph_encoder
        self.triple_encoder = triple_encoder

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        negative_text: Tensor | None = None,
        graphs: SceneGraphs | None = None,
        regions: SceneRegions | None = None,
    ) -> KnowledgeOutput:
        """Encode B pairs.

        Args:
            image: Pictures, float [B, 3, H, W], or what the frozen trunk makes of them.
            text: Captions. Long [B, L].
            negative_text: Corrupted captions. Long [B, K, L].
            graphs: Of each pair its graph and K corrupted ones, B · (1 + K) in the order of
                the pairs.
            regions: A triple of regions of each picture.

        Returns:
            The fields that the input allows.

        Raises:
            ValueError: If ``graphs`` or ``regions`` are given and there is no encoder for them,
                or the number of graphs does not fit.
        """
        output = KnowledgeOutput(logit_scale=self.clip.logit_scale.exp())
        if image.ndim == 4 and image.shape[1] == 3:
            image = image_trunk_features(self.clip, image)
        if regions is None:
            projected = image_head(self.clip, image)
        else:
            projected = self._read_regions(image, regions, output)
        output.image_features = F.normalize(projected, dim=-1)
        rows = text if negative_text is None else torch.cat([text, negative_text.flatten(0, 1)])
        features = encode_text_trimmed(self.clip, rows, normalize=True)
        output.text_features = features[: len(text)]
        if negative_text is not None:
            negatives = features[len(text) :]
            output.negative_text_features = negatives.view(*negative_text.shape[:2], -1)
        if graphs is not None:
            encoded = self.encode_graphs(graphs)
            if len(encoded) % len(text):
                raise ValueError(f"graphs: {len(encoded)} given for {len(text)} pairs")
            by_pair = encoded.view(len(text), -1, encoded.shape[1])
            output.pair_graph_features = by_pair[:, 0]
            output.negative_graph_features = by_pair[:, 1:]
        return output

    def _read_regions(
        self, image: Tensor, regions: SceneRegions, output: KnowledgeOutput
    ) -> Tensor:
        """Fill the fields of regions; returns the pictures' features, float [B, D]."""
        if self.triple_encoder is None:
            raise ValueError("regions are given but the model has no triple_encoder; pass one")
        visual = self.clip.visual
        tokens = visual.trunk.encode_grid(image)
        cells = tokens[:, visual.trunk.num_prefix_tokens :]
        found = encode_regions(self.clip, self.triple_encoder, cells, regions)
        for field, value in found.items():
            setattr(output, field, value)
        projected: Tensor = visual.head(visual.trunk.forward_head(tokens))
        return projected

    def encode_graphs(self, graphs: SceneGraphs) -> Tensor:
        """Unit vectors of graphs, float [G, D]; ValueError without a graph encoder."""
        if self.graph_encoder is None:
            raise ValueError("graphs are given but the model has no graph_encoder; pass one")
        encoded: Tensor = self.graph_encoder(
            self._sum_words(graphs.words), graphs, self._sum_words(graphs.relation_words)
        )
        return encoded

    def _sum_words(self, words: Tensor) -> Tensor:
        embedded: Tensor = self.clip.token_embedding(words)
        return (embedded * (words != 0)[..., None]).sum(dim=1)
