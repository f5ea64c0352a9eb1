"""What both formats of wordnets say of a synset."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Pointer:
    """A relation of a synset, or of one of its words.

    Attributes:
        relation: Its name, as Global WordNet has it.
        target: Key of the synset that it leads to.
        words: Places of the two words among those of their synsets; ``None`` = between the synsets.
    """

    relation: str
    target: str
    words: tuple[int, int] | None = None


@dataclasses.dataclass
class Synset:
    """A set of words with one meaning.

    Attributes:
        key: What pointers call it.
        name: What the entity is called.
        pos: Letter of the part of speech: n, v, a, s or r.
        where: File and line, for messages.
        topic: Lexicographer's file, such as ``noun.animal``; "" = not said.
        language: Of its words and glosses.
        words, glosses, links, pointers: What the source says, in its order.
    """

    key: str
    name: str
    pos: str
    where: str
    topic: str = ""
    language: str | None = "en"
    words: list[str] = dataclasses.field(default_factory=list)
    glosses: list[str] = dataclasses.field(default_factory=list)
    links: list[str] = dataclasses.field(default_factory=list)
    pointers: list[Pointer] = dataclasses.field(default_factory=list)
