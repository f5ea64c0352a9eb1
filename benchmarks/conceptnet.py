"""How fast is ConceptNet read, filtered to English, against csv + json in Python and DuckDB?

    python benchmarks/conceptnet.py -o benchmarks/results/conceptnet.json

All three fill the same tables from the same made file (``conceptnet_data.py``): triples with ids,
weight and data set, names, labels, surface texts and links. They are compared row by row. One
process a measurement, one thread, the best of ``--repeats``, the readers in turn; sizes in rows:
3 M plain and packed for the peers, 3 M and 12 M for the growth, three sizes for what a whole file
of 34 M rows takes. Ours also takes the file's SHA-256, which the peers do not: what that takes is
measured by itself and reported, and counts in every ratio. So does loading compiled code, about
half a second; compiling it, some seconds once, does not, as the fastest run counts.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from conceptnet_data import write_assertions
from processes import measured, run_alone, write_report

FULL_ROWS = 34_074_917  # of the assertions of ConceptNet 5.7
BARS = {"plain / csv+json": 6.0, "gz / csv+json": 4.0, "plain / duckdb": 1.0, "gz / duckdb": 1.0}
GROWTH_BAR = 4.6
MEMORY_BAR_MB = 100  # between 3 M and 12 M rows of which none is kept


def ours(file: Path) -> Any:
    """The reader of kgclip."""
    from kgclip.sources.conceptnet import read_conceptnet

    return read_conceptnet(file, languages=["en"])


def nothing_kept(file: Path) -> Any:
    """The reader of kgclip with a language that no row has: what reading alone needs."""
    from kgclip.sources.conceptnet import read_conceptnet

    return read_conceptnet(file, languages=["none"])


def checksum(file: Path) -> str:
    """The part of our work that no peer does."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def csv_json(file: Path) -> Any:
    """What one writes first: csv, json for every line, dictionaries of names."""
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}
    triples, links = [], []
    texts: dict[tuple[int, str, str, str], None] = {}
    csv.field_size_limit(sys.maxsize)
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            _, relation, start, end, info = row
            about = json.loads(info)
            is_link = relation == "/r/ExternalURL"
            if not start.startswith("/c/en/") or not (is_link or end.startswith("/c/en/")):
                continue
            head = entities.setdefault(start, len(entities))
            if is_link:
                links.append((head, end))
                continue
            tail = entities.setdefault(end, len(entities))
            number = relations.setdefault(relation, len(relations))
            triples.append((head, number, tail, about["weight"], about["dataset"]))
            if "surfaceText" in about:
                texts[head, about["surfaceStart"], "en", "alias"] = None
                texts[tail, about["surfaceEnd"], "en", "alias"] = None
                texts[head, about["surfaceText"], "en", "description"] = None
    labels = {i: name.split("/")[3].replace("_", " ") for name, i in entities.items()}
    said = [text for text in texts if text[3] != "alias" or text[1] != labels[text[0]]]
    return (
        entities,
        relations,
        triples,
        [*((i, t, "en", "label") for i, t in labels.items()), *said],
        links,
    )


def duckdb_sql(file: Path) -> Any:
    """The same in SQL."""
    import duckdb

    base = duckdb.connect(config={"threads": 1})
    base.execute(
        f"""
        CREATE TEMP TABLE kept AS
        SELECT relation, start_, end_, info FROM read_csv('{file}', delim='\t', quote='', escape='',
            header=false, auto_detect=false, columns={{'uri': 'VARCHAR', 'relation': 'VARCHAR',
            'start_': 'VARCHAR', 'end_': 'VARCHAR', 'info': 'VARCHAR'}})
        WHERE starts_with(start_, '/c/en/')
            AND (relation = '/r/ExternalURL' OR starts_with(end_, '/c/en/'));
        CREATE TEMP TABLE entities AS
        SELECT name, row_number() OVER () - 1 AS id FROM (
            SELECT DISTINCT start_ AS name FROM kept
            UNION SELECT end_ FROM kept WHERE relation <> '/r/ExternalURL');
        CREATE TEMP TABLE relations AS
        SELECT name, row_number() OVER () - 1 AS id
        FROM (SELECT DISTINCT relation AS name FROM kept WHERE relation <> '/r/ExternalURL');
        CREATE TEMP TABLE found AS
        SELECT h.id AS head, r.id AS relation, t.id AS tail,
            json_extract(info, ['$.weight', '$.dataset', '$.surfaceStart', '$.surfaceEnd',
                '$.surfaceText']) AS about
        FROM kept JOIN entities h ON h.name = start_ JOIN entities t ON t.name = end_
            JOIN relations r ON r.name = kept.relation;
        CREATE TEMP TABLE triples AS
        SELECT head, relation, tail, CAST(about[1] AS DOUBLE) AS weight, about[2] ->> '$' AS source
        FROM found;
        CREATE TEMP TABLE links AS
        SELECT h.id, end_ FROM kept JOIN entities h ON h.name = start_
        WHERE kept.relation = '/r/ExternalURL';
        CREATE TEMP TABLE texts AS
        SELECT id AS entity, replace(split_part(name, '/', 4), '_', ' ') AS text, 'label' AS kind
        FROM entities
        UNION ALL (
            SELECT DISTINCT said.* FROM (
                SELECT head AS entity, about[3] ->> '$' AS text, 'alias' AS kind FROM found
                WHERE about[3] IS NOT NULL
                UNION ALL SELECT tail, about[4] ->> '$', 'alias' FROM found
                WHERE about[4] IS NOT NULL
            ) said JOIN entities ON id = entity
            WHERE text <> replace(split_part(name, '/', 4), '_', ' ')
            UNION ALL SELECT DISTINCT head, about[5] ->> '$', 'description' FROM found
            WHERE about[5] IS NOT NULL);
        """
    )
    base.execute("SELECT head, relation, tail, weight FROM triples").fetchnumpy()
    return base


READERS: dict[str, Callable[[Path], Any]] = {
    "ours": ours, "csv+json": csv_json, "duckdb": duckdb_sql,
}  # fmt: skip
JOBS = {**READERS, "nothing": nothing_kept, "checksum": checksum}
WORK = {
    "ours": "checks every line's fields and UTF-8, SHA-256 of the file, the tables, ids as met",
    "csv+json": "JSON of every line, the same tables as lists and dictionaries",
    "duckdb": "the same tables inside DuckDB, ids in any order; head, relation and tail fetched",
}


def contents(found: Any) -> dict[str, Any]:
    """Counts and an order-free checksum of names and facts, the same for equal tables."""
    if isinstance(found, tuple):
        entities, relations, triples, texts, links = found
        names, kinds = list(entities), list(relations)
        facts = ((names[h], kinds[r], names[t], w, d) for h, r, t, w, d in triples)
        said = ((names[e], text, kind) for e, text, _, kind in texts)
        urls = ((names[e], url) for e, url in links)
    elif hasattr(found, "triples"):
        names = found.entities["name"].to_list()
        kinds = found.relations["name"].to_list()
        columns = ("head", "relation", "tail", "weight", "source")
        facts = (
            (names[h], kinds[r], names[t], w, d)
            for h, r, t, w, d in found.triples.select(columns).iter_rows()
        )
        said = (
            (names[e], t, k) for e, t, k in found.texts.select("entity", "text", "kind").iter_rows()
        )
        urls = ((names[e], url) for e, url in found.links.iter_rows())
    else:
        facts = _fetched(
            found,
            "SELECT h.name, r.name, t.name, weight, source FROM triples "
            "JOIN entities h ON h.id = head JOIN entities t ON t.id = tail "
            "JOIN relations r ON r.id = relation",
        )
        said = _fetched(found, "SELECT name, text, kind FROM texts JOIN entities ON id = entity")
        urls = _fetched(found, "SELECT name, end_ FROM links JOIN entities USING (id)")
    return {
        name: _checksum(rows)
        for name, rows in (("triples", facts), ("texts", said), ("links", urls))
    }


def _fetched(base: Any, query: str) -> Any:
    cursor = base.execute(query)
    while row := cursor.fetchone():
        yield row


def _checksum(rows: Any) -> list[Any]:
    """Number of rows and the sum of their hashes."""
    count = total = 0
    for row in rows:
        digest = hashlib.blake2b(repr(row).encode(), digest_size=8).digest()
        count, total = count + 1, (total + int.from_bytes(digest)) % 2**64
    return [count, f"{total:016x}"]


def measure(
    readers: Sequence[str], file: Path, compare: bool, repeats: int
) -> dict[str, dict[str, Any]]:
    """Measure readers on a file, in turn, in processes of their own; the fastest run counts."""
    runs: dict[str, list[dict[str, Any]]] = {reader: [] for reader in readers}
    for repeat in range(repeats):
        for reader in readers:
            extra = ["--compare"] if compare and not repeat and reader in READERS else []
            runs[reader].append(run_alone(__file__, "--run", reader, str(file), *extra))
    best = {}
    for reader, found in runs.items():
        fastest = min(found, key=lambda run: run["cpu_seconds"])
        spread = [run["cpu_seconds"] for run in found]
        best[reader] = {
            **fastest, "all_cpu_seconds": spread, "contents": found[0].get("contents"),
        }  # fmt: skip
        print(
            f"{reader:9} {file.name:14} {fastest['cpu_seconds']:7.2f} CPU s, "
            f"{fastest['wall_seconds']:7.2f} s, peak {fastest['peak_mb']:,.0f} MB",
            flush=True,
        )
    return best


def run_once(reader: str, file: Path, compare: bool) -> None:
    """The body of one process."""
    kept: list[Any] = []

    def job() -> dict[str, Any]:
        kept.append(JOBS[reader](file))
        return {}

    result = measured(job)
    if compare:
        result["contents"] = contents(kept[0])
    print(json.dumps(result))


def main() -> int:
    """Measure; the exit code is 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the made files go and are found again")
    parser.add_argument("--run", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_once(options.run[0], Path(options.run[1]), options.compare)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        return compare_readers(folder, options)


def made(folder: Path, num_rows: int, suffix: str = "") -> Path:
    """A made file; one that is there already is used."""
    file = folder / f"{num_rows // 1000}k.csv{suffix}"
    return file if file.exists() else write_assertions(file, num_rows)


def compare_readers(folder: Path, options: argparse.Namespace) -> int:
    """Run all measurements and judge them by their bars."""
    results: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    for form, suffix in (("plain", ""), ("gz", ".gz")):
        file = made(folder, options.rows, suffix)
        readers = [*READERS, "checksum"]
        found = measure(readers, file, form == "plain", options.repeats)
        results |= {f"{form} {reader}": run for reader, run in found.items()}
        for peer in ("csv+json", "duckdb"):
            own, other = results[f"{form} ours"], results[f"{form} {peer}"]
            ratios[f"{form} / {peer}"] = other["cpu_seconds"] / own["cpu_seconds"]
    equal = all(
        results[f"plain {reader}"]["contents"] == results["plain ours"]["contents"]
        for reader in READERS
    )
    sizes = {options.rows: results["plain ours"]}
    for rows in (2 * options.rows, 4 * options.rows):
        sizes |= {rows: measure(["ours"], made(folder, rows), False, options.repeats)["ours"]}
    idle = {
        rows: measure(["nothing"], made(folder, rows), False, 1)["nothing"]
        for rows in (options.rows, 4 * options.rows)
    }
    memory_growth = idle[4 * options.rows]["peak_mb"] - idle[options.rows]["peak_mb"]
    print(f"nothing kept: peak memory grows by {memory_growth:.0f} MB, bar {MEMORY_BAR_MB} MB")
    growth = sizes[4 * options.rows]["cpu_seconds"] / sizes[options.rows]["cpu_seconds"]
    missed = [name for name, bar in BARS.items() if ratios[name] < bar]
    for name, bar in BARS.items():
        print(f"{name}: {ratios[name]:.2f}x, bar {bar}x")
    print(f"{options.rows:,} -> {4 * options.rows:,} rows: time x {growth:.2f}, bar {GROWTH_BAR}")
    print(f"equal content of all three: {equal}")
    full = extrapolate(sizes)
    print(f"{FULL_ROWS:,} rows, by a line through three sizes: {full}")
    if options.output:
        write_report(
            options.output, __doc__.splitlines()[0], ["polars", "duckdb"],
            rows=options.rows, repeats=options.repeats, work=WORK, ratios=ratios, bars=BARS,
            growth=growth, growth_bar=GROWTH_BAR, memory_growth_mb=memory_growth,
            memory_bar_mb=MEMORY_BAR_MB,
            nothing_kept={str(rows): row for rows, row in idle.items()}, equal_contents=equal,
            full_file=full, results=results,
            sizes={str(rows): row for rows, row in sizes.items()},
        )  # fmt: skip
    is_grown = growth > GROWTH_BAR or memory_growth > MEMORY_BAR_MB
    return int(bool(missed) or is_grown or not equal)


def extrapolate(sizes: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Seconds and peak memory of the whole file, by least squares through the sizes."""
    import numpy as np

    rows = np.array(list(sizes))
    return {
        key: round(
            float(np.polyval(np.polyfit(rows, [s[key] for s in sizes.values()], 1), FULL_ROWS)), 1
        )
        for key in ("cpu_seconds", "peak_mb")
    }


if __name__ == "__main__":
    sys.exit(main())
