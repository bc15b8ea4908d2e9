// The clip as it plays in this browser, with a box around each face.

import { $ } from "./dom.js";
import { isReadable } from "./files.js";
import { percent } from "./format.js";
import { faceName, level } from "./words.js";

/** Colours that stay apart for every kind of colour vision; the stroke differs as well. */
const STROKES = {
  low: { colour: "#56b4e9", dash: [], width: 2.5 },
  middle: { colour: "#f0e442", dash: [9, 5], width: 2.5 },
  high: { colour: "#ff7f3f", dash: [], width: 4.5 },
  none: { colour: "#d5d5d5", dash: [2, 5], width: 2 },
};
const NEAR_S = 0.12;
/** Why no clip is shown: the browser can not, or the file is no longer there. */
const NOTES = ["unplayable", "unreadable"];

export class Stage {
  /** moved: called with the time in seconds whenever another picture is shown. */
  constructor(moved) {
    this.moved = moved;
    this.frame = $("frame");
    this.video = $("video");
    this.still = $("still");
    this.canvas = $("boxes");
    this.answer = null;
    this.time = 0;
    for (const event of ["timeupdate", "seeked", "pause"]) this.video.addEventListener(event, () => this.#tick());
    this.video.addEventListener("play", () => this.#follow());
    this.video.addEventListener("loadedmetadata", () => this.#shape(this.video.videoWidth, this.video.videoHeight));
    this.still.addEventListener("load", () => this.#shape(this.still.naturalWidth, this.still.naturalHeight));
    for (const medium of [this.video, this.still]) medium.addEventListener("error", () => this.#fallBack());
    new ResizeObserver(() => this.#draw()).observe(this.frame);
  }

  /** Takes a file. Whether this browser can show it is found out while the server judges it. */
  open(file) {
    this.close();
    this.file = file;
    this.url = URL.createObjectURL(file);
    const picture = file.type.startsWith("image/");
    this.shown = picture ? this.still : this.video;
    this.video.hidden = picture;
    this.still.hidden = !picture;
    this.shown.src = this.url;
  }

  close() {
    this.answer = null;
    this.time = 0;
    this.shown = null;
    this.size = null;
    this.frame.classList.remove("unplayable");
    for (const id of NOTES) $(id).hidden = true;
    for (const medium of [this.video, this.still]) medium.removeAttribute("src");
    this.video.load();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
  }

  pause() {
    this.video.pause();
  }

  show(answer) {
    this.answer = answer;
    const { width, height } = this.size || answer.media;
    this.#shape(width, height);
    const first = answer.faces.length ? Math.min(...answer.faces.map((f) => f.first_s)) : 0;
    if (first > 0) this.seek(first);
    else this.#moveTo(this.video.currentTime || 0);
  }

  /** into: whether the clip is brought into view. */
  seek(time, into = false) {
    if (into) this.frame.scrollIntoView({ block: "nearest" });
    if (this.shown === this.video) {
      this.video.pause();
      this.video.currentTime = time;
    }
    this.#moveTo(time);
  }

  async #fallBack() {
    if (!this.shown?.getAttribute("src")) return;
    const { file, url } = this;
    this.shown.hidden = true;
    this.shown = null;
    this.frame.classList.add("unplayable");
    if (this.answer) this.#shape(this.answer.media.width, this.answer.media.height);
    const readable = await isReadable(file);
    if (url === this.url) $(readable ? "unplayable" : "unreadable").hidden = false;
  }

  #shape(width, height) {
    if (!width || !height) return;
    this.size = { width, height };
    this.frame.style.setProperty("--width", width);
    this.frame.style.setProperty("--height", height);
    this.#draw();
  }

  #follow() {
    const next = () => {
      this.#tick();
      if (!this.video.paused && !this.video.ended) this.#await(next);
    };
    this.#await(next);
  }

  #await(next) {
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(next);
    else requestAnimationFrame(next);
  }

  #tick() {
    if (this.shown === this.video) this.#moveTo(this.video.currentTime);
  }

  #moveTo(time) {
    this.time = time;
    this.#draw();
    if (this.answer) this.moved(time);
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.frame;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    if (!this.answer || !width) return;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const { media, model, faces } = this.answer;
    const [x, y] = [width / media.width, height / media.height];
    for (const face of faces) {
      const box = boxAt(face, this.shown === this.still ? null : this.time);
      if (!box) continue;
      const now = scoreAt(face, this.time);
      const kind = face.usable && now !== null ? level(now, face.thresholds ?? model.thresholds) : "none";
      drawBox(context, [box[0] * x, box[1] * y, box[2] * x, box[3] * y], STROKES[kind]);
      const words = kind === "none" ? "not judged" : percent(now);
      drawLabel(context, `${faceName(face.track)} · ${words}`, box[0] * x, box[1] * y, width, STROKES[kind]);
    }
  }
}

/** Where a face is at a time: between the two places known nearest to it, null while it is not seen. */
export function boxAt(face, time) {
  if (time === null) return face.box;
  if (time < face.first_s - NEAR_S || time > face.last_s + NEAR_S) return null;
  const known = face.boxes || [];
  if (known.length === 0) return face.box;
  const after = known.findIndex((b) => b.time_s >= time);
  if (after <= 0) return (after === 0 ? known[0] : known[known.length - 1]).box;
  const [a, b] = [known[after - 1], known[after]];
  const share = (time - a.time_s) / (b.time_s - a.time_s || 1);
  return a.box.map((value, i) => value + share * (b.box[i] - value));
}

/** The probability of the moment nearest to a time; without a timeline that of the whole face. */
function scoreAt(face, time) {
  const away = (m) => Math.max(m.start_s - time, time - m.end_s, 0);
  const nearest = (face.timeline || []).reduce((a, b) => (a && away(a) <= away(b) ? a : b), null);
  return nearest ? nearest.fake : (face.probabilities?.fake ?? null);
}

function drawBox(context, box, { colour, dash, width }) {
  context.setLineDash([]);
  context.lineWidth = width + 3;
  context.strokeStyle = "rgb(0 0 0 / 55%)";
  context.strokeRect(...box);
  context.setLineDash(dash);
  context.lineWidth = width;
  context.strokeStyle = colour;
  context.strokeRect(...box);
  context.setLineDash([]);
}

function drawLabel(context, text, x, y, room, { colour }) {
  context.font = "600 13px system-ui, sans-serif";
  const width = context.measureText(text).width + 16;
  const left = Math.max(0, Math.min(x - 2, room - width));
  const top = y > 30 ? y - 28 : y + 5;
  context.fillStyle = "rgb(12 14 18 / 88%)";
  context.fillRect(left, top, width, 23);
  context.fillStyle = colour;
  context.fillRect(left, top, 4, 23);
  context.fillStyle = "#fff";
  context.fillText(text, left + 10, top + 16);
}
