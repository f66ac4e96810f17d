"""CPU time and memory out of /proc: of texts, and of real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench.measure import cpu_of_stat, cpu_s, machine_busy_s, pss_bytes, pss_of_rollup, watch, with_its_parent

_BURN = "import time\nwhile time.process_time() < {}: pass\nprint('done', flush=True)\ninput()"


@pytest.fixture
def burnt() -> Iterator[subprocess.Popen[str]]:
    """A process that has used 0.3 s, and waits; its child had used 0.2 s and is gone."""
    run = f"subprocess.run([sys.executable, '-c', {_BURN.format(0.2)!r}], input='x', text=True)"
    child = f"import subprocess, sys\n{run}\n"
    with subprocess.Popen(
        [sys.executable, "-c", child + _BURN.format(0.3)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.readline()
        yield process
        process.kill()


def test_cpu_time_is_that_of_the_process_and_of_its_ended_children() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    fields = ["S", *map(str, range(4, 14)), str(ticks), str(2 * ticks), str(4 * ticks), str(8 * ticks), "18", "19"]
    assert cpu_of_stat(f"12 (a name) with) {' '.join(fields)}\n") == 15.0


def test_what_a_process_and_its_ended_child_used_is_found(burnt: subprocess.Popen[str]) -> None:
    assert 0.45 <= cpu_s(burnt.pid) < 5.0


def test_memory_is_the_proportional_set_size() -> None:
    assert pss_of_rollup("5-7 ---p 0 00:00 0 [rollup]\nRss: 900 kB\nPss:    342 kB\nPss_Anon: 5 kB\n") == 342 * 1024
    assert pss_of_rollup("") == 0


def test_a_running_process_has_memory(burnt: subprocess.Popen[str]) -> None:
    assert 1e6 < pss_bytes(burnt.pid) < 100e6


def test_a_process_that_is_gone_has_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert (cpu_s(process.pid), pss_bytes(process.pid)) == (0.0, 0)


def test_a_window_holds_what_was_used_in_it_alone(burnt: subprocess.Popen[str]) -> None:
    window = watch(lambda: {"burnt": {burnt.pid}, "nobody": set()}, 0.05, lambda: None)
    assert window.cpu_of(["burnt"]) < 0.2 / window.seconds, "what it used before is in it"
    assert window.pss_mean_bytes(["burnt", "nobody"]) == window.pss_mean_bytes(["burnt"]) > 1e6
    assert window.pss_max_bytes(["burnt"]) >= window.pss_mean_bytes(["burnt"])


def test_a_window_is_broken_off_where_what_is_measured_breaks_down() -> None:
    def check() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        watch(dict, 0.01, check)


def test_the_machine_was_busy_at_some_time() -> None:
    assert machine_busy_s() > 0


def test_a_child_ends_with_its_parent() -> None:
    command = with_its_parent([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], "KILL")
    parent = f"import subprocess\nchild = subprocess.Popen({command!r})\nprint(child.pid, flush=True)\nchild.wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = {process.stdout.readline().strip(), process.stdout.readline().strip()}
        assert "up" in said
        process.kill()
        # The child holds the other end of the pipe, which closes when it is gone.
        assert process.stdout.read() == ""
