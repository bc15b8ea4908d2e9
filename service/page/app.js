// What happens in which order: clips are chosen, sent, waited for and shown.

import { $, announce, showOnly } from "./dom.js";
import { listenForFiles } from "./files.js";
import { bytes, count } from "./format.js";
import { about, meetModels, meetServer, models, showModel } from "./models.js";
import { Progress } from "./progress.js";
import { Queue } from "./queue.js";
import { saveJson, showRecord } from "./record.js";
import { Cancelled, Problem, detect } from "./request.js";
import { clearResult, showResult } from "./result.js";
import { Stage } from "./stage.js";
import { PASSING, REMEDIES, mayPass } from "./words.js";

const MOST_TRIES = 20;
const TITLE = document.title;
const VIEWS = ["start", "work", "trouble", "result"].map($);

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
const queue = new Queue({ open, cancel, again });

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
function restart(words = "") {
  if (!queue.several) empty();
  stage.close();
  opened = null;
  note(words);
  view("start", "file");
}

function note(words) {
  $("start-note").textContent = words;
  $("start-note").hidden = !words;
}

function empty() {
  settled = [];
  queue.clear();
}

/** Several files are looked at one after the other; what is chosen before they are done joins them. */
function choose(files) {
  const chosen = [...files];
  if (!chosen.length) return;
  $("file").value = "";
  if (!queue.several && !queue.left.length) empty();
  queue.add(chosen, options());
  if (!running || isShown("start")) view("work", "work-title");
  else announce(`${count(chosen.length, "clip")} added. ${queue.summary}.`);
  work();
}

/** What the clips that are chosen now will be asked with. */
function options() {
  const model = $("model-choice").value;
  return { ...($("explain").checked && { explain: true }), ...(model && { model }) };
}

/** Looks at the next clip, unless one is being looked at. */
async function work() {
  const clip = running ? null : queue.next;
  if (!clip) return;
  const mine = { clip, stop: new AbortController() };
  running = mine;
  queue.hold(null);
  queue.mark(clip, "working");
  if (isShown("work")) queue.point(clip);
  progress.begin(clip.file.name);
  if (!queue.several) stage.open(clip.file);
  try {
    checkSize(clip.file);
    const given = await patiently(clip, mine.stop.signal);
    if (running === mine) queue.mark(clip, "done", { given });
  } catch (problem) {
    if (running !== mine) return;
    if (wantsKey(problem)) return askForKey(problem);
    if (problem instanceof Cancelled) queue.mark(clip, "cancelled");
    else queue.mark(clip, "failed", { problem });
  }
  if (running === mine) settle(clip);
}

function checkSize({ size }) {
  if (size <= about.max_upload_bytes) return;
  const detail = `The file has ${bytes(size)}; this server takes ${bytes(about.max_upload_bytes)}. It was not sent.`;
  throw new Problem({ type: "/problems/upload-too-large", status: 413, title: "The file is too large", detail });
}

/** Says what became of the clip at work, and goes on. */
function settle(clip) {
  running = null;
  clip.at = new Date();
  if (!queue.several) {
    if (clip.state === "cancelled") restart("Cancelled. The server has dropped the clip.");
    else open(clip);
    return;
  }
  announce(`${clip.file.name}: ${queue.words(clip)}. ${queue.summary}.`);
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
  if (running?.clip === clip) {
    running.stop.abort();
    return;
  }
  queue.mark(clip, "cancelled");
  if (!queue.left.length) finish();
}

/** Has a clip looked at once more, after those that wait. */
function again(clip) {
  queue.again(clip);
  if (!running || isShown("start") || clip === opened) view("work", "work-title");
  work();
}

/** Shows a clip of the list: its result, its problem, or how far it is. Only a person who asked for it hears its verdict. */
function open(clip, focused) {
  if (clip === running?.clip) {
    view("work", "work-title");
    return;
  }
  if (queue.several) stage.open(clip.file);
  opened = clip;
  if (clip.given) succeed(clip, focused);
  if (clip.problem) fail(clip.problem, focused);
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
      queue.hold("server");
      await progress.wait(PASSING[problem.name], problem.retryAfter ?? 5, signal);
      queue.hold(null);
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

/** Shows a result, whole or not at all: a half one could be read as another verdict. */
function succeed(clip, focused) {
  const { file, query, at, given } = clip;
  const { answer, requestId } = given;
  try {
    view("result");
    tell = showResult(answer, (time, into) => stage.seek(time, into));
    showRecord(answer, { file, query, requestId, at, version: about.version });
    stage.show(answer);
  } catch (problem) {
    stage.close();
    clearResult();
    queue.mark(clip, "failed", { problem });
    return;
  }
  if (models) showModel(answer.model.id, key);
  else greet();
  $(focused ?? "verdict-words").focus();
  if (!focused) announce(`${$("verdict-words").textContent}. ${answer.summary}`);
}

const wantsKey = (problem) => problem instanceof Problem && (problem.status === 401 || problem.status === 403);

/** Asks for a key, and leaves to read who is reading a result. */
function askForKey(problem) {
  if (running) {
    running.stop.abort();
    queue.mark(running.clip, "waiting");
    running = null;
  }
  const refused = problem.status === 403 && key !== null;
  key = null;
  queue.hold("key");
  $("key-form").hidden = false;
  note(refused ? "The server does not know this key. Check it, or ask its operator." : "");
  if (isShown("start") || isShown("work")) view("start", "key");
  else announce(`The server asks for a key. ${queue.summary}.`);
}

/** Gets to know the models. */
async function greet() {
  try {
    await meetModels(key);
  } catch (problem) {
    if (wantsKey(problem) && isShown("start")) askForKey(problem);
  }
}

function useKey() {
  key = $("key").value.trim();
  $("key").value = "";
  $("key-form").hidden = true;
  note("");
  if (queue.next) {
    view("work", "work-title");
    work();
  } else {
    greet();
  }
}

function listen() {
  listenForFiles(choose);
  $("cancel").addEventListener("click", () => running?.stop.abort());
  $("queue-key").addEventListener("click", () => view("start", "key"));
  $("queue-cancel").addEventListener("click", () => queue.left.forEach(cancel));
  $("queue-clear").addEventListener("click", () => {
    empty();
    restart();
  });
  $("trouble-again").addEventListener("click", () => again(opened));
  for (const id of ["trouble-other", "another"]) $(id).addEventListener("click", () => restart());
  $("print").addEventListener("click", () => window.print());
  $("save").addEventListener("click", () => saveJson(opened.given.text, opened.given.answer.id));
  $("model-choice").addEventListener("change", (event) => showModel(event.target.value || models.default, key));
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey();
  });
}

listen();
meetServer().then(greet);
