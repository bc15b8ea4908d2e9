"""Small trees to be root of: enough of this machine to run a shell in."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("sh", "setpriv", "mkdir", "rm", "ln", "cat", "id", "sleep")


def can_mount() -> bool:
    """Whether this process may have mounts of its own."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("setpriv") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0


def tiny_root(folder: Path) -> Path:
    """A shell, a few programs and the libraries that they are linked with; return the folder."""
    for name in PROGRAMS:
        program = Path(shutil.which(name) or "/bin/false")
        _copy(program, folder / "bin" / name)
        linked = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            _copy(Path(library), folder / library.removeprefix("/"))
    for name in ("dev", "proc", "tmp", "root"):
        (folder / name).mkdir()
    (folder / "tmp").chmod(0o1777)
    folder.chmod(0o755)
    return folder


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source, target)
