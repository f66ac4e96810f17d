"""Reads a page as a browser does that is strict: what it says, what it loads, and whether it is well-formed."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "link", "img", "br", "input", "hr"})
_LOADING = frozenset({"src", "href", "srcset", "action", "formaction", "poster", "data", "background", "content"})


@dataclass(slots=True)
class Page:
    """`links` are (tag, attribute, value) of whatever can name another resource; `faults` what is not well-formed.

    `attributes` and `texts`: of each element that has an id.
    """

    text: str = ""
    styles: str = ""
    tags: list[str] = field(default_factory=list)
    links: list[tuple[str, str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The text with each run of white space as one space."""
        return " ".join(self.text.split())

    def loaded(self) -> list[str]:
        """What a browser fetches for the page: pictures, scripts, style sheets, icons."""
        return [value for tag, key, value in self.links if key in ("src", "srcset") or tag == "link"]

    def values(self, tag: str, attribute: str) -> list[str]:
        return [value for name, key, value in self.links if (name, key) == (tag, attribute)]


def read(markup: str) -> Page:
    return _Reader().read(markup)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._open: list[str] = []
        self._ids: list[str] = []

    def read(self, markup: str) -> Page:
        if not markup.startswith("<!doctype html>"):
            self.page.faults.append("no doctype")
        self.feed(markup)
        self.close()
        self.page.faults += [f"{tag} is never closed" for tag in self._open]
        return self.page

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.page.tags.append(tag)
        names = [name for name, _ in attributes]
        if len(set(names)) < len(names):
            self.page.faults.append(f"{tag} has an attribute twice")
        self.page.faults += [f"{tag} runs a script: {name}" for name in names if name.startswith("on")]
        self.page.links += [(tag, name, value or "") for name, value in attributes if name in _LOADING]
        self.page.styles += "".join(value or "" for name, value in attributes if name == "style")
        id_ = dict(attributes).get("id") or ""
        if id_ in self.page.attributes:
            self.page.faults.append(f"two elements have the id {id_}")
        if id_:
            self.page.attributes[id_] = {name: value or "" for name, value in attributes}
            self.page.texts[id_] = ""
        if tag not in _VOID:
            self._open.append(tag)
            self._ids.append(id_)

    def handle_endtag(self, tag: str) -> None:
        if self._ids:
            self._ids.pop()
        if not self._open or self._open.pop() != tag:
            self.page.faults.append(f"{tag} is closed and was not the last to be opened")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.page.styles += data
        else:
            self.page.text += data
            for id_ in filter(None, self._ids):
                self.page.texts[id_] += data
