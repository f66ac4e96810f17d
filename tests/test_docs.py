"""The documents name what is there: sections, and every error code of a capture that is not about its camera."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def test_the_contents_of_the_operations_guide_are_its_sections() -> None:
    text = re.sub(r"^```.*?^```$", "", (DOCS / "operations.md").read_text(), flags=re.M | re.S)
    contents, _, rest = text.partition("\n## ")
    sections = re.findall(r"^## (.+)$", f"## {rest}", re.M)
    links = re.findall(r"\[([^]]+)\]\(#([^)]+)\)", contents)
    assert all(anchor(words) == target for words, target in links)
    named = [words for words, _ in links]
    assert set(sections) - {"Data"} <= set(named)
    assert set(named) <= set(re.findall(r"^###? (.+)$", f"## {rest}", re.M))


def test_the_guides_name_the_errors_of_the_service_itself() -> None:
    for code in (
        "picture_unreadable",
        "no_grid",
        "restored",
        "storage_full",
        "database_busy",
        "database_damaged",
        "busy",
    ):
        for name in ("api.md", "operations.md"):
            assert f"`{code}`" in (DOCS / name).read_text(), (code, name)
