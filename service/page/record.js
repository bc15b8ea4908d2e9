// What was judged, by what and how: the facts of a report.

import { $, el, facts } from "./dom.js";
import { bytes, count, moment, seconds, share } from "./format.js";

/** Shows the record of an answer. asked: { file, query, at, requestId, version }. */
export function showRecord(answer, asked) {
  const { media, model, coverage } = answer;
  const named = (title, rows) => el("section", {}, el("h3", {}, title), facts(rows));
  const code = (text) => el("code", {}, text);
  const digest = el("span", { id: "same-bytes", class: "quiet" });
  $("report-name").textContent = asked.file.name;
  $("report-time").textContent = moment(asked.at);
  $("record").replaceChildren(
    named("The clip", [
      ["Name in this browser", asked.file.name],
      ["SHA-256", el("span", {}, code(media.sha256), digest)],
      ["Size", `${bytes(media.bytes)} (${media.bytes} bytes)`],
      ["Format", `${media.container}, ${media.codec}, ${media.width} × ${media.height}`],
      ["Length", media.duration_s ? `${seconds(media.duration_s)}, ${rate(media)} pictures a second` : "a single picture"],
      ["Looked at", `${count(media.frames_used, "picture")}, ${share(coverage.fraction)} of the time${coverage.truncated ? "; cut short" : ""}`],
      ["C2PA manifest", manifest(media.provenance || answer.provenance)],
    ]),
    named("The model", [
      ["Name", model.id],
      ["Digest", code(model.digest)],
      ["Precision", model.precision],
      ["Calibration", model.calibration || "none: the figures are the network’s own"],
      ["The model's thresholds", `${model.thresholds.authentic_below.toFixed(3)} and ${model.thresholds.manipulated_above.toFixed(3)}`],
      ["Trained", model.trained ? null : "no: its weights are random, and its verdicts mean nothing"],
    ]),
    named("This answer", [
      ["Time", moment(asked.at)],
      ["Server", `${location.origin}, version ${asked.version || "unknown"}`],
      ["Settings", settings(asked.query)],
      ["Answer", code(answer.id)],
      ["Request", asked.requestId ? code(asked.requestId) : null],
      ["Signed receipt", answer.receipt ? code(answer.receipt) : null],
    ]),
  );
  return compare(asked.file, media.sha256, digest);
}

const rate = ({ frame_rate: rate }) => Number(rate.toFixed(2));

const settings = (query) =>
  Object.entries(query)
    .map(([name, value]) => `${name}=${value}`)
    .join(", ") || "the server’s own";

/** What the clip says of its origin; never part of the score. */
function manifest(provenance) {
  const valid = { true: "present and valid", false: "present, but not valid" };
  const words = {
    present: valid[provenance?.valid] || "present; whether it is valid was not checked",
    absent: "none found; nearly all media have none, which says nothing",
    not_checked: "not looked for in this kind of file",
  };
  return words[provenance?.c2pa];
}

/** Computes the digest in this browser as well, where it can; only pages served safely can. */
async function compare(file, sha256, element) {
  if (!crypto.subtle) return;
  let hash;
  try {
    hash = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  } catch {
    return;
  }
  const own = Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
  element.textContent =
    own === sha256 ? " Your browser finds the same for the file it holds." : ` Your browser finds ${own} for the file it holds!`;
}

/** Saves the answer as it came. */
export function saveJson(text, id) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  el("a", { href: url, download: `deepfake-detect-${id.slice(0, 12)}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
