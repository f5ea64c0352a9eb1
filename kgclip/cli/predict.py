"""``kgclip predict MODEL HEAD RELATION --graph DIR``: tails, and the neighbours behind them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer


def predict(
    model: Annotated[
        str, typer.Argument(help="Folder of a run or an export, or a model name of open_clip.")
    ],
    head: Annotated[str, typer.Argument(help="Name or label of an entity.")],
    relation: Annotated[str, typer.Argument(help="Name or label of a relation.")],
    graph: Annotated[Path, typer.Option(help="Folder of a saved graph.")],
    pretrained: Annotated[
        str | None, typer.Option(help="Weights of an open_clip name: a tag or a file.")
    ] = None,
    fact: Annotated[
        list[str] | None,
        typer.Option(help="HEAD is new; one of its facts, as 'relation=tail'; repeatable."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Tails to print.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank the tails of a relation, with the neighbours that moved the score.

    With --fact, for an entity that the graph does not have yet.
    """
    from kgclip import query  # loads torch
    from kgclip.graph import load_graph
    from kgclip.models import open_model

    loaded = load_graph(graph)
    if fact:
        loaded = query.add_entity(loaded, head, [_split(given) for given in fact])
    answers = query.predict_tails(open_model(model, pretrained, "auto"), loaded, head, relation, k)
    if as_json:
        rows = [dataclasses.asdict(answer) for answer in answers]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for answer in answers:
        because = ", ".join(f"{label} {fall:+.3f}" for label, fall in answer.because)
        known = "known" if answer.known else ""
        typer.echo(f"{answer.score:.3f}  {answer.label}  {known}  {because}".rstrip())


def _split(fact: str) -> tuple[str, str]:
    relation, equals, tail = fact.partition("=")
    if not equals:
        raise typer.BadParameter(f"--fact {fact!r}: 'relation=tail' expected")
    return relation.strip(), tail.strip()
