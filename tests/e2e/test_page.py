"""The web page in a real browser, in front of a real server."""

import contextlib
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import av
import pytest

from service.keys import line_for
from tests import media
from tests.browser import CHROMIUM, chromium
from tests.bundles import tiny_bundle
from tests.server import LIMIT, Server, served

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
expect = sync_api.expect

KEY = "the-key-of-this-test"
HOSTILE = '<img src=x onerror="alert(1)"> & {{7*7}}.mp4'
TELL_VIOLATIONS = """addEventListener("securitypolicyviolation",
  (e) => console.error("policy: " + e.violatedDirective + " " + e.blockedURI));"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, of Debian's package chromium")


@pytest.fixture(scope="module")
def browser():
    expect.set_options(timeout=30_000)
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for name in ("another", "tiny"):
        tiny_bundle(path / name, name=name)
    (path / "DEFAULT").write_text("tiny\n")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    one = Server(tmp_path_factory.mktemp("server"), models, decoders=1, max_in_flight=1)
    yield one
    assert one.stop() == 0
    assert list(one.scratch.iterdir()) == []


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Files by name: a face, two faces, none, and what is no clip."""
    path = tmp_path_factory.mktemp("media")
    media.face_clip(path / "face.mp4")
    media.face_clip(path / "two.mp4", size=400, faces=2)
    media.write_clip(path / "none.mp4", media.pattern(30))
    media.header_then_garbage(path / "corrupt.mp4")
    (path / "text.mp4").write_bytes(media.TEXT)
    (path / "large.mp4").write_bytes(bytes(LIMIT + 1))
    media.still(path / "still.png", media.pattern(1, 320, 240)[0])
    with av.open(str(path / "face.mp4")) as clip:
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    media.write_clip(path / "old.avi", frames, codec="mpeg4")
    return path


@pytest.fixture
def visit(browser, server):
    """Opens a page; afterwards its console must hold no error and no violation of its policy.

    Chromium itself logs each answer that is an error and each request that was stopped, which is no
    defect of the page.
    """
    with contextlib.ExitStack() as stack:
        said = []

        def opened(url=server.url, **context):
            at = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context)
            stack.callback(at.close)
            page = at.new_page()
            page.on("console", lambda m: said.append(m.text) if m.type in {"error", "warning"} else None)
            page.on("pageerror", lambda e: said.append(str(e)))
            page.add_init_script(TELL_VIOLATIONS)
            page.goto(url)
            expect(page.locator("#card-name")).to_contain_text("of ", timeout=20_000)
            return page

        yield opened
        assert [text for text in said if not text.startswith("Failed to load resource")] == []


def judged(page, file):
    """Sends a file and waits until its verdict is shown."""
    page.set_input_files("#file", file)
    expect(page.locator("#verdict-words")).to_be_focused()


def failed(page, file):
    """Sends a file and waits until the page says why there is no answer."""
    page.set_input_files("#file", file)
    expect(page.locator("#trouble-title")).to_be_focused()


def played(page):
    """Seconds into the clip, once it has got there."""
    return page.locator("video").evaluate(
        """v => new Promise((resolve) => {
          const look = () => (v.seeking || v.readyState < 2 ? setTimeout(look, 10) : resolve(v.currentTime));
          look();
        })"""
    )


def painted(page):
    """Pixels of the boxes over the clip that are not clear."""
    return page.locator("#boxes").evaluate(
        """c => c.getContext("2d").getImageData(0, 0, c.width, c.height).data
               .filter((value, at) => at % 4 === 3 && value).length"""
    )


def pixel(page, x, y):
    """Red, green, blue and alpha of the boxes at a place in units of the picture's sides."""
    return page.locator("#boxes").evaluate(
        "(c, [x, y]) => [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data]", [x, y]
    )


def freed(server):
    """Waits until the server holds nothing of any clip."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        metrics = server.client.get("/metrics").text
        if "detector_requests_in_flight 0.0" in metrics and not list(server.scratch.iterdir()):
            return True
        time.sleep(0.05)
    return False


def test_a_clip_is_judged_shown_and_recorded(visit, server, clips):
    page, clip = visit(), clips / "face.mp4"
    judged(page, clip)
    answer = server.detect(clip.read_bytes()).json()
    timeline = answer["faces"][0]["timeline"]
    percent = f"{answer['probabilities']['fake']:.0%}"
    assert page.title().startswith("face.mp4")
    expect(page.locator("#announce")).to_contain_text(page.locator("#verdict-words").inner_text())
    assert answer["model"]["id"] == "tiny", "the default one, which is not the first"
    expect(page.locator("#record")).to_contain_text("tiny")
    expect(page.locator("#gauge .score")).to_contain_text(percent)
    expect(page.locator(".line .chip")).to_contain_text(percent)
    expect(page.locator("#coverage")).to_contain_text(f"at {len(timeline)} moments")
    expect(page.locator("#record")).to_contain_text(answer["media"]["sha256"])
    expect(page.locator("#record")).to_contain_text(answer["model"]["digest"])
    expect(page.locator("#same-bytes")).to_contain_text("finds the same")
    assert painted(page) > 500
    assert page.locator(".moment").count() == len(timeline)
    page.locator(".moment").nth(2).click()
    assert timeline[2]["start_s"] <= played(page) <= timeline[2]["end_s"]
    expect(page.locator(".moment").nth(2)).to_have_attribute("aria-current", "time")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert (saved["media"], saved["verdict"]) == (answer["media"], answer["verdict"])
    page.get_by_role("button", name="Check another clip").click()
    expect(page.locator("#file")).to_be_focused()
    judged(page, clips / "none.mp4")


def test_a_single_picture_is_called_one(visit, clips):
    page = visit()
    judged(page, clips / "still.png")
    expect(page.locator("#coverage")).to_contain_text("A single picture")
    expect(page.locator("#record")).to_contain_text("a single picture")
    expect(page.locator("#record")).to_contain_text("1 picture,")


def test_a_clip_without_a_face_has_no_verdict_and_says_why(visit, clips):
    page = visit()
    judged(page, clips / "none.mp4")
    expect(page.locator("#verdict-words")).to_have_text("No verdict")
    expect(page.locator("#verdict-meaning")).to_contain_text("nothing about whether the clip is genuine")
    expect(page.locator("#reasons")).to_contain_text("No face")
    expect(page.locator("#gauge")).to_be_hidden()
    expect(page.locator("#faces")).to_contain_text("No face was found")


def test_two_faces_have_a_timeline_each(visit, clips):
    page = visit()
    judged(page, clips / "two.mp4")
    expect(page.locator("#faces-title")).to_have_text("2 faces")
    assert page.locator(".chart").count() == 2
    expect(page.locator("#gauge .score")).to_contain_text("of the most suspicious face")
    page.locator(".chart").nth(1).click(position={"x": 200, "y": 30})
    heads = page.locator(".playhead").evaluate_all("all => all.map(h => h.style.left)")
    assert heads[0] == heads[1] != "0%"


def test_a_face_has_the_number_of_the_answer_wherever_it_is_named(visit, server, clips):
    page, clip = visit(), clips / "two.mp4"
    answer = server.detect(clip.read_bytes()).json()
    for face, track in zip(answer["faces"], (0, 3), strict=True):
        face |= {"track": track, "explanation": EXPLANATION}
    answer["reasons"] = ["over_threshold: the score 0.90 of face 3 is at or over 0.60"]
    answered(page, answer)
    judged(page, clip)
    names = ["Face 0", "Face 3"]
    assert page.locator(".line h3").all_text_contents() == names
    assert page.locator(".face h3").all_text_contents() == names
    expect(page.locator("#reasons")).to_contain_text("of face 3 is at or over")
    expect(page.locator("#faces-numbers")).to_contain_text("its track in the saved JSON")
    labels = page.locator(".chart, .map [role=img]").evaluate_all("all => all.map(e => e.ariaLabel)")
    labels += page.locator(".as-table caption").all_text_contents()
    assert sorted(re.search(r"face \d+", label, re.IGNORECASE)[0].lower() for label in labels) == (
        ["face 0"] * 3 + ["face 3"] * 3
    )
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [f"Face {face['track']}" for face in saved["faces"]] == names


@pytest.mark.parametrize(
    ("name", "title", "remedy"),
    [
        ("corrupt.mp4", "No frame can be decoded", "Not one picture"),
        ("text.mp4", "Not a supported picture or video", "Choose a video such as MP4"),
    ],
)
def test_what_can_not_be_judged_is_said_in_words(visit, server, clips, name, title, remedy):
    page = visit()
    failed(page, clips / name)
    expect(page.locator("#trouble-title")).to_have_text(title)
    expect(page.locator("#trouble-remedy")).to_contain_text(remedy)
    reference = re.search(r"Reference: (\w+)", page.locator("#trouble-detail").inner_text())[1]
    assert any(line.get("request_id") == reference for line in server.lines())
    page.get_by_role("button", name="Choose another clip").click()
    judged(page, clips / "face.mp4")


def test_a_file_that_is_too_large_is_not_even_sent(visit, clips):
    page, asked = visit(), []
    page.on("request", lambda request: asked.append(request.method))
    failed(page, clips / "large.mp4")
    expect(page.locator("#trouble-detail")).to_contain_text("this server takes 1.0 MB")
    assert "POST" not in asked


def test_the_server_has_the_last_word_on_size(browser, server, visit, clips):
    context = browser.new_context()
    context.route("**/about.json", lambda route: route.fulfill(status=404))
    page = context.new_page()
    page.goto(server.url)
    failed(page, clips / "large.mp4")
    expect(page.locator("#trouble-title")).to_have_text("Upload too large")
    context.close()


def test_a_busy_server_is_waited_for(visit, server, clips):
    """Another client holds the only place; it is let go when the page has been refused twice."""
    page, statuses = visit(), []
    page.on("response", lambda r: statuses.append(r.status) if r.url.endswith("explain=true") else None)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as other:
        head = ("POST /v1/detect HTTP/1.1", f"Host: {host}", "Content-Type: video/mp4", "Content-Length: 99")
        other.sendall("\r\n".join([*head, "", ""]).encode())
        while "detector_requests_in_flight 1.0" not in server.client.get("/metrics").text:
            time.sleep(0.02)
        page.set_input_files("#file", clips / "face.mp4")
        expect(page.locator("#waiting-why")).to_have_text("The server is busy with other clips.")
        expect(page.locator("#countdown")).to_have_text(re.compile(r"^\d+ seconds?$"))
        expect(page.locator("#announce")).to_contain_text("sent again in")
        page.get_by_role("button", name="Try now").click()
        while len(statuses) < 2:
            page.wait_for_timeout(20)
    expect(page.locator("#verdict-words")).to_be_focused()
    assert statuses[:2] == [503, 503]
    assert statuses[-1] == 200


def test_cancelling_while_it_is_sent_frees_the_server(visit, server, clips):
    page = visit()
    tools = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 20_000}
    tools.send("Network.emulateNetworkConditions", slow)
    page.set_input_files("#file", clips / "face.mp4")
    expect(page.locator("#sent-words")).to_contain_text("% of")
    while "detector_requests_in_flight 1.0" not in server.client.get("/metrics").text:
        time.sleep(0.02)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#start-note")).to_have_text("Cancelled. The server has dropped the clip.")
    expect(page.locator("#file")).to_be_focused()
    assert freed(server)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the decoder")
def test_cancelling_while_it_is_looked_at_frees_the_server(visit, server, clips):
    """The decoder is stopped, so that the clip would be looked at for ever."""
    page, pid = visit(), server.process.pid
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    for child in children:
        os.kill(child, signal.SIGSTOP)
    page.set_input_files("#file", clips / "face.mp4")
    expect(page.locator("#looked-words")).to_have_text("looking for faces")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#start-note")).to_contain_text("Cancelled")
    assert freed(server)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)
    judged(page, clips / "face.mp4")


def test_everything_can_be_done_with_the_keyboard(visit, server, clips):
    page = visit()

    def tab_to(selector):
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"the tab key does not lead to {selector}")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    with page.expect_file_chooser() as chooser:
        tab_to("#file")
        page.keyboard.press("Enter")
    chooser.value.set_files(clips / "face.mp4")
    expect(page.locator("#verdict-words")).to_be_focused()
    timeline = server.detect((clips / "face.mp4").read_bytes()).json()["faces"][0]["timeline"]
    tab_to(".moment")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for key, at in (("ArrowRight", 1), ("ArrowRight", 2), ("End", -1), ("ArrowLeft", -2), ("Home", 0)):
        page.keyboard.press(key)
        assert timeline[at]["start_s"] <= played(page) <= timeline[at]["end_s"]
    tab_to(".as-table summary")
    page.keyboard.press("Enter")
    rows = page.locator(".as-table tbody tr")
    expect(rows.first).to_be_visible()
    assert rows.count() == len(timeline)
    tab_to("#card summary")
    page.keyboard.press("Enter")
    expect(page.locator("#card-text h3").first).to_have_text("tiny")


def words_of_the_list(page):
    return page.locator(".clip .quiet").all_text_contents()


def chosen(page, *files):
    """Chooses several files and waits until none of them is left to look at."""
    page.set_input_files("#file", files)
    expect(page.locator("#queue-words")).to_have_text("All done")
    expect(page.locator("#queue-title")).to_be_focused()


def holding(page, which):
    """Holds back the one request of that number, from now on; gives the list that it will be in."""
    held, number = [], itertools.count(1)
    page.route("**/v1/detect*", lambda r: held.append(r) if next(number) == which else r.fallback())
    return held


def let_go(page, held):
    """Lets the request that is held back go on, once it is there."""
    while not held:
        page.wait_for_timeout(20)
    held[0].fallback()


def dropped(page, *paths):
    """Drops files or folders of the disk on the page."""
    tools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        tools.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})


def test_several_clips_are_looked_at_one_after_the_other(visit, server, clips):
    page, statuses = visit(), []
    page.on("response", lambda r: statuses.append(r.status) if r.request.method == "POST" else None)
    names = ["face.mp4", "text.mp4", "none.mp4", "large.mp4"]
    chosen(page, *(clips / name for name in names))
    assert statuses == [200] * 3, "no two at once, which the server would refuse"
    assert page.locator(".clip .name").all_text_contents() == names
    answer = server.detect((clips / "face.mp4").read_bytes()).json()
    assert words_of_the_list(page) == [
        f"{page.locator('#verdict-words').inner_text()}, {answer['probabilities']['fake']:.0%}",
        "Not a supported picture or video",
        "No verdict",
        "The file is too large",
    ]
    expect(page.locator("#report-name")).to_have_text("face.mp4")
    expect(page.locator(".clip[aria-current]")).to_contain_text("face.mp4")
    page.get_by_role("button", name="Show none.mp4").click()
    expect(page.locator("#verdict-words")).to_have_text("No verdict")
    expect(page.locator("#verdict-words")).to_be_focused()
    expect(page.locator("#report-name")).to_have_text("none.mp4")
    expect(page.locator("#same-bytes")).to_contain_text("finds the same")
    page.get_by_role("button", name="Show text.mp4").click()
    expect(page.locator("#trouble-title")).to_be_focused()
    page.get_by_role("button", name="Show face.mp4").click()
    expect(page.locator("#same-bytes")).to_contain_text("finds the same")
    assert painted(page) > 500
    assert 0 <= played(page) < 0.1
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert saved["media"] == answer["media"]


def test_a_list_grows_and_is_cleared(visit, clips):
    page = visit()
    judged(page, clips / "none.mp4")
    expect(page.locator("#queue")).to_be_hidden()
    page.get_by_role("button", name="Check another clip").click()
    chosen(page, clips / "text.mp4", clips / "none.mp4")
    expect(page.locator("#trouble-title")).to_be_visible()
    page.get_by_role("button", name="Choose another clip").click()
    expect(page.locator("#queue")).to_be_visible()
    chosen(page, clips / "face.mp4")
    expect(page.locator("#report-name")).to_have_text("face.mp4")
    assert page.locator(".clip").count() == 3
    page.get_by_role("button", name="Clear the list").click()
    expect(page.locator("#queue")).to_be_hidden()
    expect(page.locator("#file")).to_be_focused()
    judged(page, clips / "face.mp4")
    expect(page.locator("#queue")).to_be_hidden()


def test_clips_of_a_list_are_cancelled_one_by_one_or_all(visit, server, clips):
    page = visit()
    tools = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 20_000}
    tools.send("Network.emulateNetworkConditions", slow)
    page.set_input_files("#file", [clips / name for name in ("face.mp4", "two.mp4", "old.avi", "none.mp4")])
    expect(page.locator("#sent-words")).to_contain_text("% of")
    page.get_by_role("button", name="Cancel old.avi").press("Enter")
    expect(page.locator("#queue-title")).to_be_focused()
    page.get_by_role("button", name="Cancel face.mp4").click()
    expect(page.locator("#work-name")).to_have_text("two.mp4")
    assert words_of_the_list(page) == ["cancelled", "being looked at", "cancelled", "waiting"]
    page.get_by_role("button", name="Cancel the rest").click()
    expect(page.locator("#start-note")).to_contain_text("Cancelled")
    assert words_of_the_list(page) == ["cancelled"] * 4
    assert freed(server)
    tools.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    page.get_by_role("button", name="Try again two.mp4").click()
    page.get_by_role("button", name="Try again face.mp4").press("Enter")
    expect(page.locator("#queue-words")).to_have_text("All done")
    assert page.locator(".clip .name").all_text_contents() == ["old.avi", "none.mp4", "two.mp4", "face.mp4"]
    assert [words == "cancelled" for words in words_of_the_list(page)] == [True, True, False, False]


def test_a_result_is_read_while_others_are_looked_at(visit, server, clips):
    page = visit()
    held = holding(page, 2)
    page.evaluate(
        """window.said = [];
        new MutationObserver(() => said.push(document.getElementById("announce").textContent))
          .observe(document.getElementById("announce"), { childList: true })"""
    )
    page.set_input_files("#file", [clips / name for name in ("text.mp4", "face.mp4", "none.mp4")])
    expect(page.locator("#work-name")).to_have_text("face.mp4")
    page.get_by_role("button", name="Show text.mp4").click()
    expect(page.locator("#trouble-title")).to_be_focused()
    page.get_by_role("button", name="Show face.mp4").click()
    expect(page.locator("#work-title")).to_be_focused()
    expect(page.locator(".clip[aria-current]")).to_contain_text("face.mp4")
    page.get_by_role("button", name="Show text.mp4").press("Enter")
    expect(page.locator("#trouble-title")).to_be_focused()
    page.evaluate("said.length = 0")
    let_go(page, held)
    expect(page.locator("#queue-words")).to_have_text("All done")
    expect(page.locator("#trouble-title")).to_be_focused()
    expect(page.locator("#announce")).to_have_text("none.mp4: No verdict. All done.")
    assert len(page.evaluate("said")) == 2, "what became of each, and nothing of the way there"
    page.get_by_role("button", name="Show face.mp4").click()
    page.locator("video").evaluate("v => { v.loop = true; return v.play(); }")
    holding(page, 1)
    dropped(page, clips / "none.mp4")
    expect(page.locator("#work-title")).to_be_focused()
    assert page.locator("video").evaluate("v => v.paused")


UNREADABLE = "This file can not be read"


def test_a_file_that_is_gone_or_changed_is_not_blamed_on_the_connection(visit, clips, tmp_path):
    page, asked = visit(), []
    page.on("request", lambda request: asked.append(request.method))
    held = holding(page, 1)
    for name in ("first.mp4", "gone.mp4", "changed.mp4"):
        shutil.copy(clips / "none.mp4", tmp_path / name)
    (tmp_path / "empty.mp4").touch()
    page.set_input_files("#file", sorted(tmp_path.iterdir(), key=lambda path: "fgce".index(path.name[0])))
    expect(page.locator("#work-name")).to_have_text("first.mp4")
    (tmp_path / "gone.mp4").unlink()
    os.utime(tmp_path / "changed.mp4", (1e9, 1e9))
    let_go(page, held)
    expect(page.locator("#queue-words")).to_have_text("All done")
    assert words_of_the_list(page) == ["No verdict", UNREADABLE, UNREADABLE, "Empty body"]
    assert asked.count("POST") == 2
    page.get_by_role("button", name="Show gone.mp4").click()
    expect(page.locator("#trouble-remedy")).to_contain_text("Choose it again")
    expect(page.locator("#trouble-again")).to_be_hidden()


@pytest.mark.parametrize("gone", [True, False])
def test_a_file_that_goes_while_it_is_sent_is_told_from_a_broken_connection(visit, clips, tmp_path, gone):
    page, file = visit(), tmp_path / "clip.mp4"
    shutil.copy(clips / "none.mp4", file)

    def break_off(route):
        if gone:
            file.unlink()
        route.abort()

    page.route("**/v1/detect*", break_off)
    failed(page, file)
    expect(page.locator("#trouble-title")).to_have_text(UNREADABLE if gone else "The connection broke")
    expect(page.locator("#trouble-again")).to_be_visible(visible=not gone)


@pytest.mark.parametrize("name", ["face.mp4", "still.png"])
def test_a_file_that_went_after_its_answer_is_said_to_be_gone(visit, clips, tmp_path, name):
    page, file = visit(), tmp_path / name
    shutil.copy(clips / name, file)
    chosen(page, file, clips / "none.mp4")
    expect(page.locator("#same-bytes")).to_contain_text("finds the same")
    file.unlink()
    page.get_by_role("button", name="Show none.mp4").click()
    page.get_by_role("button", name=f"Show {name}").click()
    expect(page.locator("#unreadable")).to_be_visible()
    expect(page.locator("#unplayable")).to_be_hidden()
    expect(page.locator("#same-bytes")).to_contain_text("can no longer read the file")
    page.get_by_role("button", name="Show none.mp4").click()
    expect(page.locator("#verdict-words")).to_be_focused()
    expect(page.locator("#unreadable")).to_be_hidden()


def test_a_folder_is_told_from_a_clip(visit, tmp_path):
    page = visit()
    dropped(page, tmp_path)
    expect(page.locator("#trouble-title")).to_have_text(UNREADABLE)
    expect(page.locator("#trouble-remedy")).to_contain_text("Of a folder, choose the clips in it.")


def test_clips_are_asked_with_what_was_chosen_along_with_them(visit, clips):
    page, asked = visit(), []
    page.on("request", lambda r: asked.append(r.url.partition("?")[2]) if r.method == "POST" else None)
    held = holding(page, 2)
    page.set_input_files("#file", [clips / name for name in ("text.mp4", "face.mp4", "none.mp4")])
    expect(page.locator("#work-name")).to_have_text("face.mp4")
    page.get_by_role("button", name="Show text.mp4").click()
    page.get_by_role("button", name="Choose another clip").click()
    page.locator(".options summary").click()
    page.locator("#explain").uncheck()
    page.locator("#model-choice").select_option("another")
    let_go(page, held)
    expect(page.locator("#queue-words")).to_have_text("All done")
    page.set_input_files("#file", clips / "still.png")
    expect(page.locator("#record")).to_contain_text("model=another")
    assert asked == ["explain=true"] * 3 + ["model=another"]
    page.get_by_role("button", name="Show none.mp4").click()
    expect(page.locator("#record")).to_contain_text("explain=true")


def texts(count):
    return [{"name": f"{n}.mp4", "mimeType": "video/mp4", "buffer": media.TEXT} for n in range(1, count + 1)]


IN_VIEW = """(row) => {
  const [inner, outer] = [row, row.parentElement].map((e) => e.getBoundingClientRect());
  return inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
}"""


def test_a_long_list_keeps_the_clip_at_work_in_view(visit):
    page = visit()
    page.mouse.move(0, 0)
    held = holding(page, 20)
    page.set_input_files("#file", texts(32))
    expect(page.locator("#work-name")).to_have_text("20.mp4")
    rows, queue = page.locator(".clip"), page.locator("#queue-list")
    assert rows.nth(19).evaluate(IN_VIEW)
    assert page.evaluate("scrollY") == 0
    expect(queue).to_have_attribute("tabindex", "0")
    queue.focus()
    page.keyboard.press("Home")
    expect(queue).to_have_js_property("scrollTop", 0)
    later = holding(page, 5)
    let_go(page, held)
    expect(page.locator("#work-name")).to_have_text("25.mp4")
    expect(queue).to_have_js_property("scrollTop", 0)
    let_go(page, later)
    expect(page.locator("#queue-words")).to_have_text("All done")
    page.get_by_role("button", name="Show 32.mp4").press("Enter")
    expect(page.locator("#trouble-title")).to_be_focused()
    assert rows.nth(31).evaluate(IN_VIEW)
    page.get_by_role("button", name="Clear the list").click()
    chosen(page, *texts(2))
    expect(queue).not_to_have_attribute("tabindex", "0")


def test_a_phone_shows_all_of_a_long_list(visit):
    page = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    chosen(page, *texts(12))
    assert page.locator("#queue-list").evaluate("l => l.scrollHeight === l.clientHeight && l.tabIndex === -1")


def test_a_clip_that_is_dropped_joins_the_one_at_work(visit, clips):
    page = visit()
    held = holding(page, 1)
    page.set_input_files("#file", clips / "face.mp4")
    expect(page.locator("#work-name")).to_have_text("face.mp4")
    expect(page.locator("#queue")).to_be_hidden()
    dropped(page, clips / "none.mp4")
    expect(page.locator("#announce")).to_have_text("1 clip added. 2 to go.")
    assert words_of_the_list(page) == ["being looked at", "waiting"]
    expect(page.locator(".clip[aria-current]")).to_contain_text("face.mp4")
    let_go(page, held)
    expect(page.locator("#queue-title")).to_be_focused()
    expect(page.locator("#report-name")).to_have_text("face.mp4")
    expect(page.locator("#announce")).to_have_text("none.mp4: No verdict. All done.")


def refusing(page, which, status, **headers):
    """Refuses the one request of that number, from now on."""
    number = itertools.count(1)
    name = {401: "unauthorized", 503: "overloaded"}[status]
    body = json.dumps({"type": f"/problems/{name}", "title": name, "status": status})
    refusal = {"status": status, "headers": headers, "body": body}
    page.route("**/v1/detect*", lambda r: r.fulfill(**refusal) if next(number) == which else r.fallback())


def test_a_list_says_that_it_waits_for_the_server(visit, clips):
    page = visit()
    refusing(page, 1, 503, **{"Retry-After": "60"})
    page.set_input_files("#file", [clips / "none.mp4", clips / "text.mp4"])
    expect(page.locator("#queue-words")).to_have_text("2 to go, waiting for the server")
    assert words_of_the_list(page) == ["waiting for the server", "waiting"]
    held = holding(page, 1)
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#queue-words")).to_have_text("2 to go")
    assert words_of_the_list(page) == ["being looked at", "waiting"]
    let_go(page, held)
    expect(page.locator("#queue-words")).to_have_text("All done")


def test_a_list_that_waits_for_a_key_can_be_read_meanwhile(visit, clips):
    page = visit()
    refusing(page, 2, 401)
    page.set_input_files("#file", [clips / name for name in ("text.mp4", "none.mp4", "face.mp4")])
    expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#queue-words")).to_have_text("2 to go, waiting for a key")
    assert words_of_the_list(page)[1:] == ["waiting for a key"] * 2
    page.get_by_role("button", name="Show text.mp4").click()
    expect(page.locator("#trouble-title")).to_be_focused()
    page.get_by_role("button", name="Enter the key").click()
    expect(page.locator("#key")).to_be_focused()
    page.locator("#key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#queue-words")).to_have_text("All done")
    expect(page.locator("#queue-key")).to_be_hidden()
    expect(page.locator("#key-form")).to_have_attribute("hidden", "")


def test_who_reads_a_result_is_left_to_it_when_a_key_is_asked_for(visit, clips):
    page = visit()
    refusing(page, 2, 401)
    held = holding(page, 1)
    page.set_input_files("#file", [clips / name for name in ("large.mp4", "face.mp4", "none.mp4")])
    expect(page.locator("#work-name")).to_have_text("face.mp4")
    page.get_by_role("button", name="Show large.mp4").click()
    let_go(page, held)
    expect(page.locator("#announce")).to_have_text("The server asks for a key. 1 to go, waiting for a key.")
    expect(page.locator("#trouble-title")).to_be_focused()
    page.get_by_role("button", name="Enter the key").click()
    expect(page.locator("#key")).to_be_focused()


@pytest.mark.parametrize("broken", [{"model": {}}, {"media": {"duration_s": 2}}, None])
def test_a_result_is_shown_whole_or_not_at_all(visit, server, clips, broken):
    """An answer that the page does not understand, after one that it did."""
    page = visit()
    judged(page, clips / "face.mp4")
    page.get_by_role("button", name="Check another clip").click()
    answer = server.detect((clips / "face.mp4").read_bytes()).json() | {"verdict": "authentic"}
    answered(page, broken and answer | broken)
    failed(page, clips / "face.mp4")
    expect(page.locator("#trouble-title")).to_have_text("This page has failed")
    expect(page.locator("#result")).to_be_hidden()
    if broken:
        for part in ("#verdict-words", "#gauge", "#record", "#report-name"):
            expect(page.locator(part)).to_be_empty()


def test_the_page_says_that_it_takes_several(visit, clips):
    page = visit()
    expect(page.locator("#file")).to_have_accessible_name("Choose clips")
    expect(page.locator("#file")).to_have_accessible_description(
        re.compile("Several are looked at one after")
    )
    held = holding(page, 2)
    page.set_input_files("#file", [clips / "text.mp4", clips / "none.mp4"])
    expect(page.locator("#work-name")).to_have_text("none.mp4")
    page.get_by_role("button", name="Show text.mp4").click()
    dropped(page, clips / "face.mp4", clips / "two.mp4")
    expect(page.locator("#announce")).to_have_text("2 clips added. 3 to go.")
    expect(page.locator("#trouble-title")).to_be_focused()
    let_go(page, held)
    expect(page.locator("#queue-words")).to_have_text("All done")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(visit, clips, scheme):
    sync_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")

    def barriers():
        found = sync_playwright.Axe().run(page).response["violations"]
        return [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in found]

    assert barriers() == []
    page.locator("#card summary").click()
    judged(page, clips / "two.mp4")
    for summary in page.locator(".face summary").all():
        summary.click()
    assert barriers() == []
    page.get_by_role("button", name="Check another clip").click()
    failed(page, clips / "text.mp4")
    assert barriers() == []
    chosen(page, clips / "two.mp4", clips / "text.mp4")
    assert barriers() == []


def test_a_phone_shows_all_of_it_without_sideways_scrolling(visit, clips):
    page = visit(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)

    def widest():
        return page.evaluate("document.documentElement.scrollWidth")

    assert widest() == 360
    page.locator("#card summary").click()
    judged(page, clips / "two.mp4")
    for summary in page.locator(".face summary").all():
        summary.click()
    assert widest() == 360
    failing = {"name": "x" * 300 + ".mp4", "mimeType": "video/mp4", "buffer": media.TEXT}
    page.get_by_role("button", name="Check another clip").click()
    failed(page, failing)
    assert widest() == 360
    chosen(page, failing, failing)
    assert widest() == 360


def test_the_report_holds_the_digests(visit, clips):
    pypdf = pytest.importorskip("pypdf")
    page = visit(color_scheme="dark")
    page.evaluate("window.print = () => { window.printed = true }")
    judged(page, clips / "face.mp4")
    page.get_by_role("button", name="Print report").click()
    assert page.evaluate("window.printed")
    expect(page.locator("#same-bytes")).to_contain_text("finds the same")
    report = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4")))
    text = "".join("".join(sheet.extract_text() for sheet in report.pages).split())
    assert hashlib.sha256((clips / "face.mp4").read_bytes()).hexdigest() in text
    answer = re.search(r"sha256:[0-9a-f]{64}", text)
    assert answer
    for words in ("face.mp4", "explain=true", "0.400and0.600", "neverproof", "Request", "Time"):
        assert words in text
    assert "Checkanotherclip" not in text
    assert len(report.pages) <= 4


def test_a_key_is_asked_for_and_kept_in_memory_alone(visit, browser, models, tmp_path, clips):
    (tmp_path / "keys").write_text(line_for("test", KEY) + "\n")
    with served(models_dir=models, provider="cpu", api_keys_file=tmp_path / "keys") as url:
        page = browser.new_context().new_page()
        page.goto(url)
        expect(page.locator("#key")).to_be_focused()
        page.set_input_files("#file", clips / "face.mp4")
        expect(page.locator("#key")).to_be_focused()
        page.get_by_label("Key", exact=True).fill("another")
        page.keyboard.press("Enter")
        expect(page.locator("#start-note")).to_contain_text("does not know this key")
        page.get_by_label("Key", exact=True).fill(KEY)
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#verdict-words")).to_be_focused()
        expect(page.locator("#key-form")).to_be_hidden()
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert KEY not in page.content() + page.url
        page.reload()
        expect(page.locator("#key")).to_be_focused()
        page.set_input_files("#file", [clips / "none.mp4", clips / "text.mp4"])
        expect(page.locator("#key")).to_be_focused()
        assert words_of_the_list(page) == ["waiting for a key"] * 2
        page.get_by_label("Key", exact=True).fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#queue-title")).to_be_focused()
        assert words_of_the_list(page) == ["No verdict", "Not a supported picture or video"]
        page.context.close()


@pytest.mark.parametrize("name", ["old.avi", "still.png"])
def test_what_the_browser_can_not_play_is_judged_all_the_same(visit, clips, name):
    page = visit()
    judged(page, clips / name)
    unplayable = name == "old.avi"
    expect(page.locator("#unplayable")).to_be_visible(visible=unplayable)
    expect(page.locator("#still")).to_be_visible(visible=not unplayable)
    expect(page.locator("#video")).to_be_hidden()
    if unplayable:
        assert painted(page) > 500
        page.locator(".moment").nth(1).click()
        expect(page.locator(".moment").nth(1)).to_have_attribute("aria-current", "time")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_clip_is_dropped_or_pasted(visit, clips, way):
    page = visit()
    page.evaluate(
        """async ([way, bytes, name]) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], name, { type: "video/mp4" }));
          const given = { bubbles: true, cancelable: true };
          document.body.dispatchEvent(way === "drop"
            ? new DragEvent("drop", { ...given, dataTransfer: files })
            : new ClipboardEvent("paste", { ...given, clipboardData: files }));
        }""",
        [way, list((clips / "none.mp4").read_bytes()), HOSTILE],
    )
    expect(page.locator("#verdict-words")).to_have_text("No verdict")
    expect(page.locator("#report-name")).to_have_text(HOSTILE)
    assert page.locator("#result img:not(#still)").count() == 0


PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
EXPLANATION = {
    "method": "occlusion",
    "withheld": None,
    "frames": [
        {
            "time_s": 0.04,
            "fake": 0.9,
            "box": [10, 10, 50, 50],
            "region": [5, 5, 60, 60],
            "grid": [[0.0, 0.1, 0.2], [0.1, 0.9, 0.1], [0.0, 0.1, 0.0]],
            "faithfulness": {"deletion": 0.31, "random": -0.04, "area": 0.2},
            "overlay": None,
            "withheld": None,
        },
        {
            "time_s": 0.6,
            "fake": 0.8,
            "box": [10, 10, 50, 50],
            "region": [5, 5, 60, 60],
            "grid": None,
            "faithfulness": None,
            "overlay": None,
            "withheld": "not_better_than_random: taking away what the map names changes nothing",
        },
    ],
}


def answered(page, answer):
    """Has the page get this answer to its next clip."""
    body = f"event: answer\ndata: {json.dumps(answer)}\n\n"
    page.route("**/v1/detect*", lambda route: route.fulfill(content_type="text/event-stream", body=body))


def test_in_a_codec_that_was_not_calibrated_the_score_is_not_called_a_probability(visit, server, clips):
    page = visit()
    clip = clips / "face.mp4"
    answer = server.detect(clip.read_bytes()).json()
    answer["faces"][0]["thresholds"] = {"authentic_below": 0.0, "manipulated_above": 1.0}
    answer |= {"verdict": "uncertain", "reasons": ["codec_not_calibrated: found on clips in other codecs"]}
    answered(page, answer)
    judged(page, clip)
    expect(page.locator("#gauge .score")).to_contain_text("score, not a calibrated probability")
    expect(page.locator("#gauge")).to_contain_text("No score decides here")
    expect(page.locator("#gauge")).not_to_contain_text("probability of manipulation")
    expect(page.locator("#reasons")).to_contain_text("Codec not measured")


def test_heat_maps_evidence_and_moving_boxes_of_an_answer(visit, server, clips):
    page = visit()
    clip = clips / "face.mp4"
    answer = server.detect(clip.read_bytes()).json()
    (face,) = answer["faces"]
    assert all(moment["fake"] >= 0.6 for moment in face["timeline"])
    explanation = json.loads(json.dumps(EXPLANATION))
    explanation["frames"].append(explanation["frames"][0] | {"time_s": 1.2, "overlay": PNG})
    face |= {
        "explanation": explanation,
        "evidence": [{"time_s": 1.2, "fake": 0.9, "box": face["box"]}],
        "boxes": [{"time_s": 0.0, "box": [0, 0, 80, 80]}, {"time_s": 2.0, "box": [300, 200, 80, 80]}],
        "segments": [{"start_s": 0.0, "end_s": 0.04, "fake": 0.9}],
    }
    answer |= {
        "verdict": "manipulated",
        "reasons": ["over_threshold: the score 0.90 of face 0 is at or over 0.60"],
        "media": answer["media"] | {"provenance": {"c2pa": "present", "valid": None}},
        "receipt": "eyJ.a.b",
    }
    answered(page, answer)
    judged(page, clip)
    expect(page.locator("#verdict-words")).to_have_text("Signs of manipulation")
    expect(page.locator("#reasons")).to_contain_text("of face 0 is at or over")
    assert page.locator(".map").count() == 3
    expect(page.locator(".map [role=img]")).to_have_attribute("aria-label", re.compile("lies at the middle"))
    expect(page.locator(".map").nth(0)).to_contain_text(
        "the log-odds fall by 0.31; without as many at random they rise by 0.04"
    )
    expect(page.locator(".map").nth(1)).to_contain_text("Withheld. Taking away what")
    expect(page.locator(".map img")).to_have_attribute("src", PNG)
    expect(page.locator("#record")).to_contain_text("present; whether it is valid was not checked")
    expect(page.locator("#record")).to_contain_text("eyJ.a.b")
    page.locator(".jumps .jump", has_text="0:01.20").first.click()
    assert played(page) == pytest.approx(1.2, abs=0.02)
    left, middle = 180 / answer["media"]["width"], 160 / answer["media"]["height"]
    assert pixel(page, left, middle) == [255, 127, 63, 255], "an edge of the box, in the colour of its score"


SIGNED = "present and valid: the media are those that were signed; padding and the type box are not covered."


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            {"valid": True, "trusted": None, "signer": "<b>Eve</b>", "sources": ["trainedAlgorithmicMedia"]},
            f"{SIGNED} Its signer is not held against any list of whom to trust: anybody can have signed "
            "it, under any name. The name in its certificate: “<b>Eve</b>”. It says of its origin: "
            "generated by AI.",
        ),
        (
            {"valid": True, "trusted": False, "signer": "A”. It is trusted: “B", "generator": 'C" 2'},
            f"{SIGNED} Its signer does not come from whom this server trusts: anybody can have signed it, "
            "under any name. The name in its certificate: “A'. It is trusted: 'B”. Made, by its own account, "
            "with: “C' 2”.",
        ),
        (
            {"valid": True, "trusted": True, "sources": ["constructor", "toString", "digitalCapture"]},
            f"{SIGNED} Its signer comes from whom this server trusts. It says of its origin: constructor, "
            "toString, taken by a camera.",
        ),
        (
            {"valid": False, "codes": ["assertion.dataHash.mismatch"], "signer": "A", "generator": "B"},
            "present, but not valid (assertion.dataHash.mismatch): the file, or the manifest, was changed or "
            "is broken.",
        ),
        (
            {"valid": False},
            "present, but not valid: the file, or the manifest, was changed or is broken.",
        ),
        (
            {"valid": None, "unchecked": "too_large"},
            "present; whether it is valid was not checked (too large).",
        ),
    ],
)
def test_a_manifest_of_provenance_is_told_in_words(visit, server, clips, found, says):
    page = visit()
    clip = clips / "face.mp4"
    answer = server.detect(clip.read_bytes()).json()
    answer["media"]["provenance"] |= {"c2pa": "present", **found}
    answered(page, answer)
    judged(page, clip)
    told = page.locator("#record div", has=page.locator("dt", has_text="C2PA manifest"))
    expect(told.locator("dd")).to_have_text(says)
    names = [found[who] for who in ("signer", "generator") if who in found and found["valid"]]
    assert told.locator("bdi").count() == len(names), "each in an element of its own"


def test_the_documentation_of_the_routes_works_as_well(visit, server):
    """Swagger UI under its own policy: it draws the routes and asks one of them."""
    page = visit()
    page.goto(f"{server.url}/docs")
    models = page.locator(".opblock", has_text="/v1/models").first
    models.locator(".opblock-summary-control").click()
    models.get_by_role("button", name="Try it out").click()
    models.get_by_role("button", name="Execute").click()
    expect(models.locator(".responses-table.live-responses-table")).to_contain_text('"default": "tiny"')
