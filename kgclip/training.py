"""From a config to a trained model: graph, towers, batches, losses, trainer.

The one place that turns a :class:`~kgclip.config.TrainConfig` into objects; ``kgclip train``
and the experiments both come through here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from kgclip.batches import Corpus, KnowledgeBatches
from kgclip.checkpoint import read_checkpoint
from kgclip.config import TrainConfig, check_config, load_config
from kgclip.devices import pick_device
from kgclip.evaluation.link_prediction import evaluate_link_prediction
from kgclip.graph import KnowledgeGraph, load_graph
from kgclip.mined_captions import MinedCaptions
from kgclip.model_evaluation import graph_pictures
from kgclip.models import OpenedModel, build_model, load_weights
from kgclip.negatives import NegativeSampler
from kgclip.nn.clip import build_tokenizer, evaluating
from kgclip.nn.features import cache_image_features, cache_image_tokens
from kgclip.nn.model import KnowledgeCLIP
from kgclip.nn.pictures import DecodedPictures, read_picture
from kgclip.nn.teacher import TeacherFeatures
from kgclip.nn.tokens import text_tower
from kgclip.nn.triples import QUERIES
from kgclip.recipe import build_graph
from kgclip.scorers import FactScorer, TokenScorer
from kgclip.tables import GraphError, build_tables
from kgclip.terms import build_terms
from kgclip.token_triples import TokenTriples
from kgclip.tower_evaluation import encode_rows, evaluate_towers, write_comparison
from kgclip.trainer import LossTerm, Trainer, decay_groups


def build_corpus(
    graph: KnowledgeGraph, config: TrainConfig, model: KnowledgeCLIP, preprocess: Any, cache: Path
) -> Corpus:
    """Tokenise a graph, and run its pictures through the image trunk once if that is frozen.

    Args:
        graph: With or without pictures.
        config: Names the model, and so the tokenizer.
        model: Its image trunk is used.
        preprocess: From a PIL picture to a tensor.
        cache: Folder that keeps the trunk features between runs.

    Raises:
        GraphError: If a picture cannot be read, or the tokenizer does not fit the model.
    """
    tokenizer = build_tokenizer(config.model.name)
    check_tokenizer(model.clip, tokenizer, config.model.name)
    pictures = graph_pictures(graph)
    if not config.model.caches_images:
        decoded = DecodedPictures(pictures, preprocess, config.batches.num_workers)
        return Corpus(graph, tokenizer, decoded, decoded if model.triple_encoder else None)
    features = cache_image_features(model.clip, preprocess, pictures, folder=cache)
    tokens = None
    if model.triple_encoder is not None:
        limit = model.triple_encoder.options.max_tokens
        tokens = cache_image_tokens(
            model.clip, preprocess, pictures, max_tokens=limit, folder=cache
        )
    return Corpus(graph, tokenizer, features, tokens)


def drop_unreadable(graph: KnowledgeGraph) -> KnowledgeGraph:
    """Leave out pictures that are missing or cannot be decoded, and warn with their number.

    Args:
        graph: Every picture of it is decoded once.
    """
    readable, problems = np.ones(len(graph.images), dtype=bool), []
    for row, picture in enumerate(graph_pictures(graph)):
        try:
            read_picture(picture)
        except GraphError as error:
            readable[row] = False
            problems.append(str(error))
    if not problems:
        return graph
    warnings.warn(
        f"{len(problems)} of {len(readable)} pictures left out, the first: {problems[0]}",
        stacklevel=2,
    )
    frames = {**graph.tables.frames(), "images": graph.images.filter(pl.Series(readable))}
    return KnowledgeGraph(build_tables(frames, graph.origins), graph.root)


def check_tokenizer(clip: nn.Module, tokenizer: Callable[[list[str]], Tensor], name: str) -> None:
    """Check that a text tower can read what a tokenizer makes.

    Args:
        clip: An open_clip model.
        tokenizer: From texts to token ids.
        name: Of the model, for the message.

    Raises:
        GraphError: If the ids are too many or too long for the tower.
    """
    tokens = tokenizer([" ".join(map(chr, range(33, 127)))])  # every printable character of ASCII
    tower: Any = text_tower(clip)
    length, words = int(clip.context_length), int(tower.vocab_size)  # type: ignore[arg-type]  # open_clip is untyped
    if tokens.shape[1] > length or int(tokens.max()) >= words:
        raise GraphError(
            f"model.name {name}: its tokenizer makes {tokens.shape[1]} tokens with ids up to "
            f"{int(tokens.max())}, its text tower reads {length} of a vocabulary of {words}; name "
            "the tokenizer that it was trained with in text_cfg of open_clip_config.json"
        )


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
    frozen = config.model.lock_text
    token_triples = None
    if model.triple_encoder is not None and corpus.image_tokens is not None:
        token_triples = TokenTriples(
            graph,
            build_tokenizer(config.model.name),
            corpus.image_tokens,
            image_features=corpus.image_features if config.model.caches_images else None,
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
    """The start model's features of all pictures, labels and captions, computed once."""
    with evaluating(model):
        images = encode_rows(model, corpus, torch.arange(len(corpus.image_features)))
        texts = [corpus.text_features(model.clip, ids) for ids in (corpus.text, corpus.caption_text)
                 if len(ids)]  # fmt: skip
    scale = model.logit_scale.exp().detach().clone()
    return TeacherFeatures(images, torch.cat(texts), scale)


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
        Folder of the run: ``last/`` with weights and config, ``log.jsonl``; ``metrics.json`` and
        ``report.html`` with the figures of the start model beside those of the result.

    Raises:
        GraphError: If the config, the graph or a picture cannot be used.
    """
    config = load_config(path, overrides)
    graph = open_graph(config)
    device = pick_device(config.device)
    model, preprocess = build_model(config)
    model.to(device)
    output = Path(config.output)
    corpus = build_corpus(graph, config, model, preprocess, output / "cache")
    opened = OpenedModel(model, preprocess, build_tokenizer(config.model.name), config)
    start = evaluate_towers(opened, corpus, config)
    trainer = fit(
        config, graph, corpus, model, output=output, resume="auto" if resume == "auto" else None
    )
    load_weights(output, model)
    write_comparison(
        output,
        start,
        evaluate_towers(opened, corpus, config),
        seconds=trainer.cpu_seconds,
        seed=config.trainer.seed,
        log=pl.read_ndjson(output / "log.jsonl").to_dicts(),
        extra={
            "held_out": bool(_is_held_out(corpus)),
            "epochs": _count_epochs(config, trainer),
            "texts_cut": corpus.num_cut,
        },
    )
    return output


def open_graph(config: TrainConfig) -> KnowledgeGraph:
    """Load a config's graph from its folder, or build the recipe of that name."""
    is_saved = Path(config.graph).is_dir()
    graph = load_graph(config.graph) if is_saved else build_graph(config.graph)
    return drop_unreadable(graph) if config.unreadable_pictures == "skip" else graph


def evaluate(
    run: str | Path, state: Mapping[str, Tensor] | None = None, device: str = "auto"
) -> dict[str, float]:
    """Evaluate a trained run on what its graph holds out; what ``kgclip evaluate`` runs.

    Pictures as :func:`~kgclip.tower_evaluation.evaluate_towers` does; triples whose split is
    ``"test"`` are ranked among all entities, filtered by every known triple. Where the graph has
    no such split, all pictures and triples are taken, and the figures are training figures.

    Args:
        run: Folder that :func:`train` wrote.
        state: Weights to evaluate instead of the run's, as ``model.state_dict()`` names them.
        device: Where; see :func:`~kgclip.devices.pick_device`.

    Returns:
        ``retrieval/…``, ``zero_shot/…`` and ``link_prediction/…`` figures, those of the data that
        the config names, and ``held_out`` (1.0 or 0.0).

    Raises:
        GraphError: If the folder holds no run, or the run does not fit its graph.
    """
    config = check_config(read_checkpoint(run).config, str(run))
    graph = open_graph(config)
    model, preprocess = build_model(config)
    load_weights(run, model)
    if state is not None:
        model.load_state_dict(state)
    model.to(pick_device(device))
    corpus = build_corpus(graph, config, model, preprocess, Path(run) / "cache")
    tokenizer = build_tokenizer(config.model.name)
    return {
        "held_out": float(_is_held_out(corpus)),
        **evaluate_towers(OpenedModel(model, preprocess, tokenizer, config), corpus, config),
        **_evaluate_triples(model, corpus, tokenizer),
    }


def _is_held_out(corpus: Corpus) -> bool:
    return "test" in corpus.triple_split or "test" in corpus.image_split


def _count_epochs(config: TrainConfig, trainer: Trainer) -> float:
    """How often training saw each image-text pair."""
    batches = trainer.batches
    assert isinstance(batches, KnowledgeBatches)
    seen = config.trainer.steps * config.trainer.accumulate * config.batches.num_pairs
    return seen / max(1, batches.epoch_size)


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
