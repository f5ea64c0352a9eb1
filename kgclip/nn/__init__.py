"""Models: open_clip's towers, the graph encoder beside them, and what they compute."""

from kgclip.nn.clip import build_tokenizer, lock_image_trunk
from kgclip.nn.compgcn import CompGCNConv
from kgclip.nn.features import cache_image_features, cache_text_features
from kgclip.nn.hgt import HGTConv
from kgclip.nn.model import GraphEncoder, KnowledgeCLIP, create_model_and_transforms
from kgclip.nn.output import Batch, KnowledgeOutput, Targets
from kgclip.nn.relation_gate import RelationGateConv
from kgclip.nn.rgat import RGATConv
from kgclip.nn.rgcn import RGCNConv
from kgclip.nn.stack import ConvStack
from kgclip.nn.token_inputs import TokenInputs
from kgclip.nn.tokens import encode_text_trimmed, encode_tokens, encode_with_tokens
from kgclip.nn.triples import TripleEncoder, TripleEncoderOptions

__all__ = [
    "Batch",
    "CompGCNConv",
    "ConvStack",
    "GraphEncoder",
    "HGTConv",
    "KnowledgeCLIP",
    "KnowledgeOutput",
    "RGATConv",
    "RGCNConv",
    "RelationGateConv",
    "Targets",
    "TokenInputs",
    "TripleEncoder",
    "TripleEncoderOptions",
    "build_tokenizer",
    "cache_image_features",
    "cache_text_features",
    "create_model_and_transforms",
    "encode_text_trimmed",
    "encode_tokens",
    "encode_with_tokens",
    "lock_image_trunk",
]
