"""The table of what is kept behind a relay that lost packets: a line for each cell, none of them empty."""

import pytest

from bench import damage
from tests.engine.upstream import CODECS, KINDS, LOSSES


def test_each_cell_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert damage.main(["--seeds", "1"]) == 0
    shown = capsys.readouterr()
    rows = [line.split(" | ") for line in shown.out.splitlines() if line.startswith(("| H.26", "| MPEG-4"))]
    assert len(rows) == len(CODECS) * len(KINDS)
    assert {row[1] for row in rows} == {str(LOSSES)}
    assert all(int(row[2]) > 0 for row in rows)
    assert {row[5] for row in rows} == {"0 of 384 |"}
    assert "12 of 12 films" in shown.err
