"""Composes deploy/kubernetes as `kubectl apply -k` does, and validates it against Kubernetes' own schemas, offline.

usage: python -m tests.kubernetes                  every folder with a kustomization.yaml; part of lint
       python -m tests.kubernetes show FOLDER      what a folder composes to, as YAML

It knows the part of kustomize that is used here, and refuses the rest. Names of generated objects do not end in a
hash of their content, and a file X that is not in the repository is read from ../X.example. A test compares the
result with that of kubectl, where it is installed.
"""

import base64
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy/kubernetes"
# The oldest that is still maintained somewhere, and a newer one.
VERSIONS = ("1.30.0", "1.34.0")
GENERATORS = (("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator"))
KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "replicas", "patches", *dict(GENERATORS).values()}
# Objects that belong to no namespace.
OF_THE_CLUSTER = {"Namespace", "PersistentVolume", "ClusterRole", "ClusterRoleBinding"}

Object = dict[str, Any]


class Wrong(Exception):
    """What a kustomization says and cannot mean."""


def folders() -> list[Path]:
    return sorted(file.parent for file in FOLDER.rglob("kustomization.yaml"))


def compose(folder: Path) -> list[Object]:
    """The objects that this folder stands for."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := set(said) - KNOWN:
        raise Wrong(f"{folder}: {sorted(unknown)} is not known here")
    objects: list[Object] = []
    for name in said.get("resources", []):
        path = folder / name
        found = compose(path.resolve()) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
        # Anchors share what they stand for; a patch must change one place alone.
        objects += [copy.deepcopy(one) for one in found]
    for kind, key in GENERATORS:
        for one in said.get(key, []):
            _generate(objects, folder, kind, one)
    for patch in said.get("patches", []):
        _patch(objects, patch)
    for replicas in said.get("replicas", []):
        for one in _named(objects, ("Deployment", "StatefulSet"), replicas["name"]):
            one["spec"]["replicas"] = replicas["count"]
    for image in said.get("images", []):
        for container in containers(objects):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    if namespace := said.get("namespace"):
        for one in objects:
            if one["kind"] not in OF_THE_CLUSTER:
                one["metadata"]["namespace"] = namespace
    return objects


def containers(objects: list[Object]) -> Iterator[Object]:
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield from one["spec"]["template"]["spec"]["containers"]


def variables(file: Path) -> dict[str, str]:
    """Of a file of NAME=value lines."""
    lines = (line for line in file.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def _generate(objects: list[Object], folder: Path, kind: str, said: Object) -> None:
    if unknown := set(said) - {"name", "behavior", "envs"}:
        raise Wrong(f"{folder}: {kind} {said['name']}: {sorted(unknown)} is not known here")
    found: dict[str, str] = {}
    for name in said["envs"]:
        file = folder / name
        found |= variables(file if file.exists() else folder.parent / f"{name}.example")
    if kind == "Secret":
        found = {name: base64.b64encode(value.encode()).decode() for name, value in found.items()}
    there = _named(objects, (kind,), said["name"])
    if (said.get("behavior") == "merge") != bool(there):
        raise Wrong(f"{folder}: {kind} {said['name']} is {'made twice' if there else 'not there to be merged with'}")
    if there:
        there[0]["data"] |= found
    else:
        made: Object = {"apiVersion": "v1", "kind": kind, "metadata": {"name": said["name"]}, "data": found}
        objects.append(made | ({"type": "Opaque"} if kind == "Secret" else {}))


def _named(objects: list[Object], kinds: tuple[str, ...], name: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds and one["metadata"]["name"] == name]


def _patch(objects: list[Object], said: Object) -> None:
    """Of JSON patches (RFC 6902) only test, add and replace."""
    targets = _named(objects, (said["target"]["kind"],), said["target"]["name"])
    if not targets:
        raise Wrong(f"a patch is for {said['target']}, which is not there")
    for step in yaml.safe_load(said["patch"]):
        *way, last = step["path"].removeprefix("/").split("/")
        place: Any = targets[0]
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key: Any = int(last) if isinstance(place, list) else last
        if step["op"] == "test":
            if place[key] != step["value"]:
                raise Wrong(f"a patch expects {step['value']!r} at {step['path']}")
        elif step["op"] == "replace" or (step["op"] == "add" and isinstance(place, dict)):
            place[key] = copy.deepcopy(step["value"])
        else:
            raise Wrong(f"{step['op']} at {step['path']} is not known here")


def complaints(objects: list[Object]) -> list[str]:
    """What Kubernetes' schemas say against these objects."""
    import kubernetes_validate

    found = []
    for one in objects:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = "/".join(map(str, error.absolute_path))
                found.append(f"{one['kind']} {one['metadata']['name']}, {where}: {error.message} ({version})")
    return found


def validate() -> int:
    composed = {folder: compose(folder) for folder in folders()}
    found = [f"{folder.relative_to(ROOT)}: {words}" for folder in composed for words in complaints(composed[folder])]
    for words in found:
        print(words, file=sys.stderr)
    count = sum(map(len, composed.values()))
    print(f"kubernetes: {count} objects of {len(composed)} folders, by the schemas of {' and '.join(VERSIONS)}")
    return 1 if found else 0


def main() -> int:
    if sys.argv[1:2] == ["show"]:
        print(yaml.safe_dump_all(compose(Path(sys.argv[2]).resolve()), sort_keys=False), end="")
        return 0
    return validate()


if __name__ == "__main__":
    sys.exit(main())
