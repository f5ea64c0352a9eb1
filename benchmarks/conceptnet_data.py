"""Assertion files in ConceptNet's format, of any size, the same bytes each time.

    python benchmarks/conceptnet_data.py 3000000 conceptnet.csv

A longer file begins with the shorter one. About a third of the rows are between two English terms;
a fifth of the rows say their sentence, one in a hundred of these with quotes in it; 2 % are links.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import polars as pl

BLOCK = 500_000
LANGUAGES = ("en", "fr", "de", "ja", "zh", "es")
SHARES = (0.46, 0.2, 0.12, 0.08, 0.07, 0.07)
NUM_TERMS = 300_000  # of each language; with senses about one entity a triple in 3 M rows
RELATIONS = (
    *("RelatedTo", "FormOf", "DerivedFrom", "HasContext", "IsA", "Synonym", "UsedFor"),
    *("EtymologicallyRelatedTo", "SimilarTo", "AtLocation", "HasSubevent", "CapableOf", "Causes"),
)
DATASETS = ("/d/wiktionary/en", "/d/conceptnet/4/en", "/d/wordnet/3.1", "/d/wiktionary/fr")
_INFO = (
    '{{"dataset": "{}", "license": "cc:by-sa/4.0", "sources": [{{"contributor": '
    '"/s/resource/wiktionary/en", "process": "/s/process/wikiparsec/2"}}], {}"weight": {}}}'
)


def write_assertions(file: Path, num_rows: int) -> Path:
    """Write ``num_rows`` rows; packed if the file's name ends in .gz."""
    with gzip.open(file, "wb", 6) if file.suffix == ".gz" else file.open("wb") as stream:
        for block in range(-(-num_rows // BLOCK)):
            lines = _lines(block).head(num_rows - block * BLOCK)
            stream.write(("\n".join(lines) + "\n").encode())
    return file


def _lines(block: int) -> pl.Series:
    rng = np.random.default_rng([2026, block])
    language = rng.choice(len(LANGUAGES), size=BLOCK, p=SHARES)
    other = rng.choice(len(LANGUAGES), size=BLOCK, p=SHARES)
    other = np.where(rng.random(BLOCK) < 0.6, language, other)
    start, end = (_terms(rng, spoken) for spoken in (language, other))
    url = rng.random(BLOCK) < 0.02
    frame = pl.DataFrame(
        {
            "start": start,
            "end": end,
            "relation": pl.Series(RELATIONS).gather(
                rng.integers(len(RELATIONS), size=BLOCK) * (rng.random(BLOCK) < 0.8)
            ),
            "dataset": pl.Series(DATASETS).gather(rng.integers(len(DATASETS), size=BLOCK)),
            "weight": np.round(rng.exponential(1.0, BLOCK) + 0.1, 3),
            "said": rng.random(BLOCK) < 0.2,
            "quoted": rng.random(BLOCK) < 0.01,
            "url": url,
        }
    ).with_columns(
        relation=pl.when("url").then(pl.lit("ExternalURL")).otherwise("relation"),
        end=pl.when("url")
        .then("http://dbpedia.org/resource/" + pl.col("start").str.slice(6))
        .otherwise("end"),
        start_word=pl.col("start").str.split("/").list.get(3).str.replace_all("_", " "),
        end_word=pl.col("end").str.split("/").list.get(3).str.replace_all("_", " "),
    )
    mark = pl.when("quoted").then(pl.lit('\\"quoted\\" ')).otherwise(pl.lit(""))
    surface = pl.format(
        '"surfaceEnd": "a {}", "surfaceStart": "{}", "surfaceText": "{}[[{}]] has [[a {}]]", ',
        "end_word", "start_word", mark, "start_word", "end_word",
    )  # fmt: skip
    info = pl.format(
        _INFO,
        "dataset",
        pl.when(pl.col("said") & ~pl.col("url")).then(surface).otherwise(pl.lit("")),
        "weight",
    )
    return frame.select(
        pl.format(
            "/a/[/r/{}/,{}/,{}/]\t/r/{}\t{}\t{}\t{}",
            "relation", "start", "end", "relation", "start", "end", info,
        )
    ).to_series()  # fmt: skip


def _terms(rng: np.random.Generator, language: np.ndarray) -> pl.Series:
    """Frequent and rare terms; a fifth with a part of speech."""
    rank = (NUM_TERMS * rng.random(len(language)) ** 2.5).astype(np.int64)
    frame = pl.DataFrame(
        {
            "language": pl.Series(LANGUAGES).gather(language),
            "rank": rank,
            "sense": pl.Series(["", "/n", "/v"]).gather(
                (rng.random(len(language)) < 0.2) * (1 + rank % 2)
            ),
        }
    )
    return frame.select(pl.format("/c/{}/term_of_{}{}", "language", "rank", "sense")).to_series()


if __name__ == "__main__":
    write_assertions(Path(sys.argv[2]), int(sys.argv[1]))
