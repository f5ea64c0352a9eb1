"""Multi-hop and conjunctive questions about countries that are new, for every method alike.

A method comes in as the probability of each fact for each country; its answers to twelve kinds
of questions are composed from these by fuzzy logic (:mod:`kgclip.reasoning`). The same functions,
fed with what is true, say which answers are right, and, fed with what would be known without the
new countries, which of these are easy. Only hard answers are asked, those that need a fact of a
new country that is in no graph; the other right answers are left out of the ranking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import polars as pl
import torch
from torch import Tensor

from kgclip.batches import Corpus
from kgclip.evaluation.link_prediction import rank_answers
from kgclip.experiments.world_edges import PathGraph
from kgclip.experiments.world_opponents import borders
from kgclip.experiments.world_scores import ASKED_NEW, World
from kgclip.reasoning import all_of, hop

NOT_BORDERING = 1e-6  # certainty of a border that the graph does not hold
_WEAK_LINK = 1e-4  # countries that a picture is this unlikely to show are left out


@dataclasses.dataclass(frozen=True)
class Facts:
    """How certain the facts of every country are, each in [0, 1].

    Attributes:
        borders: Between countries. Float [C, C].
        tails: By relation, of each tail of the relation. Float [C, T] each.
    """

    borders: Tensor
    tails: Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of question.

    Attributes:
        constants: Relations whose tails are named in the question.
        compose: Certainty of every answer, from facts, start countries (long [S]; ignored by
            questions without one) and one tail for each of ``constants``. Float [S or 1, A].
        answers: ``"country"`` or the relation whose tails are asked for.
        start: ``"near"`` = any country that borders a new one is asked about, ``"new"`` = the
            new ones, ``""`` = the question names none.
    """

    constants: tuple[str, ...]
    compose: Callable[..., Tensor]
    answers: str = "country"
    start: str = "near"


def _neighbor_with(relation: str) -> Kind:
    """Which country borders X and has this fact?"""

    def compose(facts: Facts, starts: Tensor, tail: int) -> Tensor:
        return all_of(facts.borders[starts], facts.tails[relation][:, tail])

    return Kind((relation,), compose)


def _of_neighbor(answers: str, condition: str | None = None) -> Kind:
    """Which tail of a relation has a neighbour of X (that has this other fact)?"""

    def compose(facts: Facts, starts: Tensor, *tail: int) -> Tensor:
        middle = facts.borders[starts]
        if condition is not None:
            middle = all_of(middle, facts.tails[condition][:, tail[0]])
        return hop(middle, facts.tails[answers])

    return Kind(() if condition is None else (condition,), compose, answers)


def _both(first: str, second: str) -> Kind:
    """Which country has both facts?"""

    def compose(facts: Facts, starts: Tensor, one: int, other: int) -> Tensor:
        return all_of(facts.tails[first][:, one], facts.tails[second][:, other])[None]

    return Kind((first, second), compose, start="")


def _shared(facts: Facts, starts: Tensor, relation: str) -> Tensor:
    """Is there a tail that a start and another country both have? Float [S, C]."""
    return hop(facts.tails[relation][starts], facts.tails[relation].T)


KINDS = {
    "neighbor_with_language": _neighbor_with("language"),
    "neighbor_with_currency": _neighbor_with("currency"),
    "neighbor_in_subregion": _neighbor_with("subregion"),
    "currency_of_neighbor_with_language": _of_neighbor("currency", "language"),
    "capital_of_neighbor_with_language": _of_neighbor("capital", "language"),
    "currency_of_neighbor_in_subregion": _of_neighbor("currency", "subregion"),
    "currency_of_neighbor": _of_neighbor("currency"),
    "language_of_neighbor": _of_neighbor("language"),
    "with_language_and_currency": _both("language", "currency"),
    "with_language_in_subregion": _both("language", "subregion"),
    "neighbor_with_same_currency": Kind(
        (),
        lambda facts, starts: all_of(facts.borders[starts], _shared(facts, starts, "currency")),
        start="new",
    ),
    "same_language_and_subregion": Kind(
        (),
        lambda facts, starts: all_of(
            _shared(facts, starts, "language"), _shared(facts, starts, "subregion")
        ),
        start="new",
    ),
}
_RELATIONS = ("capital", "currency", "language", "subregion")


@dataclasses.dataclass(frozen=True)
class Questions:
    """Questions of one kind that name the same tails.

    Attributes:
        kind: Key of ``KINDS``.
        tails: Tail named for each of the kind's constants.
        starts: Country that each names; one question with an empty tensor's place, -1, if the
            kind names none. Long [Q].
        right: All right answers. Bool [Q, A].
        asked: The hard ones. Bool [Q, A].
    """

    kind: str
    tails: tuple[int, ...]
    starts: Tensor
    right: Tensor
    asked: Tensor


def tail_columns(corpus: Corpus, relation: str) -> Tensor:
    """Columns of a relation's facts. Long [T]."""
    number = corpus.relation_labels.index(relation)
    return torch.nonzero(corpus.facts[:, 0] == number).squeeze(1)


def true_facts(world: World, corpus: Corpus, without: Tensor | None = None) -> Facts:
    """What is true, or would be known without some countries' asked facts.

    Args:
        world: Says what is true.
        corpus: Names the relations.
        without: Countries whose facts of ``ASKED_NEW`` are left out. Bool [C].
    """
    true = world.true.clone()
    if without is not None:
        columns = torch.cat([tail_columns(corpus, relation) for relation in ASKED_NEW])
        true[without.nonzero(), columns] = False
    place = torch.full((corpus.num_entities,), -1)
    place[world.countries] = torch.arange(len(world.countries))
    near = torch.zeros(len(true), len(true), dtype=torch.bool)
    columns = tail_columns(corpus, "borders")
    others = place[corpus.facts[columns, 1]]
    near[:, others[others >= 0]] = true[:, columns[others >= 0]]
    return Facts(
        (near | near.T).float(),
        {name: true[:, tail_columns(corpus, name)].float() for name in _RELATIONS},
    )


def believed_facts(probability: Tensor, graph: PathGraph, corpus: Corpus) -> Facts:
    """What a method believes; borders and capitals are looked up in the graph by all.

    Args:
        probability: Of each fact for each country, known facts certain. Float [C, F].
        graph: What is known at inference.
        corpus: Names the relations.
    """
    near = borders(graph).float().clamp(min=NOT_BORDERING)
    tails = {name: probability[:, tail_columns(corpus, name)] for name in _RELATIONS}
    tails["capital"] = graph.known[:, tail_columns(corpus, "capital")].float()
    return Facts(near, tails)


def build_questions(world: World, corpus: Corpus, part: str = "test") -> list[Questions]:
    """Every question of every kind that has a hard answer.

    Args:
        world: Says what is true and who is new.
        corpus: Names the relations.
        part: Part of the new countries whose facts the hard answers need.
    """
    new = world.is_new & torch.from_numpy(world.part == part)
    truth, easy = true_facts(world, corpus), true_facts(world, corpus, without=new)
    near = truth.borders[:, new].any(dim=1)
    questions = []
    for name, kind in KINDS.items():
        starts = torch.nonzero(new if kind.start == "new" else near).squeeze(1)
        for tails in _named_tails(truth, kind, new):
            right = kind.compose(truth, starts, *tails) > 0
            asked = right & ~(kind.compose(easy, starts, *tails) > 0)
            if kind.start and kind.answers == "country":
                rows = torch.arange(len(starts))
                right[rows, starts], asked[rows, starts] = True, False  # not X itself
            some = torch.nonzero(asked.any(dim=1)).squeeze(1)
            if len(some):
                chosen = starts[some] if kind.start else torch.tensor([-1])
                questions.append(Questions(name, tails, chosen, right[some], asked[some]))
    return questions


def _named_tails(truth: Facts, kind: Kind, new: Tensor) -> Iterator[tuple[int, ...]]:
    """Combinations of tails that some new country has."""
    has = [truth.tails[relation][new] > 0 for relation in kind.constants]
    if not has:
        yield ()
    elif len(has) == 1:
        yield from ((tail,) for tail in torch.nonzero(has[0].any(dim=0)).flatten().tolist())
    else:
        both = (has[0][:, :, None] & has[1][:, None]).any(dim=0)
        yield from (tuple(pair) for pair in torch.nonzero(both).tolist())


def rank_questions(
    questions: Sequence[Questions], facts: Facts, link: Tensor | None = None
) -> pl.DataFrame:
    """Filtered ranks of the hard answers.

    Args:
        questions: From :func:`build_questions`.
        facts: What a method believes.
        link: If given, countries come as pictures, in the question and as answers: how likely
            each picture shows each country. Float [C, C].

    Returns:
        ``split`` (``"questions"``), ``task`` (``"all"``), ``group`` (the kind), ``query``
        (numbers of the named tails, the start and the answer) and ``rank``, a row for each hard
        answer.
    """
    rows = []
    for many in questions:
        scores = _score(many, facts, link)
        for row, answer, rank in zip(
            *(found.tolist() for found in rank_answers(scores, many.right, many.asked)),
            strict=True,
        ):
            named = [*many.tails, int(many.starts[row]), answer]
            query = " ".join(map(str, named))
            rows.append(("questions", "all", many.kind, query, rank))
    strings = dict.fromkeys(("split", "task", "group", "query"), pl.String)
    return pl.DataFrame(rows, schema={**strings, "rank": pl.Float64}, orient="row")


def _score(many: Questions, facts: Facts, link: Tensor | None) -> Tensor:
    """Certainty of every answer to each question. Float [Q, A]."""
    kind = KINDS[many.kind]
    if link is None or not kind.start:
        scores = kind.compose(facts, many.starts, *many.tails)
    else:
        linked = link[many.starts]
        likely = torch.nonzero((linked > _WEAK_LINK).any(dim=0)).squeeze(1)
        # Answers are mixed, not starts: each country that the picture may show is asked about.
        scores = linked[:, likely] @ kind.compose(facts, likely, *many.tails)
    return scores @ link.T if link is not None and kind.answers == "country" else scores
