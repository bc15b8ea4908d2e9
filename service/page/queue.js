// The clips that were chosen, one looked at after the other; shown as a list where there are several.

import { $, el } from "./dom.js";
import { count, percent } from "./format.js";
import { VERDICTS } from "./words.js";

const STATES = { waiting: "waiting", working: "being looked at", cancelled: "cancelled" };
/** What may keep the list from going on: the state of the clips that it keeps, and how that is said. */
const HOLDS = { key: ["waiting", "waiting for a key"], server: ["working", "waiting for the server"] };

export class Queue {
  /** open, cancel, again: called with the clip of which somebody wants that. */
  constructor({ open, cancel, again }) {
    this.wants = { open, cancel, again };
    this.clips = [];
    this.held = null;
    this.list = $("queue-list");
    new ResizeObserver(() => this.#reach()).observe(this.list);
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

  /** How far the list is. */
  get summary() {
    const left = this.left.length;
    if (!left) return "All done";
    return [`${left} to go`, ...(this.held ? [HOLDS[this.held][1]] : [])].join(", ");
  }

  /** Takes files, and what each of them is to be asked with. */
  add(files, query) {
    const added = files.map((file) => ({ file, query, row: this.#row(file) }));
    for (const clip of added) {
      for (const [name, want] of Object.entries(this.wants)) clip.row[name].addEventListener("click", () => want(clip));
      this.list.append(clip.row.item);
    }
    this.clips.push(...added);
    for (const clip of added) this.mark(clip, "waiting");
  }

  /** Has a clip looked at once more, after all others. */
  again(clip) {
    this.mark(clip, "waiting");
    this.clips = [...this.clips.filter((other) => other !== clip), clip];
    this.list.append(clip.row.item);
  }

  clear() {
    this.clips = [];
    this.list.replaceChildren();
    this.#sum();
  }

  /** Notes that a clip is `waiting`, `working`, `done`, `failed` or `cancelled`, with the answer or the problem. */
  mark(clip, state, { given = null, problem = null } = {}) {
    const words = this.words({ state, given, problem });
    Object.assign(clip, { state, given, problem });
    const { row } = clip;
    row.item.className = `clip ${given ? given.answer.verdict : state}`;
    row.words.textContent = words;
    this.#keepFocus(() => {
      row.open.hidden = state === "waiting" || state === "cancelled";
      row.cancel.hidden = state !== "waiting" && state !== "working";
      row.again.hidden = state !== "cancelled";
    });
    this.#sum();
  }

  /** Notes what the list waits for: a `key`, the `server`, or null for nothing. */
  hold(why) {
    this.held = why;
    for (const clip of this.left) clip.row.words.textContent = this.words(clip);
    this.#sum();
  }

  /** What became of a clip. */
  words({ state, given, problem }) {
    if (problem) return problem.title || "The page has failed";
    if (!given) {
      const [kept, why] = HOLDS[this.held] || [];
      return state === kept ? why : STATES[state];
    }
    const { verdict, probabilities } = given.answer;
    const [words] = VERDICTS[verdict] || [verdict];
    return probabilities ? `${words}, ${percent(probabilities.fake)}` : words;
  }

  /** Marks the clip that is shown below the list. */
  point(shown) {
    for (const { row } of this.clips) row.item.removeAttribute("aria-current");
    if (!shown) return;
    shown.row.item.setAttribute("aria-current", "true");
    this.#reveal(shown.row.item);
  }

  /** Scrolls the list alone, and at once, to a row; not under the hands of somebody who is in it. */
  #reveal(item) {
    if (this.list.matches(":hover, :focus-within")) return;
    const [row, seen] = [item, this.list].map((element) => element.getBoundingClientRect());
    this.list.scrollTop += Math.min(0, row.top - seen.top) + Math.max(0, row.bottom - seen.bottom);
  }

  #sum() {
    const left = this.left.length;
    $("queue").hidden = !this.several;
    $("queue-title").textContent = count(this.clips.length, "clip");
    $("queue-words").textContent = this.summary;
    this.#keepFocus(() => {
      $("queue-key").hidden = this.held !== "key" || left === 0;
      $("queue-cancel").hidden = left === 0;
      $("queue-clear").hidden = left > 0;
    });
    this.#reach();
  }

  /** Keys scroll only what the focus can be on. */
  #reach() {
    if (this.list.scrollHeight > this.list.clientHeight) this.list.tabIndex = 0;
    else this.list.removeAttribute("tabindex");
  }

  /** Where what is focused vanishes, the heading of the list takes its place. */
  #keepFocus(change) {
    const { activeElement } = document;
    change();
    if (activeElement?.hidden && $("queue").contains(activeElement)) $("queue-title").focus();
  }

  #row({ name }) {
    const button = (words) => el("button", { type: "button", class: "jump" }, words, el("span", { class: "unseen" }, ` ${name}`));
    const [open, cancel, again] = ["Show", "Cancel", "Try again"].map(button);
    const words = el("span", { class: "quiet" });
    const buttons = el("span", { class: "buttons" }, open, cancel, again);
    return { item: el("li", {}, el("span", { class: "name" }, name), words, buttons), words, open, cancel, again };
  }
}
