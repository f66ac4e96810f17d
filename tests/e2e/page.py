"""What a person finds in the page that /stop returns."""

import base64
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
from numpy.typing import NDArray

from streams.engine import sheet
from tests.camera.mark import read_mark

Picture = NDArray[np.uint8]
_LOADING = ("src", "srcset", "href", "data", "action", "poster", "background")


@dataclass
class Page(HTMLParser):
    """`loaded`: every address that the page loads, or sends to; `pictures`: the data URIs of its images."""

    html: str
    loaded: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    words: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in _LOADING and tag != "a"]
        self.pictures += [value or "" for name, value in attrs if tag == "img" and name == "src"]

    def handle_data(self, data: str) -> None:
        self.words = " ".join(f"{self.words} {data}".split())

    def grid(self) -> Picture:
        """(height, width, 3) uint8 BGR."""
        head, _, data = self.pictures[0].partition(",")
        assert head == "data:image/jpeg;base64"
        return sheet.decode_jpeg(base64.b64decode(data))


def marks(grid: Picture, count: int, columns: int = 3) -> list[int]:
    """The second that each picture of a grid was filmed in: read from its bar code, left to right, top to bottom."""
    rows = -(-count // columns)
    columns = min(columns, count)
    height, width = ((grid.shape[axis] - sheet.GAP_PX) // n for axis, n in ((0, rows), (1, columns)))
    found = []
    for index in range(count):
        row, column = divmod(index, columns)
        top, left = sheet.GAP_PX + row * height, sheet.GAP_PX + column * width
        found.append(read_mark(grid[top : top + height - sheet.GAP_PX, left : left + width - sheet.GAP_PX]))
    return found
