"""The files of the web page: what is sent, what a browser may do with it, and that nothing is missing."""

import hashlib
import re
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from pipeline.verdict import WORDS
from service.web import INDEX, POLICY, page_files
from tests.bundles import tiny_bundle
from tests.running import Running

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "service" / "page"
SCRIPTS = sorted(name for name in page_files() if name.endswith(".js"))


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Not started: the page is there before the models are."""
    models = tmp_path_factory.mktemp("models")
    tiny_bundle(models / "tiny")
    one = Running(models, tmp_path_factory.mktemp("scratch"), max_upload_bytes=12_345, docs=False)
    yield one
    one.runner.close()


def test_the_page_is_served_under_its_own_policy(running):
    for method in ("GET", "HEAD"):
        response = running.ask(method, "/")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers.get_list("content-security-policy") == [POLICY]
        assert response.headers["x-content-type-options"] == "nosniff"
    assert "'unsafe" not in POLICY
    assert re.findall(r"https?:|\*", POLICY) == []


def test_the_page_has_a_title_for_every_reason():
    words = (PAGE / "words.js").read_text(encoding="utf-8")
    assert [code for code in WORDS if f"\n  {code}: " not in words] == []


@pytest.mark.parametrize("name", sorted(page_files()))
def test_a_file_is_sent_once_and_then_known(running, name):
    url = "/" if name == INDEX else f"/page/{name}"
    response = running.ask("GET", url)
    assert response.content == (PAGE / name).read_bytes()
    tag = response.headers["etag"]
    assert hashlib.sha256(response.content).hexdigest().startswith(tag.strip('"'))
    assert response.headers["cache-control"] == "no-cache"
    for told in (tag, f'"other", W/{tag}', "*"):
        again = running.ask("GET", url, headers={"if-none-match": told})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert running.ask("GET", url, headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2fweb.py", "__init__.py", "%00", "app.js%2f.."])
def test_nothing_else_is_sent(running, name):
    response = running.ask("GET", f"/page/{name}")
    assert (response.status_code, response.json()["type"]) == (404, "/problems/not-found")


def test_the_page_is_told_the_limits(running):
    told = running.ask("GET", "/page/about.json")
    assert told.json() | {"version": ""} == {
        "version": "",
        "docs": False,
        "max_upload_bytes": 12_345,
        "max_duration_s": 600.0,
        "max_faces": 8,
    }
    assert told.headers["cache-control"] == "no-cache"


def test_all_that_the_page_loads_is_there_and_of_this_server():
    text = (PAGE / INDEX).read_text(encoding="utf-8")
    loaded = re.findall(r'(?:src|href)="(?!#)([^"]+)"', text)
    assert {name.removeprefix("page/") for name in loaded} - {"docs"} <= page_files().keys()
    imported = {n for name in SCRIPTS for n in re.findall(r'from "\./([^"]+)"', (PAGE / name).read_text())}
    assert imported | {"app.js"} == set(SCRIPTS)
    for name in page_files():
        addresses = set(re.findall(r"https?://[^\s\"'<]+", (PAGE / name).read_text(encoding="utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg", "https://HOST/v1/detect"}, name


def test_scripts_find_the_elements_that_they_name():
    text = (PAGE / INDEX).read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    scripts = "".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    made = set(re.findall(r'\bid: "([^"]+)"', scripts))
    assert set(re.findall(r'\$\("([^"]+)"\)', scripts)) <= set(ids) | made
    named = re.findall(r'(?:for|aria-labelledby|aria-describedby)="([^"]+)"', text)
    assert {one for several in named for one in several.split()} <= set(ids)
    assert not re.search(r'\sstyle="|\son\w+="', text), "the policy forbids them"


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_text_becomes_markup(name):
    script = (PAGE / name).read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script
    )


def test_the_wheel_holds_the_page():
    included = {f.distribution_path for f in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {f"service/page/{name}" for name in page_files()} <= included
