"""What the README tells a newcomer is true: its commands run, and answer what it shows."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import httpx
import pytest

from pipeline.bundle import Manifest, default_bundle, default_models
from scripts.write_docs import limits, models_table
from service.settings import settings_table
from tests.server import ROOT, served

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [c for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for c in block.splitlines()]
SELF = [sys.executable, "-c", "from cli.main import main; main()"]


def part(name: str) -> str:
    return re.search(rf"<!-- {name}: [^>]*-->\n(.*?)\n?<!-- /{name} -->", README, re.DOTALL)[1]


def alike(a: object, b: object) -> bool:
    """Whether two JSON values have the same fields of the same kinds; numbers and lengths may differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return not a or not b or alike(a[0], b[0])
    number = (int, float)
    return type(a) is type(b) or (isinstance(a, number) and isinstance(b, number))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("newcomer")


@pytest.fixture(scope="module")
def url():
    with served() as address:
        yield address


def run(command: str, folder, url: str) -> subprocess.CompletedProcess:
    words = shlex.split(command.replace("http://127.0.0.1:8000", url))
    if words[0] == ".venv/bin/deepfake-detect":
        words = SELF + words[1:]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'clients' / 'python'}"
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_first_minutes_of_a_newcomer(folder, url):
    assert COMMANDS[0] == "make serve"
    sample, curl = COMMANDS[1:3]
    assert run(sample, folder, url).returncode == 0
    assert (folder / "sample.mp4").is_file()
    assert curl.startswith("curl ")
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    answer = json.loads(run(curl, folder, url).stdout)
    shown = json.loads(part("answer").removeprefix("```json\n").removesuffix("\n```"))
    assert alike(answer, shown)
    assert answer["model"]["digest"] == shown["model"]["digest"]


def test_scanning_gives_what_serving_gives(folder, url):
    table, lines, *_ = (c for c in COMMANDS if " scan " in c)
    run(COMMANDS[1], folder, url)
    assert run(table, folder, url).returncode in {0, 1, 2}
    answer = json.loads(run(lines, folder, url).stdout)["answer"]
    served_answer = json.loads(run(COMMANDS[2], folder, url).stdout)
    assert alike(answer, served_answer)
    for name in ("id", "verdict", "media", "coverage", "model"):
        assert answer[name] == served_answer[name]
    assert answer["probabilities"]["fake"] == pytest.approx(served_answer["probabilities"]["fake"], abs=1e-5)


def test_a_scan_of_a_folder_goes_on_and_leaves_the_judging_to_a_server(folder, url):
    first, again, remote = (c for c in COMMANDS if " scan --out " in c or " --server " in c)
    run(COMMANDS[1], folder, url)
    codes = [run(first, folder, url).returncode]
    held = (folder / "found.csv").read_bytes()
    codes += [run(again, folder, url).returncode, run(remote, folder, url).returncode]
    assert held.count(b"\n") == 2
    assert (folder / "found.csv").read_bytes() == held
    assert len(set(codes)) == 1
    assert codes[0] in {0, 1, 2}


def test_faces_that_are_cut_here_are_judged_there(folder, url):
    crop = next(c for c in COMMANDS if " crop " in c)
    curl = next(c for c in COMMANDS if c.endswith("/v1/detect/crops"))
    run(COMMANDS[1], folder, url)
    made = run(crop, folder, url)
    assert made.returncode == 0
    assert " ".join(curl.split()).split("--data-binary")[0] in " ".join(made.stderr.split()).replace('"', "'")
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    answer = json.loads(run(curl, folder, url).stdout)
    whole = json.loads(run(COMMANDS[2], folder, url).stdout)
    assert alike(answer, whole)
    for name in ("verdict", "media", "coverage", "model"):
        assert answer[name] == whole[name]
    assert answer["reasons"][-1].startswith("crops_given: ")


def test_every_command_is_run_or_is_a_make_target():
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for command in COMMANDS:
        name, *rest = shlex.split(command)
        assert name in {"make", "curl", ".venv/bin/deepfake-detect"}
        if name == "make":
            assert rest[0] in targets


def test_the_table_of_settings_is_the_settings():
    assert part("settings") == settings_table().strip()


def test_the_table_of_models_is_what_is_shipped():
    assert part("models") == models_table()


def test_what_is_said_of_the_model_is_what_was_measured():
    manifest = Manifest.model_validate_json((default_bundle(default_models()) / "manifest.json").read_bytes())
    assert part("limits") == limits(manifest)


UNDESCRIBED = {"GET /", "GET /docs", "GET /openapi.json"}
"""For people and tools; the document describes what programs ask."""


def routes_of_the_table() -> set[str]:
    """Methods and paths of the table of routes; a path among the words has the method of its row."""
    rows = re.search(r"## Routes\n\n(.*?)\n\n", README, re.DOTALL)[1].splitlines()[2:]
    found = set()
    for row in rows:
        named = re.findall(r"`((?:[A-Z]+ )?/[^`]*)`", row)
        method = named[0].split()[0]
        found |= {name if " " in name else f"{method} {name}" for name in named}
    return found


def test_the_table_of_routes_is_that_of_the_document():
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    told = routes_of_the_table()
    assert (told - described, described - told) == (UNDESCRIBED, set())


def test_what_the_document_leaves_out_is_served_all_the_same(url):
    for route in UNDESCRIBED:
        assert httpx.get(url + route.removeprefix("GET ")).status_code == 200, route
