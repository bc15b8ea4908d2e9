"""A file as a tree of boxes, elements, chunks or segments, and what can be done to it.

Each mutation changes the given nodes in place. What is written from them afterwards has true lengths, except
where a node claims another one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

EXTREMES = (
    *(0, 1, 2, 7, 8, 9, 15, 16, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFF),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**56 - 2, 2**56 - 1, 2**63 - 1, 2**63, 2**64 - 1),
)
SMALL = 1024
"""Bytes of a node that holds fields rather than pictures."""
MOST_GROWN = 500_000
"""Bytes that are added to a file at most."""
DEEPEST = 100


@dataclass(slots=True)
class Node:
    """One box, element, chunk or segment.

    kind: its type or id, empty for bytes that are written as they are; content: what it holds, before its
    children where it has any; children: None where it can hold none; claimed: a length that is written
    instead of the true one; width: bytes of the length, where the format leaves them open.
    """

    kind: bytes
    content: bytes
    children: list["Node"] | None = None
    claimed: int | None = None
    width: int = 0


def _copied(node: Node) -> Node:
    children = None if node.children is None else [_copied(c) for c in node.children]
    return Node(node.kind, node.content, children, node.claimed, node.width)


Mutation = Callable[[Random, list[Node]], None]


def walk(nodes: list[Node]) -> Iterator[tuple[list[Node], int]]:
    """The place of every node: its siblings and its number among them."""
    for k, node in enumerate(nodes):
        yield nodes, k
        if node.children:
            yield from walk(node.children)


def _place(rng: Random, nodes: list[Node]) -> tuple[list[Node], int]:
    """Any place of a named node. Raises IndexError where there is none."""
    return rng.choice([(s, k) for s, k in walk(nodes) if s[k].kind])


def _length(rng: Random, nodes: list[Node]) -> None:
    siblings, k = _place(rng, nodes)
    near = len(siblings[k].content) + rng.choice((-9, -8, -1, 0, 1, 7, 9, 4096))
    siblings[k].claimed = rng.choice((*EXTREMES, max(0, near)))


def _kind(rng: Random, nodes: list[Node]) -> None:
    siblings, k = _place(rng, nodes)
    others, j = _place(rng, nodes)
    node = siblings[k]
    node.kind = others[j].kind if rng.random() < 0.8 else rng.randbytes(len(node.kind))


def _duplicate(rng: Random, nodes: list[Node]) -> None:
    siblings, k = _place(rng, nodes)
    siblings.insert(rng.randint(0, len(siblings)), _copied(siblings[k]))


def _multiply(rng: Random, nodes: list[Node]) -> None:
    siblings, k = _place(rng, nodes)
    size = sum(len(s[j].content) + 16 for s, j in walk([siblings[k]]))
    times = min(rng.choice((3, 30, 300, 3000)), MOST_GROWN // size)
    siblings[k:k] = [_copied(siblings[k]) for _ in range(times)]


def _drop(rng: Random, nodes: list[Node]) -> None:
    siblings, k = _place(rng, nodes)
    del siblings[k]


def _swap(rng: Random, nodes: list[Node]) -> None:
    (a, i), (b, j) = _place(rng, nodes), _place(rng, nodes)
    if a is b:  # elsewhere one could end up within itself
        a[i], a[j] = a[j], a[i]
    elif not a[i].children and not b[j].children:
        a[i], b[j] = b[j], a[i]


def _nest(rng: Random, nodes: list[Node]) -> None:
    """A node within many of the kind of another one."""
    siblings, k = _place(rng, nodes)
    holders = [s[j] for s, j in walk(nodes) if s[j].children is not None] or [siblings[k]]
    holder, node = rng.choice(holders), siblings[k]
    for _ in range(rng.choice((1, 2, 10, 64, DEEPEST))):
        node = Node(holder.kind, holder.content[:64], [node], width=holder.width)
    siblings[k] = node


def _field(rng: Random, nodes: list[Node]) -> None:
    """Whole fields of a node at once, at their natural places, as the extremes of their types."""
    held = [s[k] for s, k in walk(nodes) if s[k].content]
    if not held:
        return
    small = [n for n in held if len(n.content) <= SMALL]
    node = rng.choice(small if small and rng.random() < 0.9 else held)
    content = bytearray(node.content)
    for _ in range(rng.randint(1, 4)):
        width = rng.choice((1, 2, 4, 4, 4, 8))
        at = rng.randrange(len(content)) // min(width, 4) * min(width, 4)
        value = rng.choice((*EXTREMES, rng.getrandbits(64))) % 2 ** (8 * width)
        content[at : at + width] = value.to_bytes(width, rng.choice(("big", "little")))
    node.content = bytes(content)


def _cut(rng: Random, nodes: list[Node]) -> None:
    siblings, k = _place(rng, nodes)
    siblings[k].content = siblings[k].content[: rng.randint(0, len(siblings[k].content))]


def _grow(rng: Random, nodes: list[Node]) -> None:
    siblings, k = _place(rng, nodes)
    more = rng.choice((1, 100, 70_000, MOST_GROWN))
    siblings[k].content += bytes(more) if rng.random() < 0.5 else rng.randbytes(more)


def _noise(rng: Random, nodes: list[Node]) -> None:
    siblings, k = _place(rng, nodes)
    siblings[k].content = rng.randbytes(len(siblings[k].content))


MUTATIONS: dict[str, Mutation] = {
    "length": _length,
    "kind": _kind,
    "duplicate": _duplicate,
    "multiply": _multiply,
    "drop": _drop,
    "swap": _swap,
    "nest": _nest,
    "field": _field,
    "cut": _cut,
    "grow": _grow,
    "noise": _noise,
}
WEIGHTS = (4, 2, 2, 1, 2, 2, 1, 8, 2, 1, 1)
"""How often each is chosen: most parsers trust fields and lengths."""


def mutate(rng: Random, nodes: list[Node]) -> str:
    """Do one thing to a tree, and say which."""
    (name,) = rng.choices(list(MUTATIONS), WEIGHTS)
    if any(s[k].kind for s, k in walk(nodes)):
        MUTATIONS[name](rng, nodes)
    return name
