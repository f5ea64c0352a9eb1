"""How much faster than PyKEEN do embeddings train, and are triples ranked, at equal work?

    python benchmarks/embedding_speed.py DATA -o benchmarks/results/embedding_speed.json

DATA is a folder with ``pykeen_small/umls``. DistMult of width 64, fp32, one thread. Training:
one random corruption of head or tail a triple, pairwise logistic loss, Adagrad on both sides,
batches of 256 (UMLS) and 1,024 (a random graph of FB15k-237's size). Ranking: both sides,
filtered, of the same vectors. CPU seconds of interleaved pairs.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pykeen.evaluation import RankBasedEvaluator
from pykeen.losses import PairwiseLogisticLoss
from pykeen.models import DistMult
from pykeen.training import SLCWATrainingLoop
from pykeen.triples import CoreTriplesFactory
from report import compare_pairs, write_report

from kgclip import read_graph
from kgclip.embedding_training import EmbeddingOptions, train_embedding
from kgclip.evaluation import evaluate_link_prediction
from kgclip.nn.embedding import KnowledgeGraphEmbedding

WIDTH = 64


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Process CPU seconds of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def random_triples(num_triples: int, num_entities: int = 14_541, num_relations: int = 237) -> Any:
    """Distinct triples of skewed entities (N u^1.5) and relations. Long [T, 3]."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(int(1.2 * num_triples), 3, generator=generator) ** 1.5
    sizes = torch.tensor([num_entities, num_relations, num_entities])
    triples = torch.unique((draw * sizes).long(), dim=0)
    return triples[torch.randperm(len(triples), generator=generator)[:num_triples]]


def umls(folder: Path) -> torch.Tensor:
    """The training triples of UMLS. Long [T, 3]."""
    graph = read_graph(folder / "pykeen_small" / "umls")
    frame = graph.triples.filter(split="train").select("head", "relation", "tail")
    return torch.from_numpy(frame.to_numpy().copy())


def compare_training(
    triples: torch.Tensor, batch_size: int, epochs: int, pairs: int
) -> dict[str, Any]:
    """Triples a second of both, each training anew in each pair."""
    num_entities, num_relations = int(triples[:, ::2].max()) + 1, int(triples[:, 1].max()) + 1
    factory = CoreTriplesFactory.create(triples, num_entities, num_relations)

    def ours() -> None:
        model = KnowledgeGraphEmbedding(
            num_entities, num_relations, WIDTH, "distmult", reciprocal=False
        )
        options = EmbeddingOptions(
            epochs=epochs, batch_size=batch_size, n3=0.0, sides="either", negatives=1, shared=False
        )
        train_embedding(model, triples, options=options)

    def theirs() -> None:
        model = DistMult(
            triples_factory=factory, embedding_dim=WIDTH, loss=PairwiseLogisticLoss(),
            regularizer=None, random_seed=0,
        )  # fmt: skip
        optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
        loop = SLCWATrainingLoop(model=model, triples_factory=factory, optimizer=optimizer)
        loop.train(factory, num_epochs=epochs, batch_size=batch_size, use_tqdm=False)

    for work in (ours, theirs):
        work()  # warm-up
    found = compare_pairs([(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(pairs)])
    for side in ("ours", "peer"):
        found[f"{side}_triples_per_second"] = epochs * len(triples) / found[f"{side}_seconds"]
    return found


def compare_ranking(num_test: int, pairs: int) -> dict[str, Any]:
    """Ranking of the same vectors by both, and how far their MRRs are apart."""
    triples = random_triples(284_000)
    num_entities, num_relations = int(triples[:, ::2].max()) + 1, int(triples[:, 1].max()) + 1
    train, test = triples[num_test:], triples[:num_test]
    torch.manual_seed(0)
    model = KnowledgeGraphEmbedding(
        num_entities, num_relations, WIDTH, "distmult", reciprocal=False
    )
    options = EmbeddingOptions(epochs=2, batch_size=1024, n3=0.0, negatives=64)
    train_embedding(model, train, options=options)  # so that ranks are not all chance
    factory = CoreTriplesFactory.create(train, num_entities, num_relations)
    peer = DistMult(triples_factory=factory, embedding_dim=WIDTH, regularizer=None)
    with torch.no_grad():
        for table, vectors in (
            (peer.entity_representations[0], model.entities.weight),
            (peer.relation_representations[0], model.relations.weight),
        ):
            table._embeddings.weight.copy_(vectors)
    evaluator = RankBasedEvaluator(filtered=True)
    found: dict[str, float] = {}

    def ours() -> None:
        with torch.no_grad():
            figures = evaluate_link_prediction(model, test, train, num_entities)
        found["ours"] = figures["both/mrr"]

    def theirs() -> None:
        result = evaluator.evaluate(
            peer, test, additional_filter_triples=[train], batch_size=512, use_tqdm=False
        )
        found["peer"] = result.get_metric("both.realistic.inverse_harmonic_mean_rank")

    ours()  # warm-up
    timed = compare_pairs([(cpu_seconds(ours), cpu_seconds(theirs)) for _ in range(pairs)])
    return {**timed, "mrr": found, "mrr_difference": abs(found["ours"] - found["peer"])}


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    cases = {
        "training, UMLS": (8, lambda: compare_training(umls(options.data), 256, 20, options.pairs)),
        "training, FB15k-237's size": (
            2, lambda: compare_training(random_triples(284_000), 1024, 1, options.pairs),
        ),
        "ranking, 14.5k entities, 3,000 triples": (
            15, lambda: compare_ranking(3_000, options.pairs),
        ),
    }  # fmt: skip
    results, missed = {}, False
    for name, (bar, measure) in cases.items():
        results[name] = row = {**measure(), "bar": bar}
        missed |= row["times_faster"] < bar or row.get("mrr_difference", 0) > 1e-6
        rest = {key: value for key, value in row.items() if "second" in key or "mrr" in key}
        low, high = row["quartiles"]
        print(
            f"{name}: {row['times_faster']:.1f} times faster ({low:.1f} to {high:.1f}), "
            f"bar {bar}; {rest}",
            flush=True,
        )
    if options.output:
        write_report(
            options.output, __doc__.splitlines()[0], results,
            packages=("torch", "pykeen"), repeats=options.pairs,
        )  # fmt: skip
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
