"""rtsps: spoken with a camera whose certificate is right, or that the user trusts without; with no other one."""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from streams.engine import errors, rtsp
from streams.engine.address import Address, parse
from streams.engine.clock import Stop
from streams.engine.dialogue import Caution
from streams.engine.report import State
from streams.engine.rtsp import RTSPSession, open_session
from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.camera.tls import TLSFront
from tests.camera.viewer import wait_until

from .capturing import capturing
from .odd_camera import OddCamera, Request, answer, framed, rtp

LONG_S = 60.0
PASSWORD = "s3cr3t-w0rd"
ANY = Caution(verifies_certificate=False)
NOW = datetime.now(UTC)

SCENE = Scene(320, 240, (40, 200, 90, 120), fps=50, gop_s=0.2)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def known(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority is one that this host knows."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))


@pytest.fixture
def stop() -> Stop:
    return Stop()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate as a camera makes them for itself; this one at least knows its address."""
    return made(ec.generate_private_key(ec.SECP256R1()), tmp_path_factory)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of an older camera."""
    return made(rsa.generate_private_key(65_537, 1024), tmp_path_factory)  # noqa: S505 (cameras have such keys)


def made(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "camera")])
    place = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), NOW, NOW + timedelta(1))
        .add_extension(place, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("own") / "camera.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module")
def own_tls(own: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    return context


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def address_of(camera: OddCamera, host: str = "127.0.0.1") -> Address:
    return replace(parse(camera.url), scheme="rtsps", host=host, username="user", password=PASSWORD)


def refusal(camera: OddCamera, stop: Stop, host: str = "127.0.0.1") -> str:
    """Of the certificate, before the camera has heard a word."""
    with pytest.raises(errors.CertificateRefused) as caught:
        open_session(address_of(camera, host), "tcp", stop)
    wait_until(lambda: camera.open_connections == 0)
    assert camera.requests == []
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def collect(session: RTSPSession, count: int) -> list[bytes]:
    packets: list[bytes] = []
    while len(packets) < count:
        packets += [bytes(packet) for packet in session.receive(LONG_S)]
    return packets


# --- who is trusted ---


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("names", "host"),
    [
        (["127.0.0.1"], "127.0.0.1"),
        (["::1"], "::1"),
        (["localhost"], "localhost"),
        (["cam", "localhost"], "localhost"),
    ],
)
def test_a_certificate_of_a_known_authority_for_this_host_is_taken(
    names: list[str], host: str, ca: trustme.CA, stop: Stop
) -> None:
    with OddCamera(tls=serving(ca.issue_cert(*names)), host="::1" if host == "::1" else "127.0.0.1") as camera:
        open_session(address_of(camera, host), "tcp", stop).close()
    assert camera.requests[0].url.startswith("rtsps://")


def test_an_authority_that_nobody_knows_is_refused(ca: trustme.CA, stop: Stop) -> None:
    with OddCamera(tls=serving(ca.issue_cert("127.0.0.1"))) as camera:
        assert "authority that this host does not know" in refusal(camera, stop)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("names", "since", "until", "words"),
    [
        (["camera.example"], -1, 1, "another address than 127.0.0.1"),
        (["127.0.0.2"], -1, 1, "another address than 127.0.0.1"),
        (["127.0.0.1"], -2, -1, "certificate has expired: "),
        (["127.0.0.1"], 1, 2, "not valid yet"),
    ],
)
def test_a_certificate_that_is_wrong_is_refused_and_why_is_told(
    names: list[str], since: int, until: int, words: str, ca: trustme.CA, stop: Stop
) -> None:
    certificate = ca.issue_cert(*names, not_before=NOW + timedelta(since), not_after=NOW + timedelta(until))
    with OddCamera(tls=serving(certificate)) as camera:
        said = refusal(camera, stop)
    assert words in said
    assert "verify_certificate" in said
    assert "SSL_CERT_FILE" in said


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("names", [["other.example"], ["*.localhost"], ["127.0.0.1"]])
def test_a_certificate_for_another_name_is_refused(names: list[str], ca: trustme.CA, stop: Stop) -> None:
    with OddCamera(tls=serving(ca.issue_cert(*names))) as camera:
        assert "another name than localhost" in refusal(camera, stop, "localhost")


def test_a_certificate_of_the_camera_s_own_making_is_refused(own_tls: ssl.SSLContext, stop: Stop) -> None:
    with OddCamera(tls=own_tls) as camera:
        assert "signed by the camera itself" in refusal(camera, stop)


def test_unless_the_stream_says_so(own_tls: ssl.SSLContext, stop: Stop) -> None:
    with OddCamera(tls=own_tls) as camera:
        open_session(address_of(camera), "tcp", stop, ANY).close()
    assert "PLAY" in camera.methods


def test_or_the_host_was_given_that_certificate(
    own: Path, own_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, stop: Stop
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    with OddCamera(tls=own_tls) as camera:
        open_session(address_of(camera), "tcp", stop).close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("caution", [Caution(), ANY], ids=["verified", "not"])
def test_old_tls_is_not_spoken(caution: Caution, own_tls: ssl.SSLContext, own: Path, stop: Stop) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(own)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with OddCamera(tls=old) as camera, pytest.raises(errors.NotRTSP, match=r"1\.2"):
        open_session(address_of(camera), "tcp", stop, caution)
    assert (camera.connections, camera.requests) == (1, [])


def knowing(old: Path, ciphers: str) -> ssl.SSLContext:
    """A camera that speaks TLS 1.2 with these ciphers alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.load_cert_chain(old)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "AES128-SHA"])
def test_old_ciphers_are_taken_where_the_certificate_does_not_matter(ciphers: str, old: Path, stop: Stop) -> None:
    """go2rtc PR #2211 #2383: Axis firmware 6, Reolink, Kasa."""
    with OddCamera(tls=knowing(old, ciphers)) as camera:
        open_session(address_of(camera), "tcp", stop, ANY).close()
    assert "PLAY" in camera.methods


@pytest.mark.parametrize(
    ("ciphers", "caution", "has_hint"),
    [("AES128-GCM-SHA256", Caution(), True), ("ADH-AES128-SHA256", ANY, False)],
    ids=["verified", "not"],
)
def test_where_no_cipher_is_common_that_is_said(
    ciphers: str, caution: Caution, has_hint: bool, old: Path, stop: Stop
) -> None:
    with OddCamera(tls=knowing(old, ciphers)) as camera, pytest.raises(errors.NotRTSP) as caught:
        open_session(address_of(camera), "tcp", stop, caution)
    assert "no common cipher" in str(caught.value)
    assert ("verify_certificate" in str(caught.value)) == has_hint


def test_a_capture_asks_again_until_the_certificate_is_right(
    ca: trustme.CA, known: None, own_tls: ssl.SSLContext
) -> None:
    good = serving(ca.issue_cert("127.0.0.1"))
    with (
        ScriptedCamera(SCENE, username="user", password=PASSWORD) as camera,
        TLSFront(camera.port, own_tls) as front,
        capturing(f"rtsps://user:{PASSWORD}@127.0.0.1:{front.port}/demo") as capture,
    ):
        status = capture.until(lambda report: report.status.attempt >= 2).status
        assert (status.state, status.error_code) == (State.RECONNECTING, "certificate_refused")
        assert (camera.connections, camera.requests) == (0, [])
        front.context = good
        capture.until(lambda report: report.counters.samples > 0)
    assert PASSWORD not in repr(capture.statuses)


def test_a_capture_that_is_told_to_takes_any(own_tls: ssl.SSLContext) -> None:
    with (
        ScriptedCamera(SCENE) as camera,
        TLSFront(camera.port, own_tls) as front,
        capturing(f"rtsps://127.0.0.1:{front.port}/demo", verify_certificate=False) as capture,
    ):
        capture.until(lambda report: report.counters.samples > 0)
    assert capture.codes == []


def test_a_recorder_knows_the_authorities_of_its_environment(ca: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    """Of all that is there it is given only what it needs: `manage.py capture`, from end to end."""
    with (
        ScriptedCamera(SCENE, username="user", password=PASSWORD) as camera,
        TLSFront(camera.port, serving(ca.issue_cert("127.0.0.1"))) as front,
    ):
        url = f"rtsps://user@127.0.0.1:{front.port}/demo"
        done = subprocess.run(
            [sys.executable, "manage.py", "capture", url, "--interval", "0.2", "--duration", "0.5", "--count", "1",
             "--output", str(tmp_path / "grid.jpg")],
            cwd=ROOT, env={"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(ca_file), "CAMERA_PASSWORD": PASSWORD},
            capture_output=True, text=True, timeout=LONG_S * 2, check=False,
        )  # fmt: skip
    assert (done.returncode, "certificate" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / "grid.jpg").stat().st_size > 0


# --- how it is spoken ---


def test_rtsps_is_spoken(own_tls: ssl.SSLContext, stop: Stop) -> None:
    """More than a record, more than the buffer, and then the end."""
    packets = [rtp(number, 20_000) for number in range(40)]

    def play(request: Request) -> bytes | None:
        camera.send(answer(request) + b"".join(framed(0, packet) for packet in packets))
        return None

    with (
        OddCamera(on={"PLAY": play}, tls=own_tls) as camera,
        open_session(address_of(camera), "tcp", stop, ANY) as session,
    ):
        assert collect(session, 40) == packets
        with pytest.raises(errors.Closed):
            session.receive(LONG_S)
    assert camera.requests[0].url.startswith("rtsps://")


def test_what_tls_has_decrypted_is_not_waited_for(own_tls: ssl.SSLContext, stop: Stop) -> None:
    """More than one read holds, and nothing after it that would wake anybody."""
    packets = [rtp(number, 60_000) for number in range(20)]

    def play(request: Request) -> Iterator[bytes]:
        yield answer(request, Session="5E55")
        yield b"".join(framed(0, packet) for packet in packets)

    with (
        OddCamera(on={"PLAY": play}, tls=own_tls) as camera,
        open_session(address_of(camera), "tcp", stop, ANY) as session,
    ):
        assert collect(session, 20) == packets


@pytest.mark.parametrize("greeting", [b"RTSP/1.0 400 Bad Request\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_camera_without_tls_is_told(greeting: bytes, stop: Stop) -> None:
    with OddCamera(greeting=greeting) as camera, pytest.raises(errors.NotRTSP, match="does not speak RTSP"):
        open_session(address_of(camera), "tcp", stop)
    assert (camera.connections, camera.requests) == (1, [])


def test_a_silent_camera_is_told_under_tls_too(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(rtsp, "SOCKET_TIMEOUT_S", 0.5)
    with ScriptedCamera(SCENE, fault="silent") as camera:
        with pytest.raises(errors.ConnectTimeout):
            open_session(replace(parse(camera.url), scheme="rtsps"), "tcp", stop)
        wait_until(lambda: camera.clients == 0)
