// How far a clip is: sent, looked at, or waiting for the server.

import { $, announce } from "./dom.js";
import { bytes, count, share } from "./format.js";
import { Cancelled } from "./request.js";

const TOLD = [0.25, 0.5, 0.75, 1];
/** Share of the wait that is added by chance, so that clients that were refused together do not return together. */
const SPREAD = 0.2;

export class Progress {
  begin(name) {
    $("work-name").textContent = name;
    $("waiting").hidden = true;
    this.#rewind();
  }

  /** A share of the clip has gone out. */
  sent(part, size) {
    $("sent").value = part;
    $("sent-words").textContent = part < 1 ? `${share(part)} of ${bytes(size)}` : `${bytes(size)} sent`;
    this.#announce(part, (at) => (at < 1 ? `${share(at)} sent` : "Sent. The server looks at the clip."));
    if (part < 1 || this.looking) return;
    this.looking = true;
    this.told = 0;
    $("looked").removeAttribute("value");
    $("looked-words").textContent = "looking for faces";
  }

  /** The server has looked at a part of the clip. */
  looked({ bursts, planned, faces }) {
    const part = planned ? Math.min(1, bursts / planned) : 0;
    const seen = `${bursts} of ${count(planned, "moment")}, ${count(faces, "face")}`;
    if (part < 1) $("looked").value = part;
    else $("looked").removeAttribute("value");
    $("looked-words").textContent = part < 1 ? `${seen} so far` : `${seen}; weighing the evidence`;
    this.#announce(part, (at) => `${share(at)} looked at, ${count(faces, "face")} so far`);
  }

  /** Counts down and returns; at once when somebody wants that. Throws Cancelled. */
  async wait(why, seconds, signal) {
    this.#rewind();
    const until = performance.now() + 1000 * seconds * (1 + SPREAD * Math.random());
    const left = () => Math.max(0, Math.ceil((until - performance.now()) / 1000));
    $("waiting-why").textContent = why;
    $("waiting").hidden = false;
    this.#say(`${why} Your clip is sent again in ${left()} seconds.`);
    const tick = () => {
      $("countdown").textContent = count(left(), "second");
    };
    tick();
    const ticking = setInterval(tick, 250);
    try {
      await new Promise((resolve, reject) => {
        setTimeout(resolve, until - performance.now());
        $("again-now").addEventListener("click", resolve, { once: true });
        signal.addEventListener("abort", () => reject(new Cancelled()), { once: true });
      });
    } finally {
      clearInterval(ticking);
      if (document.activeElement === $("again-now")) $("work-title").focus();
      $("waiting").hidden = true;
    }
  }

  #rewind() {
    this.looking = false;
    this.told = 0;
    for (const id of ["sent", "looked"]) {
      $(id).value = 0;
      $(`${id}-words`).textContent = "";
    }
  }

  #announce(part, words) {
    const at = TOLD.findLast((step) => part >= step) || 0;
    if (at <= this.told) return;
    this.told = at;
    this.#say(words(at));
  }

  /** Only to those who are watching, and not looking at the result of another clip. */
  #say(words) {
    if (!$("work").hidden) announce(words);
  }
}
