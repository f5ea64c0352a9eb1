"""N-Triples and N-Quads by columns, a block of lines at a time.

Two lanes: a pattern takes the lines that are certain to be statements in canonical form, which
are nearly all of them in a real dump. Every other line (escapes, odd spacing, comments,
upper-case language tags, triple terms, mistakes) goes to pyoxigraph, which rewrites it in
canonical form or says what is wrong. So the result is always what pyoxigraph alone would give. In
large files compiled code looks for the lines that are certain (``kgclip.rdf.statement_kernels``).
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import polars as pl
import pyoxigraph as ox

from kgclip.rdf.terms import BLANK, IRI, SUFFIX
from kgclip.tables import GraphError

if TYPE_CHECKING:  # which loads a compiler
    from kgclip.rdf.statement_kernels import CompiledCollector

BLOCK_BYTES = 2**22  # larger blocks leave the processor's caches and are slower
MAX_LITERAL_BYTES = 2**24

_LITERAL = rf'"[^"\\\x00-\x1F\x7F\uFFFE\uFFFF]*"{SUFFIX}'
_TRIPLE = rf"(?:{IRI}|{BLANK}) {IRI} (?:{IRI}|{BLANK}|{_LITERAL})"
CERTAIN = {
    ox.RdfFormat.N_TRIPLES: rf"^{_TRIPLE} \.$",
    ox.RdfFormat.N_QUADS: rf"^{_TRIPLE}(?: (?:{IRI}|{BLANK}))? \.$",
}
_NOTHING = re.compile(rb"[ \t]*(?:#[^\r]*)?\r*")
_POSITION = re.compile(r"^Parser error at line \d+ (?:between columns|column) (\d+)[^:]*: ")
_EXCERPT = 80


class LineReader:
    """Reads one file of statements, one a line.

    Args:
        file: Its name, for messages.
        rdf_format: N-Triples or N-Quads.
        skip: Leave malformed lines out and warn, instead of an error.
        max_literal_bytes: A line longer than that is refused.
    """

    def __init__(
        self,
        file: Path | str,
        rdf_format: ox.RdfFormat,
        *,
        skip: bool = False,
        max_literal_bytes: int = MAX_LITERAL_BYTES,
    ) -> None:
        self.file, self.rdf_format, self.skip = file, rdf_format, skip
        self.max_literal_bytes = max_literal_bytes
        self.line = 1  # the first line of the block at hand
        self.skipped: dict[int, str] = {}

    def read(self, stream: IO[bytes]) -> Iterator[pl.Series]:
        """Yield the statements in canonical form, block by block.

        Raises:
            GraphError: If a line is malformed and ``skip`` is not set; says file and line.
        """
        for block in self._blocks(stream):
            lines, undecodable = _lines(block)
            self._check_lengths(lines.str.len_bytes())
            yield self._canonical(lines, undecodable)
            self.line += len(lines)
        if self.skipped:
            warnings.warn(self._report(), stacklevel=2)

    def read_into(
        self, stream: IO[bytes], collector: CompiledCollector, *, blank_label: str = ""
    ) -> Iterator[int]:
        """Have a compiled collector take all lines; yields the number of lines of each block.

        Raises:
            GraphError: As :meth:`read`.
        """
        for block in self._blocks(stream):
            if len(block) > self.max_literal_bytes:
                self._check_lengths(pl.Series(map(len, block.split(b"\n")), dtype=pl.Int64()))
            count = collector.add_block(
                block, self.line, self._rewrite,
                quads=self.rdf_format.supports_datasets, blank_label=blank_label,
            )  # fmt: skip
            yield count
            self.line += count
        if self.skipped:
            warnings.warn(self._report(), stacklevel=2)

    def _check_lengths(self, lengths: pl.Series) -> None:
        if int(lengths.max() or 0) > self.max_literal_bytes:  # type: ignore[arg-type]
            line = self.line + int(lengths.arg_max() or 0)
            raise GraphError(too_long(f"{self.file}:{line}", self.max_literal_bytes))

    def _blocks(self, stream: IO[bytes]) -> Iterator[bytes]:
        """Blocks that end where a line ends."""
        rest = b""
        while chunk := stream.read(BLOCK_BYTES):
            end = chunk.rfind(b"\n") + 1
            if not end:
                rest += chunk
                if len(rest) > self.max_literal_bytes:
                    raise GraphError(too_long(f"{self.file}:{self.line}", self.max_literal_bytes))
                continue
            block = rest + chunk[:end]
            rest = chunk[end:]
            yield block
        if rest:
            yield rest

    def _canonical(self, lines: pl.Series, undecodable: dict[int, bytes]) -> pl.Series:
        certain = lines.str.contains(CERTAIN[self.rdf_format])
        if certain.all():
            return lines
        rows = (~certain).arg_true()
        texts = zip(rows, lines.gather(rows), strict=True)
        slow = [undecodable.get(row, text.encode()) for row, text in texts]
        rewritten = self._rewrite([self.line + row for row in rows], slow)
        result = lines.scatter(rows, pl.Series(rewritten, dtype=pl.String())).drop_nulls()
        if any(line is not None and "\n" in line for line in rewritten):
            result = result.str.split("\n").explode()
        return result

    def _rewrite(self, numbers: list[int], lines: list[bytes]) -> list[str | None]:
        """Each line's statement in canonical form; null if it holds none."""
        holds = [i for i, line in enumerate(lines) if not _NOTHING.fullmatch(line)]
        rewritten: list[str | None] = [None] * len(lines)
        found = self._at_once([lines[i] for i in holds])
        if found is None:  # something is odd: one by one
            found = [self._one(lines[i], numbers[i]) for i in holds]
        for i, text in zip(holds, found, strict=True):
            rewritten[i] = text
        return rewritten

    def _at_once(self, lines: list[bytes]) -> Sequence[str | None] | None:
        """One parse for all lines; null if any line is no single statement."""
        if any(b"\r" in line for line in lines):  # ends a line, too
            return None
        try:
            found = self._parse(b"\n".join(lines))
        except SyntaxError:
            return None
        return found if len(found) == len(lines) else None

    def _one(self, line: bytes, number: int) -> str | None:
        try:
            return "\n".join(self._parse(line)) or None
        except SyntaxError as error:
            message, column = explain(error)
            if not self.skip:
                raise GraphError(
                    f"{self.file}:{number}: {message} (column {column} of {_excerpt(line)}); "
                    f"expected {self.rdf_format.name}, one statement that ends in ' .'; mend the "
                    'line, or give on_error="skip"'
                ) from error
            self.skipped[number] = message
            return None

    def _parse(self, data: bytes) -> list[str]:
        quads = ox.parse(data, format=self.rdf_format, rename_blank_nodes=False)
        written: bytes = ox.serialize(quads, format=self.rdf_format)  # type: ignore[assignment]
        return written.decode().split("\n")[:-1]

    def _report(self) -> str:
        kinds = Counter(re.sub(r"'[^']*'|\(.*\)", "…", text) for text in self.skipped.values())
        first = ", ".join(map(str, list(self.skipped)[:5]))
        count = f"{len(self.skipped)} malformed lines skipped"
        reasons = "; ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
        return f"{self.file}: {count}, the first: {first} ({reasons})"


def _lines(block: bytes) -> tuple[pl.Series, dict[int, bytes]]:
    """Lines of a block, and by their row those that are not UTF-8."""
    try:
        return pl.read_lines(block).to_series(), {}
    except pl.exceptions.ComputeError:
        rows = block.removesuffix(b"\n").split(b"\n")
    texts, undecodable = [], {}
    for row, line in enumerate(rows):
        try:
            texts.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError:
            texts.append("")  # which no pattern takes for a statement
            undecodable[row] = line
    return pl.Series(texts, dtype=pl.String()), undecodable


def explain(error: SyntaxError) -> tuple[str, str]:
    """What a parser found wrong, and in which column."""
    found = _POSITION.match(str(error.msg))
    message = str(error.msg)[found.end() :] if found else str(error.msg)
    return message, found[1] if found else "?"


def too_long(where: str, limit: int) -> str:
    """Message for a literal that is too long."""
    return (
        f"{where}: a literal of more than {limit:,} bytes; if that is meant, give "
        "max_literal_bytes= a larger number"
    )


def _excerpt(line: bytes) -> str:
    text = line.decode(errors="backslashreplace").strip()
    return repr(text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…")
