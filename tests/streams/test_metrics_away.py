"""What Prometheus reads while the database or the broker is away: websites as processes of their own."""

from pathlib import Path

from tests.e2e.prepared import prepare_sqlite
from tests.servers import Redis
from tests.streams.builders import SECRET
from tests.streams.test_health import probe, unused_port
from tests.streams.test_metrics import Labels, told


def test_without_the_database_it_says_so_and_no_more(tmp_path: Path) -> None:
    url = f"postgres://keeper:{SECRET}@127.0.0.1:{unused_port()}/name"
    answers, _ = probe(tmp_path, "/metrics", DATABASE_URL=url)
    status, text = answers["/metrics"]
    assert status == 200
    found = told(text)
    assert set(found) == {"info", "build_info", "database_up", "broker_up", "storage_free_bytes"}
    assert found["database_up"] == found["broker_up"] == {(): 0.0}


def test_jobs_that_wait_in_redis_are_counted(tmp_path: Path, redis: Redis) -> None:
    url = redis.new_database()
    with redis.client(url) as broker:
        broker.rpush("django_q:rtspsite:q", "one", "two", "three")
    found = scrape_with_redis(tmp_path, url)
    assert found["broker_up"] == {(): 1.0}
    assert found["jobs_queued"] == {(): 3.0}


def test_without_redis_it_says_so_and_the_rest(tmp_path: Path) -> None:
    found = scrape_with_redis(tmp_path, f"redis://:{SECRET}@127.0.0.1:{unused_port()}/0")
    assert found["broker_up"] == {(): 0.0}
    assert "jobs_queued" not in found
    assert found["database_up"] == {(): 1.0}
    assert "streams" in found


def scrape_with_redis(folder: Path, url: str) -> dict[str, dict[Labels, float]]:
    """What a website says whose jobs wait in Redis."""
    prepare_sqlite(folder / "data/db.sqlite3")
    answers, done = probe(folder, "/metrics", REDIS_URL=url)
    assert answers["/metrics"][0] == 200
    assert SECRET not in done.stdout + done.stderr
    return told(answers["/metrics"][1])
