"""The Dockerfile names what exists, ships what it should and nothing more."""

import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from service.settings import load_settings, variables

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = ("cpu", "gpu")


@dataclass
class Stage:
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, op: str) -> list[str]:
        return [rest for o, rest in self.instructions if o == op]


def stages() -> dict[str, Stage]:
    """Stages by name, in the order of the file; lines that end in a backslash joined, comments dropped."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", " ", code).splitlines():
        op, _, rest = line.strip().partition(" ")
        if op == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(base)
        elif op:
            found[list(found)[-1]].instructions.append((op, rest))
    return found


STAGES = stages()


def chain(name: str) -> list[Stage]:
    """The stage and those it is built on, the last one first."""
    stage = STAGES[name]
    return [stage, *(chain(stage.base) if stage.base in STAGES else [])]


def final(name: str, op: str) -> list[str]:
    """What the stages that end up in an image say, base first."""
    return [rest for stage in reversed(chain(name)) for rest in stage.all(op)]


def environment(name: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for line in final(name, "ENV") for pair in line.split())


def sources() -> set[str]:
    """What COPY takes from the build context."""
    lines = [rest for stage in STAGES.values() for rest in stage.all("COPY") if not rest.startswith("--from")]
    return {source for line in lines for source in line.split()[:-1]}


def test_both_targets_exist_and_cpu_is_the_default() -> None:
    assert set(TARGETS) <= set(STAGES)
    assert list(STAGES)[-1] == "cpu"


def test_bases_are_pinned_by_tag() -> None:
    bases = {stage.base for stage in STAGES.values() if stage.base not in STAGES}
    assert bases
    for base in bases:
        _, _, tag = base.partition(":")
        assert re.match(r"\d+\.\d+-", tag), base
        assert "latest" not in tag


def test_everything_runs_on_the_python_it_was_installed_for() -> None:
    assert len({chain(name)[-1].base for name in STAGES}) == 1


def test_copied_files_exist() -> None:
    assert sources()
    assert [source for source in sorted(sources()) if not (ROOT / source).exists()] == []


def test_every_package_of_the_wheel_is_copied() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= sources()


def test_the_build_context_is_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    allowed = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    assert patterns[0] == "*"
    assert allowed == {source.partition("/")[0] for source in sources()}
    assert [path for path in sorted(allowed) if not (ROOT / path).exists()] == []


def test_every_install_is_by_hash_or_of_the_wheel_alone() -> None:
    runs = [rest for stage in STAGES.values() for rest in stage.all("RUN")]
    installs = [run for run in runs if re.search(r"pip (install|sync)|uv build", run)]
    assert len(installs) == 6
    assert [run for run in installs if "--require-hashes" not in run and "--no-deps /dist/" not in run] == []


@pytest.mark.parametrize("target", TARGETS)
def test_image_holds_the_environment_of_its_lock_and_no_more(target: str) -> None:
    assert final(target, "COPY") == [f"--from=builder-{target} /opt/venv /opt/venv"]
    locks = set(re.findall(r"requirements/(\w+)\.lock", " ".join(final(f"builder-{target}", "RUN"))))
    assert locks == {"uv", target}
    names = re.findall(
        r"(?m)^([\w.-]+)==", (ROOT / f"requirements/{target}.lock").read_text(encoding="utf-8")
    )
    assert "uvicorn" in names
    assert "torch" not in names
    assert "VIRTUAL_ENV=/opt/venv" in " ".join(final(f"builder-{target}", "ENV"))


@pytest.mark.parametrize("target", TARGETS)
def test_final_stages_install_no_compiler(target: str) -> None:
    packages = re.findall(r"apt-get install ([^&]*)", " ".join(final(target, "RUN")))
    assert [p for line in packages for p in line.split() if not p.startswith("-")] == ["tini=0.19.0-1*"]


@pytest.mark.parametrize("target", TARGETS)
def test_settings_are_ones_that_the_service_takes(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {k: v for k, v in environment(target).items() if k.startswith("DETECTOR_")}
    assert set(settings) <= set(variables())
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    loaded = load_settings()
    assert loaded.host == "0.0.0.0"
    assert loaded.provider == {"cpu": "cpu", "gpu": "require"}[target]
    assert final(target, "EXPOSE") == [str(loaded.port)]


@pytest.mark.parametrize("target", TARGETS)
def test_telemetry_is_off(target: str) -> None:
    """The variable is onnxruntime's own: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md."""
    assert environment(target)["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("target", TARGETS)
def test_runs_as_a_numbered_user_without_privileges(target: str) -> None:
    uid, _, gid = final(target, "USER")[-1].partition(":")
    assert int(uid) >= 1000
    assert int(gid) >= 1000
    assert f"useradd --uid {uid} " in " ".join(final(target, "RUN"))


@pytest.mark.parametrize("target", TARGETS)
def test_starts_the_command_of_the_distribution(target: str) -> None:
    init, _, command = json.loads(final(target, "ENTRYPOINT")[-1])
    assert init == "tini"
    assert command in PROJECT["project"]["scripts"]
    assert json.loads(final(target, "CMD")[-1]) == ["serve"]
    assert final(target, "STOPSIGNAL") == ["SIGTERM"]


def test_version_label_is_that_of_the_distribution() -> None:
    labels = dict(re.findall(r'(org\.opencontainers\.\S+)="([^"]*)"', " ".join(final("cpu", "LABEL"))))
    assert labels["org.opencontainers.image.version"] == PROJECT["project"]["version"]
    assert labels["org.opencontainers.image.licenses"] == PROJECT["project"]["license"]


@pytest.fixture
def live(request: pytest.FixtureRequest) -> Iterator[int]:
    """Port of a server that answers /livez with the given status, and everything else with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("live", "healthy"), [(200, True), (503, False)], indirect=["live"])
def test_healthcheck_tells_a_live_server_from_a_dead_one(live: int, healthy: bool) -> None:
    assert healthcheck(live) is healthy


def test_healthcheck_fails_where_nothing_listens() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler, bind_and_activate=False) as unbound:
        unbound.server_bind()
        assert healthcheck(unbound.server_port) is False


def healthcheck(port: int) -> bool:
    command = json.loads(final("cpu", "HEALTHCHECK")[-1].partition(" CMD ")[2])
    assert command[0] == "python"
    environ = {"DETECTOR_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, *command[1:]], env=environ, check=False, capture_output=True)
    return done.returncode == 0
