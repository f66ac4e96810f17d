"""What processes cost: CPU time and memory out of /proc, over a window of time."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PSS_READINGS = 5  # of one window; a reading of 64 recorders takes 30 ms of this process

Roles = Mapping[str, set[int]]
"""Process ids by what they do."""


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of time. CPU as seconds of one core per second; memory is the proportional set size (PSS)."""

    seconds: float
    cpu: dict[str, float]
    pss_bytes: tuple[dict[str, int], ...]
    """Readings, by role."""
    machine_cpu: float
    """All cores, everybody; the figures of this window are worth less where others had much of it."""

    def cpu_of(self, roles: Iterable[str]) -> float:
        return sum(self.cpu.get(role, 0.0) for role in roles)

    def pss_mean_bytes(self, roles: Iterable[str]) -> float:
        return fmean(self._sums(roles))

    def pss_max_bytes(self, roles: Iterable[str]) -> int:
        return max(self._sums(roles))

    def _sums(self, roles: Iterable[str]) -> list[int]:
        wanted = tuple(roles)
        return [sum(reading.get(role, 0) for role in wanted) for reading in self.pss_bytes]


def watch(roles_now: Callable[[], Roles], seconds: float, check: Callable[[], None]) -> Window:
    """Let it run for so long; `roles_now` is asked again each time, since processes come and go.

    `check` raises where what is measured has broken down.
    """
    began_s, before, machine_before = time.monotonic(), _cpu_s(roles_now()), machine_busy_s()
    readings = []
    for number in range(1, _PSS_READINGS + 1):
        time.sleep(max(0.0, began_s + seconds * number / _PSS_READINGS - time.monotonic()))
        check()
        readings.append({role: sum(map(pss_bytes, pids)) for role, pids in roles_now().items()})
    after, machine_after, took_s = _cpu_s(roles_now()), machine_busy_s(), time.monotonic() - began_s
    cpu = {role: (spent_s - before.get(role, 0.0)) / took_s for role, spent_s in after.items()}
    return Window(took_s, cpu, tuple(readings), (machine_after - machine_before) / took_s)


def _cpu_s(roles: Roles) -> dict[str, float]:
    return {role: sum(map(cpu_s, pids)) for role, pids in roles.items()}


def cpu_s(pid: int) -> float:
    """User and system time of a process and of its children that are gone; 0 for one that is gone itself.

    So the sum over a family lacks nothing when one of them ends: its parent has its time from then on.
    """
    try:
        return cpu_of_stat(Path(f"/proc/{pid}/stat").read_text())
    except OSError:
        return 0.0


def cpu_of_stat(text: str) -> float:
    """Seconds, out of /proc/PID/stat: utime, stime, cutime and cstime are fields 14 to 17 (proc(5))."""
    after_name = text.rpartition(")")[2].split()  # begins with field 3; a name may hold spaces
    return sum(map(int, after_name[11:15])) / _TICKS_PER_S


def pss_bytes(pid: int) -> int:
    """0 for a process that is gone."""
    try:
        return pss_of_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return 0


def pss_of_rollup(text: str) -> int:
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0  # a zombie has no memory


def machine_busy_s() -> float:
    """Seconds of all cores since the boot that were not idle; stolen ones count, they are lost too (proc(5))."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = fields[3:5]
    return (sum(fields) - idle - waiting) / _TICKS_PER_S


def cores() -> int:
    return len(os.sched_getaffinity(0))


def with_its_parent(command: list[str], number: str) -> list[str]:
    """The command, to be sent this signal when whoever starts it is gone, however it went (util-linux)."""
    return ["setpriv", "--pdeathsig", number, *command]
