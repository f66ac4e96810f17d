"""compose.yaml turned into `podman run`: a key that nothing here names fails a test until somebody decides on it."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from tests.e2e.service import ROOT
from tests.image.podman import READ_ONLY

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
Service = dict[str, Any]


def resolved(value: str, variables: dict[str, str]) -> str:
    """As Compose does it: `${NAME:-default}` from the variables, `$$` is a dollar."""
    found = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1]) or found[2], value)
    return found.replace("$$", "$")


def _each(option: str) -> Callable[[Any], list[str]]:
    return lambda values: [word for value in values for word in (option, str(value))]


def _one(option: str) -> Callable[[Any], list[str]]:
    return lambda value: [option, str(value)]


OPTIONS: dict[str, Callable[[Any], list[str]]] = {
    "init": lambda value: ["--init", "--init-path", "/usr/bin/catatonit"] if value else [],
    "read_only": lambda value: list(READ_ONLY) if value else [],
    "cap_drop": _each("--cap-drop"),
    "security_opt": _each("--security-opt"),
    "pids_limit": _one("--pids-limit"),
    "mem_limit": _one("--memory"),
    "shm_size": _one("--shm-size"),
    "tmpfs": _each("--tmpfs"),
    "user": _one("--user"),
    "group_add": _each("--group-add"),
    "stop_grace_period": lambda value: ["--stop-timeout", value.removesuffix("s")],
    "entrypoint": lambda value: ["--entrypoint", json.dumps(value)],
}
# Turned into something else by `Project` of test_compose.py: an image's name, a command, variables, volumes with the
# test's names; the health check run by hand, the order of the start waited for.
OTHERWISE = {
    "image", "command", "environment", "volumes",
    "healthcheck.test", "depends_on.keys.condition", "depends_on.database.condition",
}  # fmt: skip
# Not turned into anything, and why.
LEFT_OUT = {
    "build": "scripts/test-image.sh has built it",
    "healthcheck.interval": "systemd would have to time it",
    "healthcheck.start_period": "the same",
    "healthcheck.timeout": "the same",
    "logging.driver": "podman has no json-file",
    "logging.options.max-file": "the same",
    "logging.options.max-size": "the same",
    "network_mode": "all containers have this machine's network: another one needs nftables",
    "networks": "the same; --add-host names the others",
    "ports": "the same; HOST and PORT name what is published",
    "profiles": "a service with one is not started",
    "restart": "what a test has killed must stay dead",
}
# Services that are off by default: their images cannot be had here.
NOT_STARTED = {"redis": "redis:8-alpine", "store": "versity/versitygw:v1.8.0"}
# Beside the services.
AROUND = {
    "networks.default", "networks.inside.internal",
    "volumes.data", "volumes.keys", "volumes.database", "volumes.pictures",
}  # fmt: skip


def keys_of(service: Service) -> Iterator[str]:
    """What a service says, as dotted paths; of environment, and of whatever is a list, no more than the name."""
    for key, value in service.items():
        if isinstance(value, dict) and key != "environment":
            yield from (f"{key}.{inner}" for inner in keys_of(value))
        else:
            yield key


def options_of(service: Service, dotenv: dict[str, str]) -> list[str]:
    return [
        word
        for key, option in OPTIONS.items()
        if key in service
        for word in option(resolved(service[key], dotenv) if isinstance(service[key], str) else service[key])
    ]


def environment_of(service: Service, dotenv: dict[str, str]) -> dict[str, str]:
    """A variable without a value is passed on from .env, if it is there."""
    given = {
        name: dotenv.get(name) if value is None else resolved(value, dotenv)
        for name, value in service.get("environment", {}).items()
    }
    return {name: value for name, value in given.items() if value is not None}
