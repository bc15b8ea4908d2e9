"""A manifest looked into in a process of its own: `python -m service.checker`, for who has no decoder's.

The C2PA library is native code: nothing but the end of its process ends it. The child reads one job as JSON
from standard input, confines itself as decoders do (`sandbox`), and writes its findings as JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from signal import SIGXCPU

from pipeline.credentials import NOT_ASKED, Credentials, Trust, credentials_of, library_places
from service.sandbox import Sandbox, allow_cpu, restrict, tie_to_parent

COMMAND = (sys.executable, "-P", "-m", "service.checker")
"""-P: nothing is imported from where the command happens to have been started."""
CHECK_S = 15.0
"""For looking into a manifest, at most."""
CHECK_CPU_S = 10.0
"""CPU time for the same. 100 MB are hashed three times in less than one second."""


def checked_apart(
    path: Path,
    container: str,
    trust: Trust,
    *,
    memory_bytes: int,
    sandbox: Sandbox,
    command: Sequence[str] = COMMAND,
    patience_s: float = CHECK_S,
) -> Credentials:
    """What the manifest of the file at `path` turns out to be, after `patience_s` at the latest.

    memory_bytes, sandbox: as of a decoder. The process is gone when this returns or raises, also where it is
    interrupted.
    """
    if not trust.check:
        return NOT_ASKED
    job = {
        "parent": os.getpid(),
        "path": str(path.resolve()),  # Landlock knows no links
        "container": container,
        "trust": asdict(trust),
        "memory_bytes": memory_bytes,
        "sandbox": sandbox,
    }
    try:
        return Credentials.model_validate_json(_answer(command, json.dumps(job).encode(), patience_s))
    except subprocess.TimeoutExpired:
        return Credentials(unchecked="timeout")
    except subprocess.CalledProcessError as e:
        return Credentials(unchecked="timeout" if e.returncode == -SIGXCPU else "failed")
    except (OSError, ValueError):
        return Credentials(unchecked="failed")


def _answer(command: Sequence[str], job: bytes, patience_s: float) -> bytes:
    """What the process writes. Raises TimeoutExpired, CalledProcessError or OSError."""
    with subprocess.Popen(  # noqa: S603 - this very program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        try:
            answer, _ = process.communicate(job, timeout=patience_s)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return answer


def main() -> int:
    """Do the one job."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what a library prints is no answer
    job = json.load(sys.stdin)
    if not tie_to_parent(job["parent"]):
        return 1
    path = Path(job["path"])
    restrict(job["memory_bytes"], path.parent, job["sandbox"], also=library_places())
    allow_cpu(CHECK_CPU_S)
    found = credentials_of(path, job["container"], Trust(**job["trust"]))
    answers.write(found.model_dump_json())
    answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
