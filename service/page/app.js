// What happens in which order: a clip is chosen, sent, waited for and shown.

import { markdown, measured } from "./card.js";
import { $, announce, el, showOnly } from "./dom.js";
import { bytes, length } from "./format.js";
import { Progress } from "./progress.js";
import { Queue } from "./queue.js";
import { saveJson, showRecord } from "./record.js";
import { Cancelled, Problem, ask, detect } from "./request.js";
import { showResult } from "./result.js";
import { Stage } from "./stage.js";
import { PASSING, REMEDIES, mayPass } from "./words.js";

const MOST_TRIES = 20;
const TITLE = document.title;
const VIEWS = ["start", "work", "trouble", "result"].map($);

let about = { max_upload_bytes: Infinity, version: "" };
let models = null;
/** Kept here and nowhere else. */
let key = null;
/** The clip whose result or problem is shown, and the one at work with what stops it. */
let opened = null;
let running = null;
/** Clips of a list that were looked at since there was none to look at. */
let settled = [];
let tell = () => {};

const stage = new Stage((time) => tell(time));
const progress = new Progress();
const queue = new Queue({ open, cancel });

function view(name, focused) {
  showOnly($(name), VIEWS);
  $("model-measured").hidden = name === "result";
  document.title = name === "result" ? `${opened.file.name} - ${TITLE}` : TITLE;
  if (name !== "result") stage.pause();
  if (name === "start" || name === "work") queue.point(name === "work" ? running?.clip : null);
  if (focused) $(focused).focus();
}

const isShown = (name) => !$(name).hidden;

/** Another clip may be chosen; a list of several stays, and goes on. */
function restart(note = "") {
  if (!queue.several) empty();
  stage.close();
  opened = null;
  $("start-note").textContent = note;
  $("start-note").hidden = !note;
  view("start", "file");
}

function empty() {
  running?.stop.abort();
  running = null;
  settled = [];
  queue.clear();
}

/** Several files are looked at one after the other; what is chosen later joins them. */
function choose(files) {
  const chosen = [...files];
  if (!chosen.length) return;
  $("file").value = "";
  if (!queue.several) empty();
  queue.add(chosen);
  if (!running || isShown("start")) view("work", "work-title");
  work();
}

/** Looks at the next clip, unless one is being looked at. */
async function work() {
  const clip = running ? null : queue.next;
  if (!clip) return;
  const mine = { clip, stop: new AbortController() };
  running = mine;
  clip.query = $("explain").checked ? { explain: true } : {};
  if ($("model-choice").value) clip.query.model = $("model-choice").value;
  queue.mark(clip, "working");
  if (isShown("work")) queue.point(clip);
  progress.begin(clip.file.name);
  if (!queue.several) stage.open(clip.file);
  try {
    checkSize(clip.file);
    const given = await patiently(clip, mine.stop.signal);
    if (running === mine) settle(clip, "done", { given });
  } catch (problem) {
    if (running !== mine) return;
    if (problem instanceof Problem && (problem.status === 401 || problem.status === 403)) askForKey(problem);
    else if (problem instanceof Cancelled) settle(clip, "cancelled");
    else settle(clip, "failed", { problem });
  }
}

function checkSize({ size }) {
  if (size <= about.max_upload_bytes) return;
  const detail = `The file has ${bytes(size)}; this server takes ${bytes(about.max_upload_bytes)}. It was not sent.`;
  throw new Problem({ type: "/problems/upload-too-large", status: 413, title: "The file is too large", detail });
}

/** Notes what became of the clip at work, and goes on. */
function settle(clip, state, outcome) {
  running = null;
  clip.at = new Date();
  queue.mark(clip, state, outcome);
  if (!queue.several) {
    if (state === "cancelled") restart("Cancelled. The server has dropped the clip.");
    else open(clip);
    return;
  }
  announce(`${clip.file.name}: ${queue.words(clip)}. ${$("queue-words").textContent}.`);
  settled.push(clip);
  if (queue.next) work();
  else finish();
}

/** Shows the first of the clips that were looked at, unless somebody is reading about another one. */
function finish() {
  const first = settled.find(({ given, problem }) => given || problem);
  settled = [];
  if (!isShown("work")) return;
  if (first) open(first, "queue-title");
  else restart("Cancelled. The server has dropped the clips.");
}

function cancel(clip) {
  if (running?.clip === clip) running.stop.abort();
  else queue.mark(clip, "cancelled");
}

/** Shows a clip of the list: its result, its problem, or how far it is. */
function open(clip, focused) {
  if (clip === running?.clip) {
    view("work", "work-title");
    return;
  }
  if (queue.several) stage.open(clip.file);
  opened = clip;
  if (clip.problem) fail(clip.problem, focused);
  else succeed(clip, focused);
  queue.point(clip);
}

/** Sends the clip, again after a while for as long as the server says that it has no room. */
async function patiently({ file, query }, signal) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await detect(file, {
        query,
        key,
        signal,
        sent: (share) => progress.sent(share, file.size),
        event: (name, data) => name === "progress" && progress.looked(data),
      });
    } catch (problem) {
      if (!(problem.name in PASSING) || tries >= MOST_TRIES) throw problem;
      await progress.wait(PASSING[problem.name], problem.retryAfter ?? 5, signal);
    }
  }
}

function fail(problem, focused = "trouble-title") {
  $("trouble-title").textContent = problem.title || "This page has failed";
  $("trouble-remedy").textContent = REMEDIES[problem.name] || "";
  const reference = problem.requestId ? ` Reference: ${problem.requestId}` : "";
  $("trouble-detail").textContent = `${problem.message.replace(/\.$/, "")}.${reference}`;
  $("trouble-again").hidden = problem instanceof Problem && !mayPass(problem);
  view("trouble", focused);
}

function succeed({ file, query, at, given: { answer, requestId } }, focused = "verdict-words") {
  view("result");
  tell = showResult(answer, (time, into) => stage.seek(time, into));
  showRecord(answer, { file, query, requestId, at, version: about.version });
  stage.show(answer);
  if (models) showModel(answer.model.id);
  else meetModels();
  $(focused).focus();
  announce(`${$("verdict-words").textContent}. ${answer.summary}`);
}

function askForKey(problem) {
  if (running) {
    running.stop.abort();
    queue.mark(running.clip, "waiting");
    running = null;
  }
  $("key-form").hidden = false;
  const refused = problem.status === 403 && key !== null;
  key = null;
  const words = refused ? "The server does not know this key. Check it, or ask its operator." : "";
  $("start-note").textContent = words;
  $("start-note").hidden = !words;
  view("start", "key");
}

/** What the page says of the server and its models before a clip is sent. */
async function introduce() {
  $("host").textContent = location.host;
  try {
    about = await ask("page/about.json");
    $("limits").textContent =
      `MP4, MOV, WebM, MKV, AVI, GIF and more, up to ${bytes(about.max_upload_bytes)}; ` +
      `the first ${length(about.max_duration_s)} are looked at`;
    $("version").textContent = about.version;
    $("docs").hidden = !about.docs;
  } catch {
    // The page does without; the server says its limits when they are reached.
  }
  await meetModels();
}

async function meetModels() {
  try {
    models = await ask("v1/models", key);
  } catch (problem) {
    if (problem.status === 401 || problem.status === 403) askForKey(problem);
    return;
  }
  $("key-form").hidden = true;
  const option = ({ id }) => {
    const standard = id === models.default;
    return el("option", { value: standard ? "" : id, selected: standard }, standard ? `${id} (default)` : id);
  };
  $("model-choice").replaceChildren(...models.models.map(option));
  $("model-choice").disabled = models.models.length < 2;
  showModel(models.default);
}

async function showModel(id) {
  if ($("card").dataset.model === id) return;
  try {
    const { card, manifest } = await ask(`v1/models/${encodeURIComponent(id)}`, key);
    const words = measured(manifest);
    if (words) $("model-measured").textContent = `${id}: ${words}`;
    $("limits-measured").textContent = words || "";
    $("limits-measured").hidden = !words;
    $("card-name").textContent = ` of ${id}`;
    $("card-text").replaceChildren(markdown(card, 3));
    $("card").dataset.model = id;
  } catch {
    $("card-text").replaceChildren(el("p", {}, "The model card can not be had at the moment."));
  }
}

function listen() {
  $("file").addEventListener("change", (event) => choose(event.target.files));
  $("cancel").addEventListener("click", () => running?.stop.abort());
  $("queue-cancel").addEventListener("click", () => queue.left.reverse().forEach(cancel));
  $("queue-clear").addEventListener("click", () => {
    empty();
    restart();
  });
  $("trouble-again").addEventListener("click", () => {
    queue.mark(opened, "waiting");
    view("work", "work-title");
    work();
  });
  for (const id of ["trouble-other", "another"]) $(id).addEventListener("click", () => restart());
  $("print").addEventListener("click", () => window.print());
  $("save").addEventListener("click", () => saveJson(opened.given.text, opened.given.answer.id));
  $("model-choice").addEventListener("change", (event) => showModel(event.target.value || models.default));
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = $("key").value.trim();
    $("key").value = "";
    $("start-note").hidden = true;
    if (queue.next) {
      view("work", "work-title");
      work();
    } else {
      meetModels();
    }
  });
  document.addEventListener("paste", (event) => choose(event.clipboardData.files));
  listenToDrops();
}

function listenToDrops() {
  const over = (event, shows) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    $("over").hidden = !shows;
  };
  document.addEventListener("dragenter", (event) => over(event, true));
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && over(event, false));
  document.addEventListener("drop", (event) => {
    over(event, false);
    choose(event.dataTransfer.files);
  });
}

listen();
introduce();
