"""Pictures in an S3-compatible store: what the setting S3_BUCKET switches to. The only file that imports boto3."""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from types import SimpleNamespace
from typing import Any

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError, ResponseStreamingError
from django.core.files import File
from storages.backends.s3 import S3Storage

# A checkpoint runs in the supervisor's one thread, whose host loses its claims after 15 s of silence. So there is one
# attempt, since what fails is tried again by the next checkpoint, and after it nobody waits again for a while.
_TIMEOUTS = {"connect_timeout": 2, "read_timeout": 4, "retries": {"total_max_attempts": 1}}
AWAY_S = 5.0
# Many compatible stores do not know the checksums that boto3 adds to each request since 1.36.
_CHECKSUMS = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
_AT_ONCE = 32  # requests: more than a website has threads
_GONE = ("404", "NoSuchKey")


class ObjectStore(S3Storage):  # type: ignore[misc]
    """Private objects, read whole. FileNotFoundError says that one is not there, OSError all else that fails.

    No ACL is sent: objects are private without one, and buckets with ACLs disabled, as new ones are, refuse it.
    """

    def __init__(self, endpoint_url: str = "", **options: Any) -> None:
        # Compatible stores seldom have a DNS name for each bucket.
        addressing = {"addressing_style": "path" if endpoint_url else "auto"}
        super().__init__(
            endpoint_url=endpoint_url or None,
            client_config=Config(s3=addressing, max_pool_connections=_AT_ONCE, **_TIMEOUTS, **_CHECKSUMS),
            transfer_config=TransferConfig(use_threads=False),  # a picture is far below one part of an upload
            default_acl=None,
            file_overwrite=True,  # names are unique: to ask for each whether it exists would be a request more
            **options,
        )
        # One connection for all threads in place of one for each, which took 17 MB: its client may be shared.
        self._connections = SimpleNamespace()
        self._away_until_s = 0.0

    def _open(self, name: str, mode: str = "rb") -> "File[bytes]":
        """The whole object in memory, by one request: a picture is a few hundred KB."""
        if mode != "rb":
            raise ValueError("An object is read as bytes, and written by save() alone.")
        with self._asking():
            key = self._normalize_name(name)
            answer = self.connection.meta.client.get_object(Bucket=self.bucket_name, Key=key)
            return File(BytesIO(answer["Body"].read()), name)

    def _save(self, name: str, content: "File[bytes]") -> str:
        with self._asking():
            saved: str = super()._save(name, content)
            return saved

    def delete(self, name: str) -> None:
        with self._asking():
            super().delete(name)

    def exists(self, name: str) -> bool:
        with self._asking():
            return bool(super().exists(name))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        with self._asking():
            folders, files = super().listdir(path)
            return folders, files

    def size(self, name: str) -> int:
        with self._asking():
            return int(super().size(name))

    def get_modified_time(self, name: str) -> datetime:
        with self._asking():
            moment: datetime = super().get_modified_time(name)
            return moment

    def ask_again(self) -> None:
        """Ask with the next call, however lately the store did not answer."""
        self._away_until_s = 0.0

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Raises what a caller can handle without knowing boto3, whose own texts hold addresses and keys.

        A store that did not answer is not asked again for AWAY_S: a hundred checkpoints do not each wait for it.
        """
        if time.monotonic() < self._away_until_s:
            raise OSError(errno.EIO, "the store did not answer a moment ago")
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _GONE:
                raise FileNotFoundError(errno.ENOENT, "no such object in the store") from None
            raise OSError(errno.EIO, f"the store answers {code}") from None
        except (IncompleteReadError, ResponseStreamingError) as error:  # it answers: one object is cut short
            raise OSError(errno.EIO, f"{type(error).__name__} of the store") from None
        except (BotoCoreError, Boto3Error) as error:
            self._away_until_s = time.monotonic() + AWAY_S
            raise OSError(errno.EIO, f"{type(error).__name__} of the store") from None
