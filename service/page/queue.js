// The clips that were chosen, one looked at after the other; shown as a list where there are several.

import { $, el } from "./dom.js";
import { count, percent } from "./format.js";
import { VERDICTS } from "./words.js";

const STATES = { waiting: "waiting", working: "being looked at", cancelled: "cancelled" };

export class Queue {
  /** open, cancel: called with the clip of which somebody wants that. */
  constructor({ open, cancel }) {
    this.open = open;
    this.cancel = cancel;
    this.clips = [];
  }

  get several() {
    return this.clips.length > 1;
  }

  /** Clips that are still to be looked at, that at work among them. */
  get left() {
    return this.clips.filter(({ state }) => state === "waiting" || state === "working");
  }

  /** The clip whose turn it is. */
  get next() {
    return this.clips.find(({ state }) => state === "waiting");
  }

  /** Takes files, and gives the clips that they are now. */
  add(files) {
    const added = files.map((file) => ({ file, state: "waiting", row: this.#row(file) }));
    for (const clip of added) {
      clip.row.open.addEventListener("click", () => this.open(clip));
      clip.row.cancel.addEventListener("click", () => this.cancel(clip));
      $("queue-list").append(clip.row.item);
    }
    this.clips.push(...added);
    for (const clip of added) this.mark(clip, "waiting");
    return added;
  }

  clear() {
    this.clips = [];
    $("queue-list").replaceChildren();
    this.#sum();
  }

  /** Notes that a clip is `waiting`, `working`, `done`, `failed` or `cancelled`, with the answer or the problem. */
  mark(clip, state, { given = null, problem = null } = {}) {
    Object.assign(clip, { state, given, problem });
    const { item, words, open, cancel } = clip.row;
    item.className = `clip ${given ? given.answer.verdict : state}`;
    words.textContent = this.words(clip);
    this.#keepFocus(() => {
      open.hidden = state === "waiting" || state === "cancelled";
      cancel.hidden = state !== "waiting" && state !== "working";
    });
    this.#sum();
  }

  /** What became of a clip. */
  words({ state, given, problem }) {
    if (problem) return problem.title || "The page has failed";
    if (!given) return STATES[state];
    const { verdict, probabilities } = given.answer;
    const [words] = VERDICTS[verdict] || [verdict];
    return probabilities ? `${words}, ${percent(probabilities.fake)}` : words;
  }

  /** Marks the clip that is shown below the list. */
  point(shown) {
    for (const { row } of this.clips) row.item.removeAttribute("aria-current");
    shown?.row.item.setAttribute("aria-current", "true");
  }

  #sum() {
    const left = this.left.length;
    $("queue").hidden = !this.several;
    $("queue-title").textContent = count(this.clips.length, "clip");
    $("queue-words").textContent = left ? `${left} to go` : "All done";
    this.#keepFocus(() => {
      $("queue-cancel").hidden = left === 0;
      $("queue-clear").hidden = left > 0;
    });
  }

  /** Where what is focused vanishes, the heading of the list takes its place. */
  #keepFocus(change) {
    const { activeElement } = document;
    change();
    if (activeElement?.hidden && $("queue").contains(activeElement)) $("queue-title").focus();
  }

  #row({ name }) {
    const button = (words) => el("button", { type: "button", class: "jump" }, words, el("span", { class: "unseen" }, ` ${name}`));
    const [open, cancel, words] = [button("Show"), button("Cancel"), el("span", { class: "quiet" })];
    const item = el("li", {}, el("span", { class: "name" }, name), words, el("span", { class: "buttons" }, open, cancel));
    return { item, words, open, cancel };
  }
}
