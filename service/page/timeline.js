// How manipulated a face looks from moment to moment: bars to click into, and the same as a table.

import { el, svg } from "./dom.js";
import { clock, percent } from "./format.js";
import { LEVELS, faceName, level } from "./words.js";

const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };

export class Timeline {
  /** seek: called with the time in seconds that somebody wants to see. */
  constructor(face, answer, seek) {
    this.face = face;
    this.thresholds = face.thresholds ?? answer.model.thresholds;
    const last = Math.max(0, ...answer.faces.flatMap((f) => [f.last_s, ...f.timeline.map((m) => m.end_s)]));
    this.length = Math.max(answer.media.duration_s, last) || 1;
    this.seek = seek;
    this.head = el("span", { class: "playhead" });
    this.moments = face.timeline.map((moment, i) => this.#button(moment, this.#room(i)));
    this.moments[0]?.setAttribute("tabindex", "0");
    const name = faceName(face.track);
    this.chart = el(
      "div",
      { class: "chart", role: "group", "aria-label": `Moments of ${name.toLowerCase()}; arrow keys move`, click: this.#clicked },
      this.#background(),
      ...this.moments,
      this.head,
    );
    this.chart.addEventListener("keydown", (event) => this.#pressed(event));
    this.element = el("div", { class: "timeline" }, this.#scale(), this.chart, this.#axis());
    this.table = this.#table(name);
  }

  /** Tells of the time that is shown. */
  move(time) {
    this.head.style.left = `${this.#share(time)}%`;
    this.face.timeline.forEach((moment, i) => {
      const here = time >= moment.start_s - 0.02 && time <= moment.end_s + 0.02;
      if (here) this.moments[i].setAttribute("aria-current", "time");
      else this.moments[i].removeAttribute("aria-current");
    });
  }

  #share(time) {
    return Math.max(0, Math.min(100, (100 * time) / this.length));
  }

  /** What a moment has of the chart's width before it covers its neighbours, in percent. */
  #room(at) {
    const middles = this.face.timeline.map((m) => this.#share((m.start_s + m.end_s) / 2));
    return Math.min(100, ...[at - 1, at + 1].filter((i) => i in middles).map((i) => Math.abs(middles[i] - middles[at])));
  }

  #button(moment, room) {
    const kind = level(moment.fake, this.thresholds);
    const words = `${clock(moment.start_s)}, ${percent(moment.fake)}, ${LEVELS[kind]}`;
    const bar = el("span", { class: `bar ${kind}` });
    bar.style.height = `${Math.max(3, 100 * moment.fake)}%`;
    const button = el("button", { type: "button", class: "moment", tabindex: "-1", "aria-label": words, title: words }, bar);
    button.style.width = `clamp(3px, ${room}%, 24px)`;
    button.style.left = `${this.#share((moment.start_s + moment.end_s) / 2)}%`;
    bar.style.setProperty("--share", `${this.#share(moment.end_s - moment.start_s) / 100}`);
    return button;
  }

  #clicked = (event) => {
    const at = this.moments.indexOf(event.target.closest(".moment"));
    if (at >= 0) {
      this.#choose(at);
    } else {
      const { left, width } = this.chart.getBoundingClientRect();
      this.seek(this.length * Math.max(0, Math.min(1, (event.clientX - left) / width)));
    }
  };

  #pressed(event) {
    const step = STEPS[event.key];
    const at = this.moments.indexOf(document.activeElement);
    if (step === undefined || at < 0) return;
    event.preventDefault();
    this.#choose(Math.max(0, Math.min(this.moments.length - 1, at + step)));
  }

  #choose(at) {
    this.moments.forEach((button, i) => button.setAttribute("tabindex", i === at ? "0" : "-1"));
    this.moments[at].focus();
    const { start_s: start, end_s: end } = this.face.timeline[at];
    this.seek((start + end) / 2);
  }

  #background() {
    const { authentic_below: low, manipulated_above: high } = this.thresholds;
    const [from, to] = [this.#share(this.face.first_s), this.#share(this.face.last_s)];
    const line = (p, kind) => svg("line", { x1: 0, x2: 100, y1: 100 - 100 * p, y2: 100 - 100 * p, class: `threshold ${kind}` });
    return svg(
      "svg",
      { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { x: from, y: 0, width: Math.max(0.5, to - from), height: 100, class: "seen" }),
      svg("rect", { x: 0, y: 100 - 100 * high, width: 100, height: 100 * (high - low), class: "undecided" }),
      line(low, "low"),
      line(high, "high"),
    );
  }

  #scale() {
    const mark = (p) => {
      const label = el("span", {}, percent(p));
      label.style.bottom = `${100 * p}%`;
      return label;
    };
    const { authentic_below: low, manipulated_above: high } = this.thresholds;
    return el("div", { class: "scale", "aria-hidden": "true" }, mark(low), mark(high));
  }

  #axis() {
    const at = [0, this.length / 2, this.length];
    return el("div", { class: "axis", "aria-hidden": "true" }, ...at.map((t) => el("span", {}, clock(t, 1))));
  }

  #table(name) {
    const row = (m) =>
      el(
        "tr",
        {},
        el("td", {}, `${clock(m.start_s)} to ${clock(m.end_s)}`),
        el("td", {}, percent(m.fake)),
        el("td", {}, LEVELS[level(m.fake, this.thresholds)].split(" ")[0]),
      );
    const heads = ["Time", "Probability of manipulation", "Thresholds"].map((h) => el("th", { scope: "col" }, h));
    return el(
      "details",
      { class: "as-table" },
      el("summary", {}, "The timeline as a table"),
      el(
        "table",
        {},
        el("caption", { class: "quiet" }, `${name}, moment by moment`),
        el("thead", {}, el("tr", {}, ...heads)),
        el("tbody", {}, ...this.face.timeline.map(row)),
      ),
    );
  }
}
