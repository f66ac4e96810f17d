"""What is worth saying of a capture that runs: no error, nothing stops. Pure."""

from enum import StrEnum


class Notice(StrEnum):
    """The code, the same in JSON, pages and the admin; `words` is one sentence for people."""

    FROZEN = "frozen"
    NO_KEY_FRAMES = "no_key_frames"
    OTHER_TRANSPORT = "other_transport"
    HEAVY = "heavy"
    FRAME_NUM_OFF = "frame_num_off"
    SLICES_OFF = "slices_off"
    STORAGE_FULL = "storage_full"

    @property
    def rule(self) -> str:
        """The rule that stood down, if the notice tells of one: the log names it."""
        return self.value.removesuffix("_off") if self.value.endswith("_off") else ""

    @property
    def words(self) -> str:
        return _WORDS[self]


def words_of(code: str) -> str:
    """One sentence for people, also for a code that this version does not know."""
    words = {notice.value: notice.words for notice in Notice}
    return words.get(code) or f"The capture reports {code}, which this version does not know."


_WORDS = {
    Notice.FROZEN: "The camera sends the same picture again and again.",
    Notice.NO_KEY_FRAMES: "The camera sends hardly any key frames, so nearly every picture has to be decoded.",
    Notice.OTHER_TRANSPORT: "The requested transport did not work with this camera, so the other one is used.",
    Notice.HEAVY: "The camera makes so much work that its recorder goes behind all others: samples may be missed.",
    Notice.FRAME_NUM_OFF: "The camera numbers its pictures in its own way, so pictures that a relay loses are "
    "no longer detected.",
    Notice.SLICES_OFF: "The camera divides its pictures in its own way, so parts that a relay loses are no longer "
    "detected.",
    Notice.STORAGE_FULL: "Pictures cannot be saved: the disk is full, or their folder or store cannot be written. "
    "They stay in memory, and are saved as soon as they can be.",
}
