// What happens in which order: a clip is chosen, sent, waited for and shown.

import { markdown, measured } from "./card.js";
import { $, announce, el, showOnly } from "./dom.js";
import { bytes, length } from "./format.js";
import { Progress } from "./progress.js";
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
let file = null;
let running = null;
let shown = null;
let tell = () => {};

const stage = new Stage((time) => tell(time));
const progress = new Progress();

function view(name, focused) {
  showOnly($(name), VIEWS);
  $("model-measured").hidden = name === "result";
  document.title = name === "result" ? `${file.name} - ${TITLE}` : TITLE;
  if (focused) $(focused).focus();
}

function restart(note = "") {
  running?.abort();
  stage.close();
  file = null;
  $("start-note").textContent = note;
  $("start-note").hidden = !note;
  view("start", "file");
}

function choose(files) {
  if (!files.length) return;
  running?.abort();
  running = null;
  [file] = files;
  $("file").value = "";
  stage.open(file);
  if (file.size > about.max_upload_bytes) {
    const detail = `The file has ${bytes(file.size)}; this server takes ${bytes(about.max_upload_bytes)}. It was not sent.`;
    fail(new Problem({ type: "/problems/upload-too-large", status: 413, title: "The file is too large", detail }));
  } else {
    run();
  }
}

async function run() {
  const mine = new AbortController();
  running = mine;
  progress.begin(file.name);
  view("work", "work-title");
  const query = $("explain").checked ? { explain: true } : {};
  if ($("model-choice").value) query.model = $("model-choice").value;
  try {
    const given = await patiently(mine.signal, query);
    if (running === mine) succeed(given, query);
  } catch (problem) {
    if (running === mine) give(problem);
  }
}

/** Sends the clip, again after a while for as long as the server says that it has no room. */
async function patiently(signal, query) {
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

function give(problem) {
  running = null;
  if (problem instanceof Cancelled) restart("Cancelled. The server has dropped the clip.");
  else if (problem instanceof Problem && (problem.status === 401 || problem.status === 403)) askForKey(problem);
  else fail(problem);
}

function fail(problem) {
  $("trouble-title").textContent = problem.title || "This page has failed";
  $("trouble-remedy").textContent = REMEDIES[problem.name] || "";
  const reference = problem.requestId ? ` Reference: ${problem.requestId}` : "";
  $("trouble-detail").textContent = `${problem.message.replace(/\.$/, "")}.${reference}`;
  $("trouble-again").hidden = problem instanceof Problem && !mayPass(problem);
  view("trouble", "trouble-title");
}

function succeed({ answer, text, requestId }, query) {
  running = null;
  shown = { answer, text };
  view("result");
  tell = showResult(answer, (time, into) => stage.seek(time, into));
  showRecord(answer, { file, query, requestId, at: new Date(), version: about.version });
  stage.show(answer);
  if (models) showModel(answer.model.id);
  else meetModels();
  $("verdict-words").focus();
  announce(`${$("verdict-words").textContent}. ${answer.summary}`);
}

function askForKey(problem) {
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
  $("cancel").addEventListener("click", () => running?.abort());
  $("trouble-again").addEventListener("click", () => run());
  for (const id of ["trouble-other", "another"]) $(id).addEventListener("click", () => restart());
  $("print").addEventListener("click", () => window.print());
  $("save").addEventListener("click", () => saveJson(shown.text, shown.answer.id));
  $("model-choice").addEventListener("change", (event) => showModel(event.target.value || models.default));
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = $("key").value.trim();
    $("key").value = "";
    $("start-note").hidden = true;
    if (file) run();
    else meetModels();
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
