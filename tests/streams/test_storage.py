"""Pictures in an S3-compatible store: moto's server, spoken to by HTTP, stopped and frozen as stores are."""

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests
from boto3.session import Session
from botocore.config import Config
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from pytest_django import Settings

from rtspsite.object_store import ObjectStore
from streams import backup, services
from streams.claims import CLAIM_S
from streams.engine import sheet
from streams.models import Capture, Frame, Host, Stream
from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.service import ROOT, Service, free_port, runserver, wait_for
from tests.streams.builders import (
    all_files,
    at_once,
    frame_files,
    make_capture,
    make_claim,
    make_finished,
    make_jpeg,
    make_picture,
    make_report,
    stop,
)
from tests.streams.processes import python, settings_with

BUCKET, PREFIX = "pictures", "north/site"
KEYS = ("a-key-id", "s3cr3t-st0re-key")
AWAY = (requests.ConnectionError, requests.Timeout)
DARKER = tuple(250.0 - 3 * second for second in range(80))


@dataclass
class Store:
    """A server of the S3 protocol in a process of its own; what it holds it holds in memory."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "S3_BUCKET": BUCKET,
            "S3_ENDPOINT_URL": self.url,
            "S3_REGION": "us-east-1",
            "S3_ACCESS_KEY_ID": KEYS[0],
            "S3_SECRET_ACCESS_KEY": KEYS[1],
            "S3_PREFIX": PREFIX,
        }

    @property
    def options(self) -> dict[str, Any]:
        """As the settings make them of the variables."""
        keys = {"access_key": KEYS[0], "secret_key": KEYS[1], "region_name": "us-east-1"}
        return {"bucket_name": BUCKET, "endpoint_url": self.url, "location": PREFIX, **keys}

    def start(self) -> None:
        command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        with (self.folder / "store-log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        wait_for(self._answers, "the store")
        self.client.create_bucket(Bucket=BUCKET)

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(30)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def empty(self) -> None:
        """As it is after its start."""
        requests.post(f"{self.url}/moto-api/reset", timeout=60).raise_for_status()
        self.client.create_bucket(Bucket=BUCKET)

    def freeze(self) -> None:
        """It takes connections and answers nothing."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    @cached_property
    def client(self) -> Any:
        session = Session(*KEYS, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.url, config=Config(read_timeout=20))

    def names(self) -> list[str]:
        """Of all objects, without the prefix, which each has to have."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        assert [key for key in keys if not key.startswith(f"{PREFIX}/")] == []
        return sorted(key.removeprefix(f"{PREFIX}/") for key in keys)

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.folder / "store-log").read_text()
        try:
            return requests.get(self.url, timeout=5).ok
        except AWAY:
            return False


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Of the tests that one process runs: it takes two seconds to start."""
    store = Store(tmp_path_factory.mktemp("store"))
    yield store
    store.end()


@pytest.fixture
def store(one_store: Store) -> Store:
    """Running, with an empty bucket, whatever the test before did to it."""
    if one_store.is_running:
        one_store.thaw()
        one_store.empty()
    else:
        one_store.start()
    return one_store


@pytest.fixture
def pictures(store: Store, settings: Settings) -> ObjectStore:
    """The storage of the models' pictures for the length of a test."""
    backend = {"BACKEND": "rtspsite.object_store.ObjectStore", "OPTIONS": store.options}
    settings.STORAGES = settings.STORAGES | {"default": backend}
    found = storages["default"]
    assert isinstance(found, ObjectStore)
    return found


# --- the storage ----------------------------------------------------------------------------------


def test_what_is_saved_is_read_listed_and_deleted(pictures: ObjectStore, store: Store) -> None:
    assert pictures.save("frames/1/2-a.jpg", ContentFile(b"whole")) == "frames/1/2-a.jpg"
    pictures.save("grids/1-b.jpg", ContentFile(b"grid"))
    with pictures.open("frames/1/2-a.jpg") as file:
        assert file.read() == b"whole"
    assert pictures.listdir("frames") == (["1"], [])
    assert pictures.listdir("frames/1") == ([], ["2-a.jpg"])
    assert pictures.size("grids/1-b.jpg") == 4
    assert pictures.get_modified_time("grids/1-b.jpg").tzinfo
    assert store.names() == ["frames/1/2-a.jpg", "grids/1-b.jpg"]
    pictures.delete("frames/1/2-a.jpg")
    pictures.delete("frames/1/2-a.jpg")
    assert not pictures.exists("frames/1/2-a.jpg")
    assert pictures.exists("grids/1-b.jpg")


def test_pictures_are_for_the_service_alone(pictures: ObjectStore, store: Store) -> None:
    pictures.save("a.jpg", ContentFile(b"whole"))
    granted = store.client.get_object_acl(Bucket=BUCKET, Key=f"{PREFIX}/a.jpg")["Grants"]
    assert [grant["Grantee"]["Type"] for grant in granted] == ["CanonicalUser"]


def test_an_object_that_is_not_there_is_a_file_not_found(pictures: ObjectStore) -> None:
    for ask in (pictures.open, pictures.size, pictures.get_modified_time):
        with pytest.raises(FileNotFoundError):
            ask("nowhere.jpg")


@pytest.mark.parametrize("trouble", ["gone", "frozen", "no bucket"])
def test_whatever_fails_is_an_os_error_that_tells_no_address_and_no_key(store: Store, trouble: str) -> None:
    match trouble:
        case "gone":
            store.end()
        case "frozen":
            store.freeze()
        case _:
            store.client.delete_bucket(Bucket=BUCKET)
    asks: list[Callable[[ObjectStore], object]] = [
        lambda pictures: pictures.save("a.jpg", ContentFile(b"x")),
        lambda pictures: pictures.open("a.jpg"),
        lambda pictures: pictures.listdir("frames"),
    ]
    for ask in asks:
        with pytest.raises(OSError, match="store") as caught:
            ask(ObjectStore(**store.options))
        assert caught.value.strerror
        assert not any(secret in str(caught.value) for secret in (*KEYS, str(store.port)))


def test_a_store_that_does_not_answer_is_not_waited_for_twice(pictures: ObjectStore, store: Store) -> None:
    """Neither by the same checkpoint, which deletes what it wrote, nor by those of other captures."""
    store.freeze()
    with pytest.raises(OSError, match="Timeout"):
        pictures.save("a.jpg", ContentFile(b"x"))
    for ask in (pictures.delete, pictures.open, pictures.exists):
        with pytest.raises(OSError, match="a moment ago"):
            ask("a.jpg")
    store.thaw()
    wait_for(lambda: is_saved(pictures), "the store is asked again")


def is_saved(pictures: ObjectStore) -> bool:
    try:
        pictures.save("a.jpg", ContentFile(b"x"))
    except OSError:
        return False
    return True


def test_threads_share_one_connection(pictures: ObjectStore) -> None:
    """One for each of gunicorn's took 300 MB. And none reads what another one asked for."""
    connection = pictures.connection
    numbers = itertools.count()

    def save_and_read() -> bool:
        name = f"frames/1/{next(numbers)}.jpg"
        for _ in range(5):
            pictures.save(name, ContentFile(name.encode() * 1000))
            with pictures.open(name) as file:
                if file.read() != name.encode() * 1000:
                    return False
        return pictures.connection is connection

    assert at_once(8, save_and_read) == [True] * 8


def test_an_attempt_and_the_deletion_after_it_are_over_before_a_host_loses_its_claims() -> None:
    config = ObjectStore("http://127.0.0.1:9", bucket_name=BUCKET).client_config
    assert config.retries["total_max_attempts"] == 1
    assert config.connect_timeout + config.read_timeout < CLAIM_S / 2


# --- settings -------------------------------------------------------------------------------------

SHOW = "import rtspsite.settings as s; print(s.STORAGES['default'])"


def test_a_bucket_switches_from_files_to_objects(tmp_path: Path) -> None:
    assert "FileSystemStorage" in python(SHOW, tmp_path).stdout
    (tmp_path / "key").write_text("from-a-file\n")
    told = python(SHOW, tmp_path, S3_BUCKET=BUCKET, S3_PREFIX="/a/", S3_SECRET_ACCESS_KEY_FILE=str(tmp_path / "key"))
    assert "rtspsite.object_store.ObjectStore" in told.stdout
    assert "'location': 'a'" in told.stdout
    assert "'secret_key': 'from-a-file'" in told.stdout


def test_an_address_of_a_store_that_is_none_is_told_with_the_other_mistakes(tmp_path: Path) -> None:
    urls = ["store:7070", "ftp://store", "http://", "http://[::1"]
    cases = ({"S3_BUCKET": BUCKET, "S3_ENDPOINT_URL": url, "PORT": "abc"} for url in urls)
    for is_taken, said in settings_with(tmp_path, "1", *cases):
        assert not is_taken
        assert "S3_ENDPOINT_URL" in said
        assert "PORT" in said


def test_a_missing_package_is_told_in_one_sentence(tmp_path: Path) -> None:
    hide = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n: None if n == 'storages' else f(n);"
    done = python(hide + SHOW, tmp_path, S3_BUCKET=BUCKET)
    assert done.returncode != 0
    assert "pip install -r requirements-s3.txt" in done.stderr.strip().splitlines()[-1]


# --- the service's rows and their objects ---------------------------------------------------------


@pytest.mark.django_db
def test_every_row_has_its_object_and_what_is_evicted_goes(pictures: ObjectStore, store: Store) -> None:
    capture = make_capture(count=2)
    claim = make_claim(capture)
    base = services.Totals.of(capture)
    services.checkpoint(claim, base, make_report(make_picture(1, score=10), make_picture(2, score=20)))
    assert store.names() == frame_files(capture)
    services.checkpoint(claim, base, make_report(make_picture(3, score=30), kept=((2, 20.0),)))
    assert store.names() == frame_files(capture)
    assert len(frame_files(capture)) == 2
    frame = Frame.objects.get(number=3)
    with frame.image.open() as file:
        assert file.read() == make_jpeg(30)


@pytest.mark.django_db
def test_the_page_and_the_admin_show_pictures_out_of_the_store(
    pictures: ObjectStore, store: Store, client: Client, settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    capture = make_finished()
    assert store.names() == all_files(capture)
    page = Page(stop(client).content.decode())
    assert page.grid().shape[2] == 3
    for address in (f"/captures/{capture.pk}/grid.jpg", f"/frames/{capture.frames.latest('pk').pk}.jpg"):
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert answer.content[:2] == b"\xff\xd8"


@pytest.mark.django_db
def test_a_store_that_is_away_costs_pictures_for_the_moment_and_no_page_and_leaves_no_row(
    pictures: ObjectStore, store: Store, client: Client, settings: Settings
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    finished = make_finished()
    frames = Frame.objects.count()
    capture = make_capture("rtsp://127.0.0.1:9/other")
    store.end()
    with pytest.raises(OSError, match="of the store"):
        services.checkpoint(make_claim(capture), services.Totals.of(capture), make_report(make_picture()))
    assert Frame.objects.count() == frames
    assert Capture.objects.get(pk=capture.pk).samples == 0
    assert stop(client).status_code == 200
    assert client.get(f"/captures/{finished.pk}/grid.jpg").status_code == 503


# --- real processes -------------------------------------------------------------------------------


def test_captures_go_on_while_the_store_is_away_and_lose_nothing(tmp_path: Path) -> None:
    """At first it is not there at all, later it is frozen. Each second is darker: the first nine samples win."""
    store = Store(tmp_path)
    camera = ScriptedCamera(Scene(320, 240, DARKER, fps=10), live=True)
    try:
        with camera, runserver(tmp_path / "service", **store.settings) as service:
            capture = service.begin(camera.url)
            wait_for(lambda: "checkpoint failed" in service.log, "a checkpoint that fails")
            store.start()
            service.wait_for_samples(capture, 9)
            wait_for(lambda: len(store.names()) == 9, "nine objects")

            store.freeze()
            assert service.end("demo").status_code in (200, 202)
            wait_for(lambda: is_in_trouble(service), "an error of the frozen store")
            store.thaw()
            wait_for(lambda: service.capture(capture)["finished_at"], "the capture finished")
            grid = requests.get(f"{service.url}/captures/{capture}/grid.jpg", timeout=60)
            numbers, names = known(tmp_path / "service", store)
        assert numbers == list(range(1, 10))
        assert names == store.names()
        assert len(set(marks(sheet.decode_jpeg(grid.content), 9))) == 9
        assert camera.connections == 1, "its recorder was replaced"
        assert not (tmp_path / "service" / "media").exists()
    finally:
        store.end()


def is_in_trouble(service: Service) -> bool:
    return "grid failed" in service.log or "OSError: [Errno 5]" in service.log


def known(folder: Path, store: Store) -> tuple[list[int], list[str]]:
    """The numbers of the saved frames, and the objects that rows point to."""
    code = (
        "import django; django.setup(); from streams.models import Capture, Frame;"
        "print(*sorted(Frame.objects.values_list('number', flat=True)));"
        "print(*Frame.objects.values_list('image', flat=True), *Capture.objects.values_list('grid', flat=True))"
    )
    done = python(code, folder, DJANGO_SETTINGS_MODULE="rtspsite.settings", **store.settings)
    assert done.returncode == 0, done.stderr
    numbers, names = done.stdout.splitlines()
    return [int(number) for number in numbers.split()], sorted(names.split())


# --- backups --------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("own_process")
def test_a_backup_brings_the_pictures_into_another_bucket(
    pictures: ObjectStore, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a store that goes away is one sentence, of both commands; nothing is left of them."""
    monkeypatch.setattr(backup, "PATIENCE_S", (0.1,))
    capture, file = make_finished(), str(tmp_path / "all.tar")
    call_command("backup", file, stdout=StringIO(), stderr=StringIO())
    kept = {name: pictures.open(name).read() for name in store.names()}
    store.freeze()
    with pytest.raises(CommandError, match="storage of the pictures is away"):
        call_command("backup", str(tmp_path / "other.tar"), stdout=StringIO(), stderr=StringIO())
    assert not (tmp_path / "other.tar").exists()
    store.thaw()
    store.empty()
    monkeypatch.setattr(pictures, "_away_until_s", 0.0)
    capture.stream.delete()
    Host.objects.all().delete()
    call_command("restore", file, stdout=StringIO(), stderr=StringIO())
    assert store.names() == all_files(capture) == sorted(kept)
    assert {name: pictures.open(name).read() for name in store.names()} == kept
    assert Capture.objects.get().frames.count() == 9
    with pytest.raises(CommandError, match="has streams or captures"):
        call_command("restore", file, stdout=StringIO(), stderr=StringIO())
    Stream.objects.all().delete()
    store.freeze()
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("restore", file, stdout=StringIO(), stderr=StringIO())
    assert not Stream.objects.exists()
