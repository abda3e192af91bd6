"""
The figures of nodes, kept small and written down in slices.

A thousand nodes have some 35,000 series. The client library of Prometheus
takes 200 ms to write them, in one go, and 25 MB to keep them; meanwhile no
grant would reach a node. Here the figures of a node are one flat list.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal, NamedTuple

_LINES_PER_SLICE = 500  # well below a millisecond's work


class Family(NamedTuple):
    """A metric of every node; each of `labels` is a label and the closed set of its values."""

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    labels: tuple[tuple[str, Sequence[str]], ...] = ()


class _Node(NamedTuple):
    label: str
    figures: list[float]


class NodeSeries:
    """
    The series of all nodes, each at zero from the moment its node is added.

    What is told of a node that is not there goes nowhere: a cycle may end
    after its node was dropped. A series that does not exist is a KeyError.
    """

    def __init__(self, families: Sequence[Family]) -> None:
        self._layout: list[tuple[Family, int, list[str]]] = []
        self._at: dict[tuple[str, ...], int] = {}
        self._nodes: dict[str, _Node] = {}
        for family in families:
            start, tails = len(self._at), []
            for values in product(*(values for _, values in family.labels)):
                self._at[family.name, *values] = len(self._at)
                names = (name for name, _ in family.labels)
                pairs = zip(names, values, strict=True)
                tails.append("".join(f',{name}="{value}"' for name, value in pairs) + "} ")
            self._layout.append((family, start, tails))

    def add(self, node: str) -> None:
        """Begin every series of `node` at zero; the ones of a known node go on."""
        label = node.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        self._nodes.setdefault(node, _Node(label, [0] * len(self._at)))

    def drop(self, node: str) -> None:
        """End every series of `node`."""
        self._nodes.pop(node, None)

    def set(self, node: str, value: float, *series: str) -> None:
        """Set a gauge; `series` is the name of the metric and the values of its other labels."""
        at = self._at[series]
        if known := self._nodes.get(node):
            known.figures[at] = value

    def increase(self, node: str, by: float, *series: str) -> None:
        """Increase a counter; `series` is as with `set`."""
        at = self._at[series]
        if known := self._nodes.get(node):
            known.figures[at] += by

    def slices(self) -> Iterator[str]:
        """Yield the text that Prometheus reads, piece by piece; figures may change in between."""
        for family, start, tails in self._layout:
            yield f"# HELP {family.name} {family.about}\n# TYPE {family.name} {family.kind}\n"
            nodes = [*self._nodes.values()]
            step = max(1, _LINES_PER_SLICE // len(tails))
            for first in range(0, len(nodes), step):
                yield "".join(
                    f'{family.name}{{node="{node.label}"{tail}{node.figures[start + place]}\n'
                    for node in nodes[first : first + step]
                    for place, tail in enumerate(tails)
                )
