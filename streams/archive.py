"""A capture as a zip file: its grid, its frames best first, and what is known of it as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models.fields.files import FieldFile

from . import facts, pictures
from .engine.timeline import Timeline
from .models import Capture, Frame

GRID, FACTS = "grid.jpg", "capture.json"
# What a zip can name: APPNOTE.TXT 4.4.6 has seven bits for the years from 1980 on, and halves of seconds.
_EARLIEST, _LATEST = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
_FILE_MODE = 0o100644 << 16  # a plain file that its owner writes and all read


class _Window(BytesIO):
    """A file of which only the end is in memory: what was taken is gone, and counts for its positions.

    The entry that is being written can be gone back to, so its size and checksum stand before it: readers that read
    a zip as it comes need that of entries that are not compressed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._taken_bytes = 0

    def tell(self) -> int:
        return self._taken_bytes + super().tell()

    def seek(self, position: int, whence: int = 0) -> int:
        return self._taken_bytes + super().seek(position - (0 if whence else self._taken_bytes), whence)

    def take(self) -> bytes:
        data = self.getvalue()
        self._taken_bytes += len(data)
        super().seek(0)
        self.truncate()
        return data


def parts(capture: Capture, frames: Sequence[Frame], known: Mapping[str, Any]) -> Iterator[bytes]:
    """The zip in parts of one picture each, stored as they are: JPEG does not get smaller. `frames` best first.

    A picture that cannot be read is left out; what is `known`, which comes last, says so. Asks the database nothing.
    """
    window = _Window()
    missing = []
    with ZipFile(window, "w", ZIP_STORED) as archive:
        for name, image, moment in _entries(capture, frames):
            try:
                archive.writestr(_entry(name, moment), pictures.read(image))
            except (pictures.NoPicture, OSError):
                missing.append(name)
            yield window.take()
        words = json.dumps({**known, "missing_files": missing}, cls=DjangoJSONEncoder, indent=2) + "\n"
        archive.writestr(_entry(FACTS, capture.finished_at or datetime.now(UTC)), words)
    yield window.take()


def known(capture: Capture, frames: Sequence[Frame], timeline: Timeline | None) -> dict[str, Any]:
    """What is known of the capture and its frames, best first; times in UTC, scores 0 to 255. In the API's words."""
    return {
        **facts.of_capture(capture),
        "url": capture.stream.url,
        "grid": GRID if capture.grid else None,
        "frames": [
            {"file": name, **facts.of_frame(rank, frame)}
            for (rank, frame), name in zip(enumerate(frames, 1), _names(frames), strict=True)
        ],
        "timeline": facts.of_timeline(timeline),
    }


def _entries(capture: Capture, frames: Sequence[Frame]) -> Iterator[tuple[str, FieldFile, datetime]]:
    if capture.grid:
        yield GRID, capture.grid, capture.finished_at or capture.started_at
    for name, frame in zip(_names(frames), frames, strict=True):
        yield name, frame.image, frame.captured_at


def _names(frames: Sequence[Frame]) -> list[str]:
    """Best first also where files are sorted by name."""
    digits = max(2, len(str(len(frames))))
    return [
        f"{rank:0{digits}}-{frame.captured_at:%Y%m%d-%H%M%S}-{frame.score:.1f}.jpg"
        for rank, frame in enumerate(frames, 1)
    ]


def _entry(name: str, moment: datetime) -> ZipInfo:
    entry = ZipInfo(name, min(max(_EARLIEST, moment.timetuple()[:6]), _LATEST))
    entry.external_attr = _FILE_MODE
    return entry
