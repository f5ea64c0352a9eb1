"""From a config to a trained model: graph, towers, batches, losses, trainer.

The one place that turns a :class:`~kgclip.config.TrainConfig` into objects; ``kgclip train``
and the experiments both come through here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kgclip.batches import Corpus, KnowledgeBatches
from kgclip.checkpoint import load_checkpoint, read_checkpoint
from kgclip.config import TrainConfig, check_config, load_config
from kgclip.evaluation.link_prediction import evaluate_link_prediction
from kgclip.evaluation.retrieval import evaluate_retrieval
from kgclip.graph import KnowledgeGraph, load_graph
from kgclip.mined_captions import MinedCaptions
from kgclip.negatives import NegativeSampler
from kgclip.nn.clip import build_tokenizer, evaluating, lock_image_trunk
from kgclip.nn.features import cache_image_features, cache_image_tokens
from kgclip.nn.model import KnowledgeCLIP, create_model_and_transforms
from kgclip.nn.teacher import TeacherFeatures
from kgclip.nn.triples import QUERIES
from kgclip.recipe import build_graph
from kgclip.scorers import FactScorer, TokenScorer
from kgclip.terms import build_terms
from kgclip.token_triples import TokenTriples
from kgclip.trainer import LossTerm, Trainer, decay_groups


def build_model(config: TrainConfig) -> tuple[KnowledgeCLIP, Callable[[Any], Tensor]]:
    """Build the model of a config, its image trunk frozen, and its text tower if it says so.

    Args:
        config: ``trainer.seed`` decides the random weights.

    Returns:
        The model, and the transform from a PIL picture to a tensor.
    """
    settings = config.model
    torch.manual_seed(config.trainer.seed)
    model, _, preprocess = create_model_and_transforms(
        settings.name,
        settings.pretrained,
        graph_layers=settings.graph_layers,
        triple_encoder=settings.triple_encoder_options(),
        pretrained_image=settings.pretrained_image,
    )
    lock_image_trunk(model.clip)
    if settings.freeze_text:
        model.clip.lock_text_tower()  # type: ignore[operator]  # open_clip is untyped
    return model, preprocess


def build_corpus(
    graph: KnowledgeGraph, config: TrainConfig, model: KnowledgeCLIP, preprocess: Any, cache: Path
) -> Corpus:
    """Tokenise a graph and run its pictures through the frozen trunk once.

    Args:
        graph: With pictures.
        config: Names the model, and so the tokenizer.
        model: Its image trunk is used.
        preprocess: From a PIL picture to a tensor.
        cache: Folder that keeps the trunk features between runs.
    """
    boxes = graph.images["box"].to_list()
    pictures = [(graph.image_path(row), box) for row, box in enumerate(boxes)]
    features = cache_image_features(model.clip, preprocess, pictures, folder=cache)
    tokens = None
    if model.triple_encoder is not None:
        limit = model.triple_encoder.options.max_tokens
        tokens = cache_image_tokens(
            model.clip, preprocess, pictures, max_tokens=limit, folder=cache
        )
    return Corpus(graph, build_tokenizer(config.model.name), features, tokens)


def fit(
    config: TrainConfig,
    graph: KnowledgeGraph,
    corpus: Corpus,
    model: KnowledgeCLIP,
    *,
    output: Path,
    resume: str | None = None,
    on_step: Callable[[int, nn.Module], None] | None = None,
) -> Trainer:
    """Train a model on a corpus.

    Args:
        config: What to train, and how.
        graph: The graph of the corpus; names the entities' types.
        corpus: Material.
        model: Trained in place.
        output: Folder for the checkpoint and the log.
        resume: ``"auto"`` = go on from the newest checkpoint in ``output``, if there is one.
        on_step: Called after each step with the number of steps done and the model.

    Returns:
        The trainer, after its last step.
    """
    terms = build_terms(config.losses, corpus)
    batches = build_batches(config, graph, corpus, model, terms, cache=output / "cache")
    trainer = Trainer(
        model,
        terms,
        batches,
        options=config.trainer,
        output=output,
        param_groups=_param_groups(config, model),
        on_step=on_step,
        config=config.model_dump(mode="json"),
    )
    trainer.fit(resume=resume)
    return trainer


def build_batches(
    config: TrainConfig,
    graph: KnowledgeGraph,
    corpus: Corpus,
    model: KnowledgeCLIP,
    terms: Mapping[str, LossTerm],
    cache: Path | None = None,
) -> KnowledgeBatches:
    """Build a config's batches; what the losses read decides what is computed.

    Args:
        config: Says what a step sees.
        graph: The graph of the corpus.
        corpus: Material.
        model: As it starts: the teacher of distillation is what it is now.
        terms: The losses.
        cache: Folder that keeps what a frozen text tower makes of the texts.
    """
    reads = {field for term in terms.values() if term.weight for field in term.loss.reads}
    frozen = config.model.freeze_text
    token_triples = None
    if model.triple_encoder is not None and corpus.image_tokens is not None:
        token_triples = TokenTriples(
            graph,
            build_tokenizer(config.model.name),
            corpus.image_tokens,
            image_features=corpus.image_features,
            image_share=config.batches.image_share,
            asked=[field for field in QUERIES if field in reads],
        )
        if frozen:
            token_triples.cache_texts(model.clip, model.triple_encoder.options.max_tokens)
    return KnowledgeBatches(
        corpus,
        graph.entities["type"].to_list(),
        config.batches,
        model.clip,
        token_triples=token_triples,
        captions=_captions(config, corpus) if "negative_text_features" in reads else None,
        teacher=_teacher(model, corpus) if "teacher_logit_scale" in reads else None,
        texts=corpus.cache_texts(model.clip, cache) if frozen else None,
    )


def _captions(config: TrainConfig, corpus: Corpus) -> MinedCaptions:
    options = config.batches
    trained = torch.from_numpy(corpus.triple_split == "train")
    known = NegativeSampler(corpus.triples[trained], corpus.num_entities, corpus.num_relations)
    return MinedCaptions(
        corpus.labels,
        corpus.relation_labels,
        known,
        build_tokenizer(config.model.name),
        kinds=options.negative_kinds,
        num_negatives=options.num_negatives,
        share=options.triple_captions,
    )


@torch.no_grad()
def _teacher(model: KnowledgeCLIP, corpus: Corpus) -> TeacherFeatures:
    """The start model's features of all pictures and labels, computed once."""
    with evaluating(model):
        parts = [model.project_image(rows) for rows in torch.split(corpus.image_features[:], 256)]
        images = F.normalize(torch.cat(parts), dim=-1)
        texts = corpus.text_features(model.clip, corpus.text)
    return TeacherFeatures(images, texts, model.logit_scale.exp().clone())


def _param_groups(config: TrainConfig, model: KnowledgeCLIP) -> list[dict[str, Any]] | None:
    """The towers at a learning rate of their own, if the config has one."""
    if config.model.tower_lr is None:
        return None
    groups = []
    for group in decay_groups(model, config.trainer.weight_decay):
        for is_tower, rate in ((True, {"lr": config.model.tower_lr}), (False, {})):
            params = [pair for pair in group["params"] if pair[0].startswith("clip.") == is_tower]
            groups += [{**group, **rate, "params": params}] if params else []
    return groups


def train(
    path: str | Path, overrides: Mapping[str, object] | None = None, resume: str = "never"
) -> Path:
    """Train as a config file says; what ``kgclip train`` runs.

    Args:
        path: TOML file.
        overrides: Values by dotted key.
        resume: ``"auto"`` or ``"never"``.

    Returns:
        Folder of the run: ``last/`` with weights and config, ``log.jsonl``.

    Raises:
        GraphError: If the config, the graph or a picture cannot be used.
    """
    config = load_config(path, overrides)
    graph = open_graph(config.graph)
    model, preprocess = build_model(config)
    output = Path(config.output)
    corpus = build_corpus(graph, config, model, preprocess, output / "cache")
    fit(config, graph, corpus, model, output=output, resume="auto" if resume == "auto" else None)
    return output


def open_graph(name: str) -> KnowledgeGraph:
    """Load a saved graph's folder, or build the recipe of that name."""
    return load_graph(name) if Path(name).is_dir() else build_graph(name)


def evaluate(run: str | Path, state: Mapping[str, Tensor] | None = None) -> dict[str, float]:
    """Evaluate a trained run on what its graph holds out; what ``kgclip evaluate`` runs.

    Pictures whose split is ``"test"`` are retrieved by their names and back; triples whose split
    is ``"test"`` are ranked among all entities, filtered by every known triple. Where the graph
    has no such split, all pictures and triples are taken, and the figures are training figures.

    Args:
        run: Folder that :func:`train` wrote.
        state: Weights to evaluate instead of the run's, as ``model.state_dict()`` names them.

    Returns:
        ``retrieval/…`` and ``link_prediction/…`` figures, and ``held_out`` (1.0 or 0.0).

    Raises:
        GraphError: If the folder holds no run, or the run does not fit its graph.
    """
    config = check_config(read_checkpoint(run).config, str(run))
    graph = open_graph(config.graph)
    model, preprocess = build_model(config)
    load_checkpoint(run, model)
    if state is not None:
        model.load_state_dict(state)
    model.eval()
    corpus = build_corpus(graph, config, model, preprocess, Path(run) / "cache")
    return {
        "held_out": float("test" in corpus.triple_split or "test" in corpus.image_split),
        **_evaluate_pictures(model, corpus),
        **_evaluate_triples(model, corpus, build_tokenizer(config.model.name)),
    }


@torch.no_grad()
def _evaluate_pictures(model: KnowledgeCLIP, corpus: Corpus) -> dict[str, float]:
    held_out = corpus.image_split == "test"
    rows = torch.from_numpy(np.flatnonzero(held_out if held_out.any() else held_out | True))
    if not len(rows):
        return {}
    images = F.normalize(model.project_image(corpus.image_features[rows]), dim=-1)
    texts = corpus.text_features(model.clip, corpus.text[corpus.image_entity[rows]])
    figures = evaluate_retrieval(images, texts)
    return {f"retrieval/{key}": value for key, value in figures.items()}


@torch.no_grad()
def _evaluate_triples(
    model: KnowledgeCLIP, corpus: Corpus, tokenizer: Callable[[list[str]], Tensor]
) -> dict[str, float]:
    held_out = torch.from_numpy(corpus.triple_split == "test")
    test = corpus.triples[held_out] if held_out.any() else corpus.triples
    if not len(test):
        return {}
    score: TokenScorer | FactScorer = (
        FactScorer(model, corpus, tokenizer)
        if model.triple_encoder is None
        else TokenScorer(model, corpus)
    )
    figures = evaluate_link_prediction(
        score, test, corpus.triples, corpus.num_entities, relation_names=corpus.relation_labels
    )
    return {f"link_prediction/{key}": value for key, value in figures.items()}
