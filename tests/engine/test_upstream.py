"""What a relay lost before RTP numbered the packets: nothing that copies from it is kept. The table: make damage."""

import pytest

from streams.engine.continuity import Watch

from . import upstream
from .upstream import CODECS, KINDS, Codec, Kind, Outcome, film_of, played, with_losses, without_loss

SEEDS = range(6)
LOST: list[tuple[Codec, Kind]] = [
    *((codec, kind) for codec in ("h264", "hevc") for kind in ("P picture", "B picture", "key frame")),
    ("h264", "slice"),
]


def outcome_of(codec: Codec, kind: Kind) -> Outcome:
    return sum((with_losses(codec, kind, seed) for seed in SEEDS), Outcome())


@pytest.mark.parametrize(("codec", "kind"), LOST)
def test_nothing_is_kept_that_copies_from_what_was_lost(codec: Codec, kind: Kind) -> None:
    outcome = outcome_of(codec, kind)
    assert outcome.losses == len(SEEDS) * upstream.LOSSES
    assert outcome.differing == 0
    assert outcome.kept > 0
    assert outcome.rejected > 0


def test_a_slice_of_h265_is_missed_once_the_places_of_four_pictures_are_known() -> None:
    """The first picture's slices, and those of the three after it, nobody knows to be missing."""
    film = film_of("hevc", 0)
    slices = range(len(film.pictures[0].slices))
    wrong = [number for number in range(30) if any(played(film, {number: lost}).differing for lost in slices)]
    assert wrong == [0, 1, 2, 3]


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_films_without_a_loss_are_kept_whole(codec: Codec) -> None:
    outcome = without_loss(codec)
    assert (outcome.rejected, outcome.differing) == (0, 0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "slice"])
def test_these_losses_are_seen_where_nobody_counts(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the films would show nothing."""
    monkeypatch.setattr(upstream, "continuity", lambda codec: Watch().continuity)
    assert outcome_of("h264", kind).differing > 0
