"""The relation-aware convolutions by name: one ``forward(x, edge_index, edge_type)``."""

from torch import nn

from kgclip.nn.compgcn import CompGCNConv
from kgclip.nn.rgat import RGATConv
from kgclip.nn.rgcn import RGCNConv

CONVS: dict[str, type[nn.Module]] = {
    "rgcn": RGCNConv,
    "compgcn": CompGCNConv,
    "rgat": RGATConv,
}
