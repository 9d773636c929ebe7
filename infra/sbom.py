"""Writes the software bill of materials of .venv, or of a Docker image, as CycloneDX 1.6 in build/sbom/NAME.json.

make sbom          make sbom IMAGE=selftrain-worker

It names Python's packages, which pip of the image or of .venv reports, and in an image Debian's. It needs no network, and Docker for
an image only.
"""

import json
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

OUT = Path("build") / "sbom"
PIP = """
for python in /opt/selftrain/.venv/bin/python python3; do
  command -v $python >/dev/null && $python -m pip --version >/dev/null 2>&1 && exec $python -m pip inspect --local
done
echo '{"installed": []}'
"""
"""Shell: what pip of an image knows to be installed; nothing in an image without pip."""
DEBIAN = (
    r"dpkg-query --show --showformat '${binary:Package}\t${Version}\t${Architecture}\t${source:Package}\n'"
)


def python_component(package: dict[str, Any]) -> dict[str, Any]:
    """A row of `pip inspect`."""
    metadata = package["metadata"]
    name, version = metadata["name"], metadata["version"]
    purl = f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if expression := metadata.get("license_expression"):
        component["licenses"] = [{"expression": expression}]
    elif licenses := [
        text.split(" :: ")[-1] for text in metadata.get("classifier", []) if "License ::" in text
    ]:
        component["licenses"] = [{"license": {"name": text}} for text in licenses]
    return component


def debian_component(line: str) -> dict[str, Any]:
    """A line of `dpkg-query`."""
    name, version, architecture, source = line.split("\t")
    name = name.partition(":")[0]
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro=bookworm"
    return {
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        "properties": [{"name": "debian:source", "value": source}],
    }  # fmt: skip


def document(subject: dict[str, Any], components: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole bill; each component once."""
    unique = {component["bom-ref"]: component for component in components}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {"timestamp": datetime.now(UTC).isoformat(timespec="seconds"), "component": subject},
        "components": sorted(unique.values(), key=lambda component: str(component["bom-ref"])),
    }


def said(command: list[str]) -> str:
    """The output of a command; ends this one with a message if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not on PATH")
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} ... failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def of_environment() -> dict[str, Any]:
    """The bill of the Python that runs this."""
    installed = json.loads(said([sys.executable, "-m", "pip", "inspect", "--local"]))["installed"]
    subject = {"type": "application", "bom-ref": "selftrain", "name": "selftrain"}
    return document(subject, [python_component(package) for package in installed])


def of_image(name: str) -> dict[str, Any]:
    """The bill of a Docker image that is on this machine."""
    found = json.loads(said(["docker", "image", "inspect", name]))[0]
    shell = ["docker", "run", "--rm", "--network=none", "--entrypoint=sh", found["Id"], "-c"]
    components = [python_component(package) for package in json.loads(said([*shell, PIP]))["installed"]]
    components += [debian_component(line) for line in said([*shell, DEBIAN]).splitlines()]
    labels = found["Config"].get("Labels") or {}
    facts = {"docker:id": found["Id"], "git:commit": labels.get("org.opencontainers.image.revision")}
    subject = {
        "type": "container", "bom-ref": name, "name": name, "version": found["Id"],
        "properties": [{"name": key, "value": value} for key, value in facts.items() if value],
    }  # fmt: skip
    return document(subject, components)


def main() -> None:
    """Write the file, and say where."""
    image = sys.argv[1] if len(sys.argv) > 1 else None
    bill = of_image(image) if image else of_environment()
    path = OUT / f"{(image or 'environment').replace('/', '_').replace(':', '_')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bill, indent=1) + "\n")
    print(f"{path}: {len(bill['components'])} packages")


if __name__ == "__main__":
    main()
