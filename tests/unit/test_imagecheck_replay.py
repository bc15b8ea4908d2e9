"""A Dockerfile is carried out instruction by instruction, in trees that nothing leaves."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.roots import can_mount, tiny_root

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not can_mount(), reason="needs Linux, root and mounts of one's own")

FILE = """\
FROM tiny AS base
FROM base AS builder
ENV GREETING=hello TARGET=/opt
WORKDIR /src
COPY words words
COPY note.txt other.txt ./
RUN mkdir -p /opt/made \\
 && echo "$GREETING from $PWD" > /opt/made/greeting \\
 && cat words/* > /opt/made/words && ln -s greeting /opt/made/link
RUN rm /opt/made/words
FROM base AS last
ARG DAY
RUN mkdir /opt && mkdir /opt/made && echo "$DAY" > /opt/made/day
ENV PATH=/opt/bin:$PATH
WORKDIR /tmp
USER 10001:10002
COPY --from=builder /opt/made /opt/made
ENTRYPOINT ["sh", "-c"]
CMD ["serve"]
"""

BUILD = """
import json, sys
from pathlib import Path
from imagecheck.context import Context
from imagecheck.contents import files, size
from imagecheck.dockerfile import parse
from imagecheck.namespaces import layered, own_mounts, own_network
from imagecheck.replay import Replay, start

folder = Path(sys.argv[1])
own_mounts()
(folder / "out").mkdir()
stages = parse((folder / "Dockerfile").read_text())
replay = Replay(stages, Context(folder / "context"), folder / "base", folder / "out",
                arguments={"DAY": "friday", "ELSE": "no"}, outside={"MIRROR": "near"})
image = replay.build(sys.argv[2])
layers = [
    {"op": layer.instruction.op, "stage": layer.stage, "files": sorted(name for name, _ in files(layer))}
    for layer in image.layers
]
with layered(folder / "seen", image.folders) as root:
    texts = {
        str(p.relative_to(root)): p.read_text() for p in sorted((root / "opt").rglob("*")) if p.is_file()
    }
    own_network()
    with (folder / "said").open("w") as said:
        code = start(root, ["sh", "-c", sys.argv[3]], image.config, image.config.environment, said,
                     isolated=True).wait()
print(json.dumps({"layers": layers, "texts": texts, "code": code, "said": (folder / "said").read_text()}))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_root(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tmp_path: Path, base: Path) -> Path:
    """With a Dockerfile, what it copies, and the tree that it stands on."""
    (tmp_path / "base").symlink_to(base)
    context = tmp_path / "context"
    (context / "words" / "deep").mkdir(parents=True)
    (context / "words" / "one").write_text("one\n")
    (context / "words" / "two").write_text("two\n")
    (context / "words" / "deep" / "three.pyc").write_text("three\n")
    (context / "note.txt").write_text("note\n")
    (context / "other.txt").write_text("other\n")
    (context / ".dockerignore").write_text("**/*.pyc\n")
    (tmp_path / "Dockerfile").write_text(FILE)
    return tmp_path


def built(folder: Path, target: str, command: str = "true") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BUILD, str(folder), target, command],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )


def image(folder: Path, target: str, command: str = "true") -> dict[str, Any]:
    """Layers of the image, texts below its /opt, exit code and output of a command that is run in it."""
    done = built(folder, target, command)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_each_instruction_leaves_what_it_changed(folder: Path) -> None:
    layers = image(folder, "builder")["layers"]
    assert [layer["op"] for layer in layers] == ["WORKDIR", "COPY", "COPY", "RUN", "RUN"]
    assert [layer["files"] for layer in layers] == [
        [],
        ["/src/words/one", "/src/words/two"],
        ["/src/note.txt", "/src/other.txt"],
        ["/opt/made/greeting", "/opt/made/link", "/opt/made/words"],
        [],
    ]


def test_commands_see_the_folder_and_the_variables_of_their_stage(folder: Path) -> None:
    texts = image(folder, "builder")["texts"]
    assert texts["opt/made/greeting"] == "hello from /src\n"
    assert "opt/made/words" not in texts


def test_what_another_stage_made_is_copied_beside_what_is_there(folder: Path) -> None:
    found = image(folder, "last")
    assert sorted(found["texts"]) == ["opt/made/day", "opt/made/greeting", "opt/made/link"]
    assert {layer["stage"] for layer in found["layers"]} == {"last"}


def test_arguments_that_are_declared_are_seen_and_not_kept(folder: Path) -> None:
    found = image(folder, "last", 'echo "day $DAY else $ELSE mirror $MIRROR"')
    assert found["texts"]["opt/made/day"] == "friday\n"
    assert found["said"].split() == ["day", "else", "mirror"]


def test_an_isolated_command_is_first_and_has_no_rights(folder: Path) -> None:
    said = image(folder, "last", "echo $$ $PWD $PATH; id -u; id -g; id -G; cat /proc/self/status")["said"]
    lines = said.splitlines()
    assert lines[0].startswith("1 /tmp /opt/bin:")
    assert lines[1:4] == ["10001", "10002", "10002"]
    status = dict(line.split(":\t") for line in lines[4:] if ":\t" in line)
    assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_only_scratch_can_be_written(folder: Path) -> None:
    tried = (
        "for f in /tmp /dev/shm / /opt/made /root; do if echo x > $f/x; then echo $f; fi; done 2> /dev/null"
    )
    assert image(folder, "last", tried)["said"].split() == ["/tmp", "/dev/shm"]


def test_there_is_no_network_but_loopback(folder: Path) -> None:
    lines = image(folder, "last", "cat /proc/net/dev")["said"].splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_exit_code_is_the_commands(folder: Path) -> None:
    assert image(folder, "last", "exit 7")["code"] == 7


def test_nothing_of_it_is_seen_outside(folder: Path) -> None:
    image(folder, "last")
    assert list((folder / "seen").iterdir()) == []
    assert str(folder) not in Path("/proc/self/mounts").read_text()


def test_a_failed_command_says_what_it_said(folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM tiny AS base\nRUN echo so sorry && exit 3\n")
    done = built(folder, "base")
    assert done.returncode == 1
    assert "ended with 3:\nso sorry" in done.stderr


def test_what_the_context_lacks_is_not_copied(folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM tiny AS base\nCOPY words/deep /deep\n")
    done = built(folder, "base")
    assert done.returncode == 1
    assert "COPY words/deep: the build context has nothing of that name" in done.stderr
