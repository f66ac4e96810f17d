"""What can go wrong between an address and a sample.

Each class says its `code` (the same in JSON, pages, logs and the admin), its plain words and how to retry.

    CaptureError
    |-- InvalidURL          invalid_url          never
    |-- AddressRefused      address_refused      slow    a name may change; never, where no change can help
    |-- AuthRefused         auth_refused         slow    cameras lock an account after some wrong passwords
    |-- CertificateRefused  certificate_refused  slow
    |-- NotFound            not_found            quick   a relay publishes the path once its camera is up; but rare
    |                                                    until the first sample: the path may be mistyped
    |-- Unreachable         unreachable          quick
    |-- CameraFull          camera_full          later   sessions of a camera time out after about a minute
    |-- ConnectTimeout      timeout              quick
    |-- Stalled             stalled              quick
    |-- Closed              closed               quick
    |-- NotRTSP             not_rtsp             slow
    |-- Refused             refused              slow
    |   `-- TransportRefused transport_refused  slow    the other transport is tried at once
    |-- NoVideo             no_video             slow
    |-- Undecodable         undecodable          slow
    |-- PictureTooLarge     picture_too_large    slow
    |-- OutOfMemory         out_of_memory        slow    by another recorder: this one ends
    |-- CredentialsSealed   credentials_sealed   quick   the camera is not asked meanwhile
    `-- RecorderDied        recorder_died        quick
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import ClassVar


class Retry(StrEnum):
    """Which ladder of waits follows an error (backoff.py has the seconds)."""

    QUICK = "quick"
    LATER = "later"
    SLOW = "slow"
    RARE = "rare"
    NEVER = "never"


class CaptureError(Exception):
    """A failure with a code. `str(error)` is one sentence for people; it never holds a credential."""

    code: ClassVar[str]
    words: ClassVar[str]
    retry: Retry = Retry.QUICK
    unseen_retry: ClassVar[Retry | None] = None
    """For a capture that has never had a sample, where that is another one."""

    def __init__(self, detail: str = "") -> None:
        """`detail` replaces the class's plain words where more is known."""
        super().__init__(detail or self.words)

    def retry_of(self, has_sampled: bool) -> Retry:
        """How a capture retries that has or has never had a sample."""
        return self.retry if has_sampled else self.unseen_retry or self.retry


class InvalidURL(CaptureError):
    code = "invalid_url"
    words = "This is not an RTSP address."
    retry = Retry.NEVER


class AddressRefused(CaptureError):
    code = "address_refused"
    words = "This service does not connect to that address."
    retry = Retry.SLOW

    def __init__(self, detail: str = "", *, is_for_ever: bool = False) -> None:
        """What a name resolves to may change, and the settings may; what an IP address is may not."""
        super().__init__(detail)
        if is_for_ever:
            self.retry = Retry.NEVER


class AuthRefused(CaptureError):
    code = "auth_refused"
    words = "The camera refused the user name or the password."
    retry = Retry.SLOW


class CertificateRefused(CaptureError):
    code = "certificate_refused"
    words = "The camera's certificate cannot be verified."
    retry = Retry.SLOW


class NotFound(CaptureError):
    code = "not_found"
    words = "The camera knows no stream of this path."
    unseen_retry = Retry.RARE


class Unreachable(CaptureError):
    code = "unreachable"
    words = "No connection to the camera: nothing answers at this host and port."

    def __init__(self, detail: str = "", *, is_unresolved: bool = False) -> None:
        """`is_unresolved`: no address is known for the name."""
        super().__init__(detail)
        self.is_unresolved = is_unresolved


class CameraFull(CaptureError):
    code = "camera_full"
    words = "The camera serves no more viewers at the moment."
    retry = Retry.LATER


class ConnectTimeout(CaptureError):
    code = "timeout"
    words = "The camera accepted the connection and then sent no picture."


class Stalled(CaptureError):
    code = "stalled"
    words = "The camera stopped sending without closing the connection."


class Closed(CaptureError):
    code = "closed"
    words = "The camera ended the connection."


class NotRTSP(CaptureError):
    code = "not_rtsp"
    words = "What answers at this port does not speak RTSP."
    retry = Retry.SLOW


class Refused(CaptureError):
    code = "refused"
    words = "The camera refused the request."
    retry = Retry.SLOW


class TransportRefused(Refused):
    code = "transport_refused"
    words = "The camera refuses this transport."

    def __init__(self, detail: str = "", *, otherwise: CaptureError | None = None) -> None:
        """`otherwise`: what is wrong if the other transport does not work either."""
        super().__init__(detail or (str(otherwise) if otherwise else ""))
        self.otherwise = otherwise


class NoVideo(CaptureError):
    code = "no_video"
    words = "The stream has no video track."
    retry = Retry.SLOW


class Undecodable(CaptureError):
    code = "undecodable"
    words = "The stream's video cannot be decoded."
    retry = Retry.SLOW


class PictureTooLarge(CaptureError):
    code = "picture_too_large"
    words = "The camera's pictures are larger than this service takes."
    retry = Retry.SLOW


class OutOfMemory(CaptureError):
    code = "out_of_memory"
    words = "What the camera sends takes more memory than a recorder may have (CAPTURE_MEMORY_MB)."
    retry = Retry.SLOW


class CredentialsSealed(CaptureError):
    code = "credentials_sealed"
    words = "The camera's password cannot be read: this host does not have its key, or what is stored is damaged."


class RecorderDied(CaptureError):
    code = "recorder_died"
    words = "The recorder of this stream ended unexpectedly and is started again."


def retry_of(code: str, has_sampled: bool = True) -> Retry | None:
    """How the error of this code is retried; None for a code that no error has."""
    found = _BY_CODE.get(code)
    if found is None:
        return None
    return found.retry if has_sampled else found.unseen_retry or found.retry


def _tree(error: type[CaptureError]) -> Iterator[type[CaptureError]]:
    for child in error.__subclasses__():
        yield child
        yield from _tree(child)


_BY_CODE = {error.code: error for error in _tree(CaptureError)}
