"""Neighbour sampling on a plain pip install, without pyg-lib.

Graphs come in as PyG data, batches of small graphs go out, with PyG's attributes. Sampling is
vectorised: a batch costs one pass of numpy a hop and edge type, and a dense array that renumbers
nodes is kept between batches, because a hash map is what makes such samplers slow.
"""

from kgclip.sampling.edges import InEdges, choose_edges, group_by_target, sample_subgraph
from kgclip.sampling.links import LinkNeighborLoader
from kgclip.sampling.loader import NeighborLoader, ego_graphs
from kgclip.sampling.sampler import NeighborSampler

__all__ = [
    "InEdges",
    "LinkNeighborLoader",
    "NeighborLoader",
    "NeighborSampler",
    "choose_edges",
    "ego_graphs",
    "group_by_target",
    "sample_subgraph",
]
