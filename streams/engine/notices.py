"""What is worth saying of a capture that runs: no error, nothing stops. Pure."""

from enum import StrEnum


class Notice(StrEnum):
    """The code, the same in JSON, pages and the admin; `words` is one sentence for people."""

    FROZEN = "frozen"
    NO_KEY_FRAMES = "no_key_frames"
    OTHER_TRANSPORT = "other_transport"
    HEAVY = "heavy"
    STORAGE_FULL = "storage_full"

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Notice.FROZEN: "The camera sends the same picture again and again.",
    Notice.NO_KEY_FRAMES: "The camera sends hardly any key frames, so nearly every picture has to be decoded.",
    Notice.OTHER_TRANSPORT: "The requested transport did not work with this camera, so the other one is used.",
    Notice.HEAVY: "The camera makes so much work that its recorder goes behind all others: samples may be missed.",
    Notice.STORAGE_FULL: "Pictures cannot be saved: the disk is full, or their folder or store cannot be written. "
    "They stay in memory, and are saved as soon as they can be.",
}
