// Where on a face the evidence lies: heat maps beside each other.

import { el, svg } from "./dom.js";
import { clock, percent, share } from "./format.js";
import { faceName, reason } from "./words.js";

const WHERE = [
  ["upper left", "top", "upper right"],
  ["left", "middle", "right"],
  ["lower left", "bottom", "lower right"],
];

const LEGEND =
  "Orange parts speak for manipulation, blue ones against it, the stronger the colour the more. A map shows what " +
  "moved the model, not what was done to the picture.";

const why = ({ withheld }) => reason(withheld)[1];

/** The maps of a face, or why there are none. */
export function heatMaps({ track, explanation }, seek) {
  const { frames = [] } = explanation;
  const id = `maps-${track}`;
  const shown = frames.map((frame) => figure(track, frame, seek));
  return el(
    "div",
    { class: "maps", role: "group", "aria-labelledby": id },
    el("h4", { id }, "Where the evidence lies"),
    explanation.withheld && !shown.length ? el("p", { class: "note" }, `No map is shown. ${why(explanation)}`) : null,
    shown.length ? el("div", { class: "side-by-side" }, ...shown) : null,
    shown.length
      ? el("p", { class: "quiet" }, LEGEND)
      : null,
  );
}

function figure(track, frame, seek) {
  const words = `${clock(frame.time_s)} · ${percent(frame.fake)}`;
  const alternative = `${faceName(track)} at ${clock(frame.time_s)}${hottest(frame.grid)}`;
  return el(
    "figure",
    { class: "map" },
    picture(frame, alternative),
    el(
      "figcaption",
      {},
      el("button", { type: "button", class: "jump", click: () => seek(frame.time_s) }, words),
      frame.faithfulness ? el("span", { class: "quiet" }, faithful(frame.faithfulness)) : null,
    ),
  );
}

function picture(frame, alternative) {
  const { overlay, grid, withheld } = frame;
  if (withheld) return el("p", { class: "withheld" }, `Withheld. ${why(frame)}`);
  if (overlay?.startsWith("data:image/png;base64,")) return el("img", { src: overlay, alt: alternative });
  return grid ? cells(grid, alternative) : el("p", { class: "withheld" }, "No map");
}

/** The plain grid, for answers without an overlay. */
function cells(grid, alternative) {
  const most = Math.max(1e-9, ...grid.flat().map(Math.abs));
  const cell = (value, x, y) =>
    svg("rect", { x, y, width: 1, height: 1, class: value > 0 ? "for" : "against", "fill-opacity": Math.abs(value) / most });
  const rects = grid.flatMap((row, y) => row.map((value, x) => cell(value, x, y)));
  const box = `0 0 ${grid[0].length} ${grid.length}`;
  return svg("svg", { viewBox: box, role: "img", "aria-label": alternative, preserveAspectRatio: "none" }, ...rects);
}

/** Where the strongest cell of a grid lies, in words. */
function hottest(grid) {
  if (!grid?.length) return "";
  const flat = grid.flat();
  const at = flat.indexOf(Math.max(...flat));
  const third = (i, of) => Math.min(2, Math.floor((3 * (i + 0.5)) / of));
  const [row, column] = [Math.floor(at / grid[0].length), at % grid[0].length];
  return `: most of the evidence lies at the ${WHERE[third(row, grid.length)][third(column, grid[0].length)]}`;
}

function faithful({ deletion, random, area }) {
  const moved = (fall) => `${fall < 0 ? "rise" : "fall"} by ${Math.abs(fall).toFixed(2)}`;
  return `Without the strongest ${share(area)} of the map's cells the log-odds ${moved(deletion)}; without as many at random they ${moved(random)}.`;
}
