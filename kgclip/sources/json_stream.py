"""JSON files: the members of a large one, one after the other, a small one whole, their shape.

What is decoded is text that UTF-8 can say: an escaped half of a surrogate pair is an error.
"""

from __future__ import annotations

import codecs
import json
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from kgclip.progress import track
from kgclip.sources.compression import open_binary
from kgclip.tables import GraphError

CHUNK_BYTES = 2**20
_DECODER = json.JSONDecoder()
_AFTER = (*",:]} \t\r\n",)
_SPACE = re.compile(r"[ \t\r\n]*")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
Key = int | str  # of a record


def stream_json(file: Path) -> Iterator[tuple[Any, Any]]:
    """Yield the members of a file's top-level array or object.

    Args:
        file: Plain or compressed.

    Yields:
        Index and value of each member of an array, key and value of each member of an object.

    Raises:
        GraphError: If the file is missing, empty, no JSON, cut in the middle or holds neither an
            array nor an object; says file and line.
    """
    with open_binary(file) as stream:
        yield from track(_Members(file, stream), f"reading {file.name}")


def load_json(file: Path) -> Any:
    """Read a file whole.

    Raises:
        GraphError: If the file is missing or no JSON; says file and line.
    """
    with open_binary(file) as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text)
        _check_surrogates(text, found, 0, len(text))
    except json.JSONDecodeError as error:
        raise GraphError(
            f"{file}:{error.lineno}: not JSON ({error.msg}); fetch the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise GraphError(f"{file}: not UTF-8 at byte {error.start}; convert the file") from error
    except (UnicodeEncodeError, RecursionError) as error:
        raise GraphError(f"{file}: not JSON ({_reason(error)}); fetch the file again") from error
    return found


def check_shape(file: Path, where: str, value: Any, shape: TypeAdapter[Any]) -> None:
    """Check that what was decoded is of the types that a reader expects.

    Args:
        file: For the message.
        where: Likewise.
        value: What was decoded.
        shape: Its types, which are taken at their word: "1" is no number.

    Raises:
        GraphError: Says where, of which type what is expected, and what stands there.
    """
    try:
        shape.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ": ".join(filter(None, (where, ".".join(map(str, first["loc"])))))
        raise GraphError(
            f"{file}: {place}: {first['msg']}, not {reprlib.repr(first['input'])}; mend the file"
        ) from error


def _check_surrogates(text: str, found: Any, begin: int, end: int) -> None:
    if _HALF.search(text, begin, end):  # whole pairs have become one letter
        json.dumps(found, ensure_ascii=False).encode()


def _reason(error: Exception) -> str:
    return "half of a surrogate pair" if isinstance(error, ValueError) else "nested too deeply"


class _Members:
    """Reads on whenever the text at hand does not hold the next value whole."""

    def __init__(self, file: Path, stream: IO[bytes]) -> None:
        self.file, self.stream = file, stream
        self.letters = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.place, self.line = "", 0, 1
        self.is_ended = False

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        opening = self.peek()
        if opening not in ("[", "{"):
            raise self.error("an array or an object expected")
        self.place += 1
        closing = "]" if opening == "[" else "}"
        index = 0
        while self.peek() != closing:
            key = index
            if opening == "{":
                key = self.value()
                self.expect(":")
            yield key, self.value()
            index += 1
            if self.peek() != closing:
                self.expect(",")
        self.place += 1
        if self.peek():
            raise self.error("something after the end")

    def peek(self) -> str:
        """The next letter that is no space; "" at the end of the file."""
        while True:
            self.place = _SPACE.match(self.text, self.place).end()  # type: ignore[union-attr]
            if self.place < len(self.text):
                return self.text[self.place]
            if not self.read_on():
                return ""

    def expect(self, letter: str) -> None:
        if self.peek() != letter:
            raise self.error(f"{letter!r} expected")
        self.place += 1

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                found, end = _DECODER.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                ahead = error.pos - self.place
                if not self.read_on():
                    self.place = min(self.place + ahead, len(self.text))
                    raise self.error(error.msg) from error
                continue
            except RecursionError as error:
                raise self.error(_reason(error)) from error
            if self.text[end : end + 1] not in _AFTER and self.read_on():
                continue  # a number was cut: the 2 of 2.5e+3 is one too
            try:
                _check_surrogates(self.text, found, self.place, end)
            except (UnicodeEncodeError, RecursionError) as error:
                raise self.error(_reason(error)) from error
            self.place = end
            return found

    def read_on(self) -> bool:
        """Read as much again as is at hand, at least a chunk; False at the end of the file."""
        if self.is_ended:
            return False
        data = self.stream.read(max(CHUNK_BYTES, len(self.text) - self.place))
        self.is_ended = not data
        try:
            more = self.letters.decode(data, final=self.is_ended)
        except UnicodeDecodeError as error:
            raise GraphError(
                f"{self.file}: not UTF-8 ({error.reason}); convert the file"
            ) from error
        self.line += self.text.count("\n", 0, self.place)
        self.text, self.place = self.text[self.place :] + more, 0
        return not self.is_ended

    def error(self, message: str) -> GraphError:
        line = self.line + self.text.count("\n", 0, self.place)
        at_end = self.is_ended and self.place >= len(self.text.rstrip())
        where = "cut off" if at_end or message.startswith("Unterminated") else "no JSON"
        return GraphError(f"{self.file}:{line}: {where} ({message}); fetch the file again")
