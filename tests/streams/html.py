"""Reads a page as a browser does that is strict: what it says, what it loads, and whether it is well-formed."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "link", "img", "br", "input", "hr"})
_LOADING = frozenset({"src", "href", "srcset", "action", "formaction", "poster", "data", "background", "content"})


@dataclass(slots=True)
class Page:
    """`links` are (tag, attribute, value) of whatever can name another resource; `faults` what is not well-formed."""

    text: str = ""
    styles: str = ""
    tags: list[str] = field(default_factory=list)
    links: list[tuple[str, str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def values(self, tag: str, attribute: str) -> list[str]:
        return [value for name, key, value in self.links if (name, key) == (tag, attribute)]


def read(markup: str) -> Page:
    return _Reader().read(markup)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._open: list[str] = []

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
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.page.faults.append(f"{tag} is closed and was not the last to be opened")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.page.styles += data
        else:
            self.page.text += data
