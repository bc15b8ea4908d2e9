// The verdict with its reasons, and each face with its moments and heat maps.

import { $, el, facts } from "./dom.js";
import { clock, count, percent, seconds, share } from "./format.js";
import { heatMaps } from "./maps.js";
import { Timeline } from "./timeline.js";
import { LEVELS, VERDICTS, faceName, faceScore, level, reason, remark } from "./words.js";

/** All that speaks of an answer, its record included. */
const SHOWN = [
  ...["verdict-words", "verdict-meaning", "gauge", "reasons", "coverage", "timelines"],
  ...["faces-title", "faces-list", "record", "report-name", "report-time"],
];

/** Shows an answer. Returns what is to be told of the time that is shown. */
export function showResult(answer, seek) {
  showVerdict(answer);
  const { faces } = answer;
  const timelines = faces.map((face) => new Timeline(face, answer, seek));
  $("faces-title").textContent = faces.length ? count(faces.length, "face") : "Faces";
  $("faces-numbers").hidden = faces.length === 0;
  const none = el("p", { class: "card" }, "No face was found in the moments that were looked at.");
  const articles = faces.map((face, i) => faceArticle(face, timelines[i], (time) => seek(time, true)));
  $("faces-list").replaceChildren(...(articles.length ? articles : [none]));
  $("timelines").replaceChildren(...faces.map((face, i) => line(face, answer, timelines[i])));
  $("legend").hidden = faces.length === 0;
  return (time) => timelines.forEach((timeline) => timeline.move(time));
}

/** Leaves nothing of any answer. */
export function clearResult() {
  $("verdict").className = "card verdict";
  for (const id of SHOWN) $(id).replaceChildren();
}

function showVerdict(answer) {
  const [heading, meaning] = VERDICTS[answer.verdict] || [answer.verdict, ""];
  $("verdict").className = `card verdict ${answer.verdict}`;
  $("verdict-words").textContent = heading;
  $("verdict-meaning").textContent = meaning;
  $("gauge").replaceChildren(...(answer.probabilities ? gauge(answer) : []));
  const item = ([title, words]) => el("li", {}, el("strong", {}, title), ` ${words}`);
  const reasons = answer.reasons.map((text) => item(reason(text)));
  $("reasons").replaceChildren(...(reasons.length ? reasons : [el("li", {}, answer.summary)]));
  $("coverage").textContent = coverage(answer);
}

function gauge({ probabilities: { fake }, model, faces }) {
  const decisive = faces.find((face) => face.usable && face.probabilities?.fake === fake);
  const { authentic_below: low, manipulated_above: high } = decisive?.thresholds ?? model.thresholds;
  const zone = (kind, width) => {
    const part = el("span", { class: `zone ${kind}` });
    part.style.width = `${100 * width}%`;
    return part;
  };
  const at = (kind, p, ...inside) => {
    const mark = el("span", { class: kind }, ...inside);
    mark.style.left = `${100 * p}%`;
    return mark;
  };
  const whose = faces.length > 1 ? " of the most suspicious face" : "";
  // In a codec that the calibration has not seen the service decides nothing, and a score is no probability.
  const undecided = low === 0 && high === 1;
  const what = undecided ? `score${whose}, not a calibrated probability` : `probability of manipulation${whose}`;
  return [
    el("p", { class: "score" }, el("strong", { class: "figure" }, percent(fake)), ` ${what}`),
    el(
      "div",
      { class: "gauge", "aria-hidden": "true" },
      el("div", { class: "zones" }, zone("low", low), zone("middle", high - low), zone("high", 1 - high)),
      at("needle", fake),
      el("div", { class: "marks" }, at("mark", low, percent(low)), at("mark", high, percent(high))),
    ),
    el(
      "p",
      { class: "quiet" },
      undecided
        ? "No score decides here. Clips in this codec score higher or lower than those that the thresholds were found " +
          "on, genuine ones too. The score serves to compare clips of one kind with each other, and no more."
        : `Under ${percent(low)} reads as no sign found, from ${percent(high)} on as signs of manipulation; doubts move ` +
          "both apart. The probability is calibrated where one clip in two is forged, on those that the model card " +
          "names. Where few clips are forged, most alarms are false.",
    ),
  ];
}

function coverage({ coverage: seen, media, faces }) {
  if (!media.duration_s) {
    return "A single picture. The embedded models compare pictures that follow each other and can not judge one.";
  }
  const moments = Math.max(0, ...faces.map((f) => f.timeline.length));
  const where = moments > 1 ? `, at ${count(moments, "moment")} spread over the clip` : "";
  const words = `${seconds(seen.seconds_looked_at)} of ${seconds(media.duration_s)}${where}.`;
  const rest = " What lies between was not looked at.";
  const why = seen.why ? ` ${seen.why.charAt(0).toUpperCase()}${seen.why.slice(1)}.` : "";
  return words + (seen.fraction < 0.99 ? rest : "") + why;
}

/** A face beside the clip: its name, its score and its moments. */
function line(face, answer, timeline) {
  const id = `line-${face.track}`;
  const judged = face.usable && face.probabilities;
  const kind = judged ? level(face.probabilities.fake, face.thresholds ?? answer.model.thresholds) : "none";
  const chip = el("p", { class: `chip ${kind}` }, el("span", { class: "figure" }, faceScore(face)), judged ? ` ${LEVELS[kind]}` : "");
  return el(
    "section",
    { class: "line", "aria-labelledby": id },
    el("header", {}, el("h3", { id }, faceName(face.track)), chip),
    face.timeline.length ? timeline.element : null,
  );
}

function faceArticle(face, timeline, seek) {
  const id = `face-${face.track}`;
  const explained = face.explanation?.withheld || face.explanation?.frames?.length;
  const seen = `${clock(face.first_s)} to ${clock(face.last_s)}, ${count(face.frames_used, "picture")} looked at`;
  return el(
    "article",
    { class: "card face", "aria-labelledby": id },
    el("header", {}, el("h3", { id }, faceName(face.track)), el("p", { class: "quiet" }, `Seen from ${seen}`)),
    face.usable ? null : el("p", { class: "note" }, `This face took no part in the verdict: ${listed(face.quality.remarks)}.`),
    face.segments.length ? stretches(face.segments, seek) : null,
    face.evidence?.length ? carried(face, seek) : null,
    explained ? heatMaps(face, seek) : null,
    el("div", { class: "more" }, face.timeline.length ? timeline.table : null, quality(face)),
  );
}

const listed = (remarks) => remarks.map((code) => remark(code).toLowerCase()).join(", ") || "no reason given";

function jump(label, time, seek) {
  return el("button", { type: "button", class: "jump", click: () => seek(time) }, label);
}

function stretches(segments, seek) {
  const button = (s) => jump(`${clock(s.start_s)} to ${clock(s.end_s)} · ${percent(s.fake)}`, s.start_s, seek);
  return el("div", { class: "jumps" }, el("p", {}, "Over both thresholds:"), ...segments.map(button));
}

function carried({ evidence }, seek) {
  const button = (e) => jump(`${clock(e.time_s)} · ${percent(e.fake)}`, e.time_s, seek);
  return el("div", { class: "jumps" }, el("p", {}, "Pictures that weighed most:"), ...evidence.map(button));
}

function quality({ quality: q }) {
  return el(
    "details",
    { class: "quality" },
    el("summary", {}, q.remarks.length ? `Quality of the pictures: ${listed(q.remarks)}` : "Quality of the pictures: no remarks"),
    facts([
      ["Size", `${Math.round(q.size_px)} pixels a side`],
      ["Sharpness", `${Math.round(q.sharpness)} (variance of the Laplacian)`],
      ["Brightness", `${share(q.brightness)} of full`],
      ["Turned away", `${share(q.yaw)} of a profile`],
      ["Sure to be a face", share(q.detection)],
      ["Quantiser", q.quantiser === null ? "not told by this kind of video" : `${q.quantiser} (0 fine, 51 coarse)`],
    ]),
  );
}
