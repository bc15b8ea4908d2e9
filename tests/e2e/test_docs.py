"""What the documentation shows is true: its commands run, its JSON is answered, its links lead somewhere."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import click
import pytest
from typer.main import get_command

from cli.main import app
from pipeline.bundle import Manifest, default_bundle, default_models
from pipeline.verdict import WORDS
from scripts.verdict_docs import outcomes, remarks_table
from tests.server import ROOT, served

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])
RUN = ["integrating.md", "verdicts.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SELF = [sys.executable, "-c", "from cli.main import main; main()"]


def blocks(name):
    return BLOCK.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))


def part(name, text):
    return re.search(rf"<!-- {name}: [^>]*-->\n(.*?)\n?<!-- /{name} -->", text, re.DOTALL)[1]


@pytest.fixture(scope="module")
def url():
    with served() as address:
        yield address


def run(line, folder, url):
    words = shlex.split(line.replace("http://127.0.0.1:8000", url))
    if words[0] == "deepfake-detect":
        words = SELF + words[1:]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("name", RUN)
def test_a_page_runs_from_top_to_bottom(name, url, tmp_path, monkeypatch):
    """Each block in turn; one that shows what came out is compared with what came out."""
    monkeypatch.chdir(tmp_path)
    out, ran = "", 0
    for kind, text in blocks(name):
        if kind == "sh":
            for line in text.splitlines():
                done = run(line, tmp_path, url)
                assert done.returncode == 0, (line, done.stderr)
                out, ran = done.stdout, ran + 1
        elif kind == "python":
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(text.replace("http://127.0.0.1:8000", url), name, "exec"), {})
            out, ran = said.getvalue(), ran + 1
        elif kind == "json":
            shown, got = json.loads(text), json.loads(out)
            assert shown.pop("request_id") != got.pop("request_id")
            assert shown == got
        else:
            assert text == out
    assert ran


def commands():
    """Lines of code blocks, on every page, that call this project's own command."""
    for page in PAGES:
        for _, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in re.sub(r"\\\n\s*", " ", text).splitlines():
                if re.match(r"(?:DETECTOR_\w+=\S+ )*(?:\.venv/bin/)?deepfake-detect \w", line):
                    yield pytest.param(line, id=f"{page.name}: {line.strip()[:60]}")


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_and_its_options_exist(line):
    words = [w for w in shlex.split(line, comments=True) if not w.startswith("DETECTOR_")]
    group = get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    command = group.commands[words[1]]
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
    given = {w.split("=")[0] for w in words[2:] if re.match(r"--?[a-z]", w)}
    assert given <= known | {"--help"}


def test_every_make_target_exists():
    targets = set(
        re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for page in PAGES:
        named = re.findall(r"`make ([a-z0-9-]+)", page.read_text(encoding="utf-8"))
        assert set(named) <= targets, page.name


def anchors(text):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_every_extra_is_told_with_what_installs_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "docs" / "extras.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z]+)` \|.*\| (.+) \|$", text, re.MULTILINE))
    assert rows.keys() == project["optional-dependencies"].keys()
    for extra, command in rows.items():
        assert command.startswith("`make ") or f"'.[{extra}]'" in command or f"(#{extra})" in command
    named = set(re.findall(r"requirements/[\w-]+\.\w+", text))
    assert named
    assert all((ROOT / name).is_file() for name in named)


def test_what_a_page_says_of_an_extra_leads_to_its_installation():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert "the extra `" not in text or "extras.md)" in text, page.name


def test_what_is_generated_in_the_page_on_verdicts():
    text = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    manifest = Manifest.model_validate_json((default_bundle(default_models()) / "manifest.json").read_bytes())
    assert part("remarks", text) == remarks_table()
    assert part("outcomes", text) == outcomes(manifest)
    assert all(f"`{code}`" in text for code in WORDS)
