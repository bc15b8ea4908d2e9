"""A stand-in for the base image: the Debian that it is made of, with Debian's own Python of its version."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from imagecheck.dockerfile import DockerfileError

PACKAGES = ("ca-certificates", "netbase", "tzdata")
"""Debian's packages in the `slim` images of Python, beside essential ones and what Python itself needs."""
OF_THE_HOST = (
    "/etc/resolv.conf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pip.conf",
    "/etc/uv/uv.toml",
)
"""How the machine reaches its registries, which an engine would be told as well."""


class BaseError(Exception):
    """The stand-in can not be made here."""


def release(reference: str) -> tuple[str, str]:
    """Python's version and Debian's name in the name of a base image. Raises DockerfileError."""
    found = re.fullmatch(r"python:(\d+\.\d+)-slim-([a-z]+)(?:@sha256:[0-9a-f]{64})?", reference)
    if found is None:
        raise DockerfileError(f"{reference} is not a slim image of Python with Debian's name in its tag")
    return found[1], found[2]


def make_base(folder: Path, reference: str) -> None:
    """Make a folder; what is not finished never has its name. Raises DockerfileError or BaseError."""
    version, suite = release(reference)
    if shutil.which("debootstrap") is None:
        raise BaseError("debootstrap is not installed (Debian's package of that name)")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    included = ",".join((*PACKAGES, "python3-venv"))
    command = ["debootstrap", "--variant=minbase", f"--include={included}", suite, str(part)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise BaseError(f"debootstrap failed: {_last_line(done.stdout + done.stderr)}")
    if not (part / f"usr/bin/python{version}").exists():
        raise BaseError(f"Debian's {suite} has no Python {version}")
    for name in ("python", "python3"):
        (part / "usr/local/bin" / name).symlink_to(f"/usr/bin/python{version}")
    for path in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(part / path)
        (part / path).mkdir()
    for path in OF_THE_HOST:
        if Path(path).exists():
            copy = part / path.removeprefix("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.unlink(missing_ok=True)
            shutil.copyfile(path, copy)
    part.rename(folder)


def registries() -> dict[str, str]:
    """Variables of this process that say how pip and uv reach their registries."""
    named = re.compile(r"(PIP|UV|SSL_CERT)_\w+|\w+_proxy", re.IGNORECASE)
    return {"UV_SYSTEM_CERTS": "true"} | {k: v for k, v in os.environ.items() if named.fullmatch(k)}


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
