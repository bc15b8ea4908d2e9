"""What a confined process can not do and what it still can, tried out in real ones."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.bundle import open_bundle
from pipeline.credentials import Trust
from pipeline.media import Limits
from service.child import DecoderConfig
from service.job import Job, Looked
from service.sandbox import MEASURES, Confinement
from service.workers import DecoderPool
from tests.bundles import tiny_bundle
from tests.media import animation, face_clip, still, write_clip

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 1 << 30

PRELUDE = """
import ctypes, errno, fcntl, json, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path
from service import seccomp
from service.sandbox import allow_cpu, restrict

scratch, outside = Path(sys.argv[1]) / "scratch", Path(sys.argv[1]) / "outside"
libc = ctypes.CDLL(None, use_errno=True)

def tried(attempt):
    try:
        result = attempt()
    except (OSError, RuntimeError, ValueError) as e:
        return errno.errorcode[e.errno] if isinstance(e, OSError) else str(e)
    return result if isinstance(result, (str, int, list)) else "done"

def called(number, *arguments):
    words = [ctypes.c_long(a) for a in arguments]
    if libc.syscall(ctypes.c_long(number), *words) < 0:
        raise OSError(ctypes.get_errno(), "")

def c(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def confine(sandbox="prefer"):
    return restrict(1 << 30, scratch, sandbox)
"""


def run(tmp_path, code, expected=0):
    """What a process prints as JSON that runs `code` in a directory with a scratch and an outside."""
    for name in ("scratch", "outside"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "clip").write_text("content", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PRELUDE + code, str(tmp_path)]
    ran = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == expected, ran.stderr
    return json.loads(ran.stdout) if ran.stdout else None


@cache
def lacking():
    """What this machine's kernel does not have, and why."""
    code = "import json; from pathlib import Path; from service.sandbox import restrict\n"
    code += f"print(json.dumps(restrict({MEMORY}, Path('/'), 'prefer').lacking))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    return json.loads(ran.stdout)


@pytest.fixture
def needs():
    """Skip a test where the kernel lacks a measure."""

    def check(name):
        if name in lacking():
            pytest.skip(f"this kernel has no {name}: {lacking()[name]}")

    return check


def test_attempts_to_reach_out_are_refused(tmp_path, needs):
    needs("seccomp")
    code = """
ours = socket.socket()
ours.bind(("127.0.0.1", 0))
theirs, _ = socket.socketpair()
confine()
print(json.dumps({
    "socket": tried(socket.socket),
    "socketpair": tried(socket.socketpair),
    "connect": tried(lambda: ours.connect(("127.0.0.1", 9))),
    "listen": tried(ours.listen),
    "send": tried(lambda: theirs.sendmsg([b"x"])),
    "exec": tried(lambda: os.execv("/bin/true", ["true"])),
    "fork": tried(os.fork),
    "spawn": tried(lambda: os.posix_spawn("/bin/true", ["true"], {})),
    "subprocess": tried(lambda: subprocess.run(["/bin/true"])),
    "kill": tried(lambda: os.kill(os.getppid(), 0)),
    "kill all": tried(lambda: os.kill(-1, 0)),
    "to be seen again": tried(lambda: c("prctl", 4, 1, 0, 0, 0)),
    "to outlive the parent": tried(lambda: c("prctl", 1, 0, 0, 0, 0)),
    "more memory": tried(lambda: c("setrlimit", 9, (ctypes.c_ulong * 2)(1 << 33, 1 << 33))),
    "limits of the parent": tried(lambda: c("prlimit", os.getppid(), 4, (ctypes.c_ulong * 2)(0, 0), None)),
    "signals to the parent": tried(lambda: fcntl.fcntl(theirs, fcntl.F_SETOWN, os.getppid())),
}))
"""
    attempts = run(tmp_path, code)
    assert set(attempts.values()) == {"EPERM"}, attempts


def test_files_can_not_be_changed(tmp_path, needs):
    needs("seccomp")
    code = """
clip, new = scratch / "clip", scratch / "new"
confine()
print(json.dumps({
    "create": tried(lambda: os.open(new, os.O_RDONLY | os.O_CREAT)),
    "write": tried(lambda: new.write_bytes(b"x")),
    "append": tried(lambda: clip.open("a")),
    "update": tried(lambda: clip.open("r+")),
    "truncate": tried(lambda: os.open(clip, os.O_RDONLY | os.O_TRUNC)),
    "truncate by name": tried(lambda: os.truncate(clip, 0)),
    "nameless": tried(lambda: os.open(scratch, os.O_RDWR | os.O_TMPFILE)),
    "unlink": tried(clip.unlink),
    "rename": tried(lambda: clip.rename(new)),
    "link": tried(lambda: new.hardlink_to(clip)),
    "symlink": tried(lambda: new.symlink_to(clip)),
    "mkdir": tried(new.mkdir),
    "chmod": tried(lambda: clip.chmod(0o777)),
    "chown": tried(lambda: os.chown(clip, 0, 0)),
    "touch": tried(lambda: os.utime(clip)),
    "memory": tried(lambda: os.memfd_create("x")),
}))
"""
    attempts = run(tmp_path, code)
    assert set(attempts.values()) == {"EPERM"}, attempts
    assert [p.name for p in (tmp_path / "scratch").iterdir()] == ["clip"]
    assert (tmp_path / "scratch" / "clip").read_text(encoding="utf-8") == "content"


def test_all_that_is_listed_is_refused_by_the_kernel(tmp_path, needs):
    needs("seccomp")
    code = """
confine()
numbers = seccomp._numbers(" ".join(seccomp.REFUSED.values()), os.uname().machine)
absent = seccomp._numbers(seccomp.UNKNOWN, os.uname().machine)
print(json.dumps({name: tried(lambda n=n: called(n, *[-1] * 6)) for name, n in (numbers | absent).items()}))
"""
    attempts = run(tmp_path, code)
    assert {attempts.pop(name) for name in ("clone3", "openat2")} == {"ENOSYS"}
    assert len(attempts) > 80
    assert set(attempts.values()) == {"EPERM"}, attempts


def test_only_code_and_clips_whose_name_is_known_can_be_read(tmp_path, needs):
    needs("landlock")
    code = """
confine()
print(json.dumps({
    "clip": tried((scratch / "clip").read_text),
    "code": tried(lambda: len(Path(json.__file__).read_text()) > 0),
    "import": tried(lambda: __import__("colorsys")),
    "other clips": tried(lambda: os.listdir(scratch)),
    "outside": tried((outside / "clip").read_text),
    "by another way": tried((scratch / ".." / "outside" / "clip").read_text),
    "users": tried(Path("/etc/passwd").read_text),
    "the parent's environment": tried(Path(f"/proc/{os.getppid()}/environ").read_text),
    "the parent's memory": tried(Path(f"/proc/{os.getppid()}/mem").open),
}))
"""
    attempts = run(tmp_path, code)
    assert attempts.pop("clip") == "content"
    assert (attempts.pop("code"), attempts.pop("import")) == (True, "done")
    assert set(attempts.values()) == {"EACCES"}, attempts


@pytest.mark.parametrize("told", [True, False])
def test_a_package_that_lies_elsewhere_is_imported_later_if_it_was_told_of(tmp_path, needs, told):
    needs("landlock")
    package = tmp_path / "elsewhere" / "later"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("FOUND = True", encoding="utf-8")
    code = f"""
sys.path.append({str(package.parent)!r})
import importlib.util
importlib.util.find_spec("later")
restrict(1 << 30, scratch, "prefer", also=[Path({str(package)!r})] if {told} else [])
try:
    import later
    print(json.dumps(later.FOUND))
except (ImportError, PermissionError):
    print(json.dumps(False))
"""
    assert run(tmp_path, code) is told


def test_without_landlock_files_can_be_read_as_before(tmp_path, needs):
    """Threads that run already would stay free, so a process that has some is not said to be confined."""
    needs("seccomp")
    code = """
over = threading.Event()
threading.Thread(target=over.wait).start()
confinement = confine()
print(json.dumps([confinement.had, confinement.lacking, tried((outside / "clip").read_text)]))
over.set()
"""
    had, missing, read = run(tmp_path, code)
    assert had == ["no_new_privs", "undumpable", "seccomp"]
    assert missing == {"landlock": "Landlock: 2 threads run already"}
    assert read == "content"


def test_what_decoding_needs_goes_on(tmp_path, needs):
    needs("seccomp")
    code = """
confine()
found = []
threads = [threading.Thread(target=found.append, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({
    "threads": sorted(found),
    "memory": len(bytearray(1 << 24)),
    "chance": len(os.urandom(8)),
    "stack": resource.getrlimit(resource.RLIMIT_STACK) is not None,
    "itself": tried(lambda: os.kill(os.getpid(), 0)),
    "dumpable": libc.prctl(3, 0, 0, 0, 0),
}))
"""
    assert run(tmp_path, code) == {
        "threads": [0, 1, 2, 3],
        "memory": 1 << 24,
        "chance": 8,
        "stack": True,
        "itself": "done",
        "dumpable": 0,
    }


def test_threads_that_run_already_are_filtered_too(tmp_path, needs):
    needs("seccomp")
    code = """
ready, found = threading.Event(), []
def late():
    ready.wait()
    found.append(tried(socket.socket))
    found.append(Path("/proc/thread-self/status").read_text())
thread = threading.Thread(target=late)
thread.start()
confine()
ready.set()
thread.join()
print(json.dumps(found))
"""
    refused, status = run(tmp_path, code)
    assert refused == "EPERM"
    assert "Seccomp:\t2\n" in status
    assert "NoNewPrivs:\t1\n" in status


def test_switched_off_it_leaves_the_limits_alone(tmp_path):
    code = """
confinement = confine("off")
names = ("CORE", "FSIZE", "NOFILE")
print(json.dumps({
    "had": confinement.had,
    "lacking": sorted(confinement.lacking),
    "socket": tried(socket.socket),
    "limits": [resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1] for name in names],
    "write": tried(lambda: os.write(os.open(scratch / "new", os.O_CREAT | os.O_WRONLY), b"x")),
}))
"""
    assert run(tmp_path, code) == {
        "had": ["no_new_privs"],
        "lacking": ["landlock", "seccomp", "undumpable"],
        "socket": "done",
        "limits": [0, 0, 64],
        "write": "EFBIG",
    }


def test_memory_is_limited_to_what_was_allowed(tmp_path):
    code = """
confine()
def grab(size):
    try:
        return len(bytearray(size))
    except MemoryError:
        return None
print(json.dumps([grab(1 << 29), grab(3 << 29)]))
"""
    assert run(tmp_path, code) == [1 << 29, None]


def test_cpu_time_ends_a_process_that_goes_on(tmp_path, needs):
    needs("seccomp")
    code = """
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
confine()
allow_cpu(0.5)
while True: pass
"""
    run(tmp_path, code, expected=-signal.SIGXCPU)


def test_cpu_time_keeps_within_what_the_process_was_started_under(tmp_path):
    code = """
allow_cpu(1e30)
longest = resource.getrlimit(resource.RLIMIT_CPU)[0]
resource.setrlimit(resource.RLIMIT_CPU, (50, 50))
allow_cpu(100)
print(json.dumps([longest, resource.getrlimit(resource.RLIMIT_CPU)]))
"""
    assert run(tmp_path, code) == [2**31, [50, 50]]


def test_confinement_comes_back_as_it_was_sent():
    said = Confinement(("no_new_privs", "seccomp"), {"landlock": "Landlock: Function not implemented"})
    assert Confinement.from_bytes(said.to_bytes()) == said
    assert said.labels() == {
        "no_new_privs": "true",
        "undumpable": "false",
        "landlock": "false",
        "seccomp": "true",
    }
    assert Confinement.from_bytes(b'{"had": ["<script>"], "lacking": {}}').had == ()


def clips(folder):
    """One of each kind that is decoded in a way of its own."""
    with av.open(str(face_clip(folder / "face.mp4"))) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][:20]
    yield folder / "face.mp4"
    for name, codec in (("c.mkv", "libx264"), ("c.avi", "mpeg4"), ("c.ts", "libx264")):
        yield write_clip(folder / name, frames, codec=codec)
    for name in ("c.gif", "c.webp", "c.apng"):
        yield animation(folder / name, frames)
    for name in ("c.jpg", "c.png", "c.bmp", "still.webp"):
        yield still(folder / name, np.asarray(frames[0]))


@pytest.mark.parametrize("threads", [1, 2])
def test_media_of_every_kind_are_prepared_as_without_confinement(tmp_path, threads):
    manifest = open_bundle(tiny_bundle(tmp_path / "tiny")).manifest
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    media = list(clips(scratch))

    async def prepared(sandbox):
        config = DecoderConfig("yunet", None, False, MEMORY, Limits(), str(scratch), sandbox)
        pool = DecoderPool(config, size=1, clips=100, decode_timeout_s=60.0)
        await pool.start()
        found = {}
        try:
            for path in media:
                samples = []

                async def listener(told, samples=samples):
                    assert isinstance(told, Looked)
                    samples.append(told.samples)

                job = Job(path, manifest, 4, "0" * 64, threads=threads)
                deadline = asyncio.get_running_loop().time() + 60
                outline, _ = await pool.prepare(job, listener, deadline=deadline)
                found[path.name] = (outline, samples)
            return pool.confinement, found
        finally:
            await pool.stop()

    (_, free), (confinement, confined) = (asyncio.run(prepared(s)) for s in ("off", "prefer"))
    assert set(confinement.had) == set(MEASURES) - lacking().keys()
    assert list(confined) == [path.name for path in media]
    for name, (outline, samples) in confined.items():
        expected, theirs = free[name]
        assert outline.media == expected.media
        assert outline.faces_seen == expected.faces_seen >= 1, name
        assert [len(s) for s in samples] == [len(s) for s in theirs], name
        for ours, other in zip(samples, theirs, strict=True):
            np.testing.assert_array_equal(ours, other, err_msg=name)


def test_a_manifest_is_read_in_confinement(tmp_path, needs):
    """The library is loaded when the process is confined already."""
    pytest.importorskip("c2pa")
    from tests.credentials import Authority, changed, plain_file, within_the_media

    needs("landlock")
    manifest = open_bundle(tiny_bundle(tmp_path / "tiny")).manifest
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    authority = Authority()
    files = [
        authority.signed(plain_file(tmp_path / f"plain{suffix}"), scratch / f"signed{suffix}")
        for suffix in (".mp4", ".jpg", ".png")
    ]
    trust = Trust(signers=authority.pem)

    async def main():
        config = DecoderConfig("yunet", None, False, MEMORY, Limits(), str(scratch), "require", trust)
        pool = DecoderPool(config, size=1, clips=100, decode_timeout_s=60.0)
        await pool.start()

        async def ask(path):
            async def listener(_):
                pass

            deadline = asyncio.get_running_loop().time() + 60
            outline, _ = await pool.prepare(Job(path, manifest, 4, "0" * 64), listener, deadline=deadline)
            return outline.credentials

        try:
            sound = [await ask(path) for path in files]
            return sound, [await ask(changed(path, within_the_media(path))) for path in files[:2]]
        finally:
            await pool.stop()

    sound, tampered = asyncio.run(main())
    assert [(found.valid, found.trusted) for found in sound] == [(True, True)] * 3
    assert [(found.valid, found.trusted) for found in tampered] == [(False, None)] * 2


def test_a_decoder_is_confined_and_limited_as_seen_from_outside(tmp_path, needs):
    needs("seccomp")

    async def main():
        config = DecoderConfig("yunet", None, False, MEMORY, Limits(), str(tmp_path), "require")
        pool = DecoderPool(config, size=2, clips=100, decode_timeout_s=60.0)
        await pool.start()
        try:
            return [seen(child.pid) for child in pool._children]
        finally:
            await pool.stop()

    def seen(pid):
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
        threads = [p.read_text(encoding="ascii") for p in Path(f"/proc/{pid}/task").glob("*/status")]
        return {line[:26].strip(): line[26:].split()[:2] for line in limits}, threads

    for limits, threads in asyncio.run(main()):
        assert limits["Max core file size"] == limits["Max file size"] == ["0", "0"]
        assert limits["Max open files"] == ["64", "64"]
        soft, hard = map(int, limits["Max address space"])
        assert MEMORY < soft == hard < 16 * MEMORY
        assert threads
        for status in threads:
            assert "Seccomp:\t2\n" in status
            assert "NoNewPrivs:\t1\n" in status
