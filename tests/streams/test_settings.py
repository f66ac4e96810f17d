"""From the environment to settings: mistakes, files, and the keys that nobody has to configure."""

import ast
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests import environment as test_environment
from tests.streams.processes import ROOT, environment, python, settings_with

KEY = "A" * 43 + "="  # 32 bytes in base64
SHOW = "import rtspsite.settings as s; print({})"


def show(what: str, folder: Path, **variables: str) -> str:
    done = python(SHOW.format(what), folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def complaint(folder: Path, **variables: str) -> str:
    """The last line of what is said when the settings are refused."""
    done = python(SHOW.format(1), folder, **variables)
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_all_wrong_values_are_told_in_one_message(tmp_path: Path) -> None:
    wrong = {
        "PORT": "abc",
        "CAPTURE_SLOTS": "-1",
        "CAPTURE_KEEP_DAYS": "nan",
        "DEBUG": "maybe",
        "HTTPS": "so",
        "LOG_LEVEL": "LOUD",
        "DATABASE_URL": "nonsense",
        "CAPTURE_HOST_NAME": "n" * 101,
        "CAPTURE_ALLOWED_NETWORKS": "10.1.2.3/8",
        "CAPTURE_REDIRECT_PORTS": "1554 8554",
        "SSL_CERT_FILE": str(tmp_path / "nowhere.pem"),
    }
    said = complaint(tmp_path, **wrong)
    assert [name for name in wrong if name not in said] == []


def test_networks_are_read_and_the_one_that_is_none_is_told(tmp_path: Path) -> None:
    cases = ["10.0.0.0/8, fd00::/8", "", "10.0.0.0/8 192.168.0.0/16", "camera.example"]
    variables = [{"CAPTURE_ALLOWED_NETWORKS": text} for text in cases]
    two, none, *wrong = settings_with(tmp_path, "s.CAPTURE_ALLOWED_NETWORKS", *variables)
    assert two == (True, "(IPv4Network('10.0.0.0/8'), IPv6Network('fd00::/8'))")
    assert none == (True, "()")
    assert [is_taken for is_taken, _ in wrong] == [False, False]
    assert all("CAPTURE_ALLOWED_NETWORKS" in said for _, said in wrong)
    assert "camera.example is no network" in wrong[1][1]


def test_a_file_without_authorities_is_told(tmp_path: Path) -> None:
    """OpenSSL would say nothing and trust no camera."""
    authority, empty = tmp_path / "authority.pem", tmp_path / "empty.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    empty.write_text("no certificate")
    (is_taken, _), (is_refused, said) = settings_with(
        tmp_path, "1", {"SSL_CERT_FILE": str(authority)}, {"SSL_CERT_FILE": str(empty)}
    )
    assert (is_taken, is_refused) == (True, False)
    assert "SSL_CERT_FILE" in said


def test_days_that_are_no_number_of_days_are_refused(tmp_path: Path) -> None:
    for is_taken, said in settings_with(tmp_path, "1", {"CAPTURE_KEEP_DAYS": "-1"}, {"CAPTURE_KEEP_DAYS": "inf"}):
        assert not is_taken
        assert "CAPTURE_KEEP_DAYS" in said


def test_a_password_in_a_wrong_value_is_not_told(tmp_path: Path) -> None:
    assert "s3cr3t" not in python(SHOW.format(1), tmp_path, DATABASE_URL="nonsense://user:s3cr3t@host/name").stderr


def test_a_key_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    """Or else every request of a stream with a password is a 500."""
    assert "CREDENTIALS_KEYS" in complaint(tmp_path, CREDENTIALS_KEYS="no-fernet-key", PORT="abc")


def test_a_file_that_cannot_be_read_is_told_with_the_other_mistakes(tmp_path: Path) -> None:
    said = complaint(tmp_path, SECRET_KEY_FILE=str(tmp_path / "nowhere"), PORT="abc")
    assert "SECRET_KEY_FILE" in said
    assert "PORT" in said


@pytest.mark.parametrize(
    ("name", "content", "what", "expected"),
    [
        ("SECRET_KEY", "from-a-file", "s.SECRET_KEY", "from-a-file"),
        ("PORT", "8123", "s.PORT", "8123"),
        ("CAPTURE_HOST_NAME", "south", "s.CAPTURE_HOST_NAME", "south"),
        ("DATABASE_URL", "postgres://u:p@h:5433/name", "s.DATABASES['default']['NAME']", "name"),
        ("CREDENTIALS_KEYS", f"{KEY},{KEY}", "len(s.CREDENTIALS_KEYS)", "2"),
        ("ALLOWED_HOSTS", "a.example,b.example", "s.ALLOWED_HOSTS[-2:]", "['a.example', 'b.example']"),
    ],
)
def test_a_variable_can_be_read_from_a_file(
    tmp_path: Path, name: str, content: str, what: str, expected: str
) -> None:
    """Whether its line is ended or not."""
    cases = []
    for number, end in enumerate(("", "\n", "\r\n")):
        (tmp_path / str(number)).write_bytes((content + end).encode())
        cases.append({f"{name}_FILE": str(tmp_path / str(number))})
    assert settings_with(tmp_path, what, *cases) == [(True, expected)] * 3


def test_sqlite_waits_for_its_writers(tmp_path: Path) -> None:
    options = show("s.DATABASES['default']['OPTIONS']", tmp_path)
    assert "IMMEDIATE" in options
    assert "'timeout': 20" in options
    assert "journal_mode=WAL" in options
    assert "IMMEDIATE" not in show("s.DATABASES['default']", tmp_path, DATABASE_URL="postgres://u:p@h/n")


def test_redis_takes_the_jobs_if_it_is_configured(tmp_path: Path) -> None:
    what = "[s.Q_CLUSTER.get(name) for name in ('redis', 'orm', 'broker_class')]"
    urls = ["redis://:pass@h:6380/1", "rediss://u:pass@h", "unix:///run/redis.sock?db=2"]
    found = settings_with(tmp_path, what, *({"REDIS_URL": url} for url in urls), {"REDIS_URL": ""}, {})
    without = (True, "[None, 'default', 'streams.broker.Orm']")
    assert found == [*((True, f"['{url}', None, 'streams.broker.Redis']") for url in urls), without, without]


def test_another_redis_url_is_refused_without_telling_it(tmp_path: Path) -> None:
    expected = {
        "http://u:s3cr3t@h:6379": "It must begin with redis://, rediss:// or unix://.",
        "h:6379": "It must begin with redis://, rediss:// or unix://.",
        "redis://:s3cr3t/word@h:6379": "#, / and @ in a password are %23, %2F and %40.",
        "redis://h:6379?socket_timeout=s3cr3t": "It cannot be read as a URL",
    }
    found = settings_with(tmp_path, "1", *({"REDIS_URL": url} for url in expected))
    for (is_taken, said), words in zip(found, expected.values(), strict=True):
        assert not is_taken
        assert words in said
        assert "s3cr3t" not in said
    for url in (url for url in expected if "s3cr3t" in url):  # nor in the causes that a traceback shows
        assert "s3cr3t" not in python(SHOW.format(1), tmp_path, REDIS_URL=url).stderr


def test_https_makes_cookies_and_redirects_safe(tmp_path: Path) -> None:
    what = "s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_SSL_REDIRECT, s.SECURE_HSTS_SECONDS > 0, s.DEBUG"
    assert show(what, tmp_path) == "False False False False False"
    assert show(what, tmp_path, HTTPS="1") == "True True True True False"


def test_generated_keys_are_for_the_service_alone_and_stay(tmp_path: Path) -> None:
    keys = [show("s.SECRET_KEY, s.CREDENTIALS_KEYS", tmp_path) for _ in range(2)]
    assert keys[0] == keys[1]
    for name in ("secret_key", "credentials_key"):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"secret_key", "credentials_key"}
    assert show("s.SECRET_KEY", tmp_path / "another") not in keys[0]


def test_configured_keys_are_used_and_none_is_made(tmp_path: Path) -> None:
    assert show("s.SECRET_KEY, s.CREDENTIALS_KEYS", tmp_path, SECRET_KEY="x", CREDENTIALS_KEYS=KEY) == f"x ['{KEY}']"
    assert not (tmp_path / "data").exists()


def test_processes_that_start_together_agree_on_the_keys(tmp_path: Path) -> None:
    """They wait for one another to be ready, then all look for the keys at once."""
    code = (
        "import sys; import rtspsite.keys as k; from pathlib import Path; f = Path(sys.argv[1]);"
        "print(flush=True); sys.stdin.readline(); print(k.secret_key(f), k.credentials_key(f))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    pipe = subprocess.PIPE
    starting = [
        subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path), stdin=pipe, stdout=pipe, text=True)
        for _ in range(6)
    ]
    for process in starting:
        assert process.stdout
        process.stdout.readline()
    for process in starting:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    told = {process.communicate(timeout=60)[0] for process in starting}
    assert len(told) == 1
    assert len(told.pop().split()) == 2
    assert len(list((tmp_path / "data").iterdir())) == 2


# --- what is told about them ------------------------------------------------------------------------

EXAMPLE = dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.M))
ROWS = re.findall(r"^\| (`[A-Z0-9_`, ]+`) \| (.*?) \|", (ROOT / "docs/operations.md").read_text(), re.M)
TABLE = {name: default for names, default in ROWS for name in re.findall(r"`([A-Z0-9_]+)`", names)}
# Read by scripts/serve.sh and by gunicorn.
OF_SCRIPTS = {"SERVE_STOP_WITHIN_S": 25, "WEB_CONCURRENCY": 1}


def variables_read() -> dict[str, object]:
    """Each variable with its default; None for one that is worked out."""
    found: dict[str, object] = dict(OF_SCRIPTS)
    for file in ("rtspsite/settings.py", "streams/management/commands/prepare.py"):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name("env")), args=[ast.Constant(str(name)), default]):
                    found[name] = default.value if isinstance(default, ast.Constant) else None
    return found


def test_what_the_scripts_read_is_known_here() -> None:
    script = (ROOT / "scripts/serve.sh").read_text()
    read = set(re.findall(r"\$\(setting ([A-Z_]+)", script)) | set(re.findall(r"\$\{([A-Z_]+):-", script))
    of_the_machine = {"PYTHON", "APP_DIR", "TMPDIR"}
    assert read - of_the_machine <= variables_read().keys()
    for name in read & OF_SCRIPTS.keys():
        assert f"${{{name}:-{OF_SCRIPTS[name]}}}" in script


def test_each_variable_is_told_in_both_places_and_no_other_is() -> None:
    assert set(variables_read()) == set(EXAMPLE) == set(TABLE)


def test_no_setting_of_whoever_runs_the_tests_reaches_them() -> None:
    """A bucket or a database that is in use would lose what is in it."""
    of_commands = {*OF_SCRIPTS, *(name for name in variables_read() if name.startswith("DJANGO_SUPERUSER"))}
    assert set(variables_read()) - of_commands <= {*test_environment.OURS, *test_environment.OTHERS.split()}


@pytest.mark.parametrize(("name", "default"), variables_read().items())
def test_the_defaults_that_are_told_are_the_ones_that_hold(name: str, default: object) -> None:
    match default:
        case bool():
            assert (EXAMPLE[name], TABLE[name]) == (str(int(default)), "on" if default else "off")
        case int() | float():
            assert (EXAMPLE[name], TABLE[name]) == (f"{default:g}", f"{default:g}")
        case str() if default:
            assert EXAMPLE[name] == default
            assert TABLE[name].strip("`").startswith(default)
        case "":
            assert EXAMPLE[name] == ""


def test_each_variable_of_the_example_is_explained_before_it() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    explained = False
    for line in lines:
        if line.startswith("# "):
            explained = not line.startswith("# ---")
        assert explained or not re.match(r"#[A-Z]", line), line
