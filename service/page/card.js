// Shows a model card: the Markdown that cards are made of, as elements, and the figures that sum it up.

import { el } from "./dom.js";
import { share } from "./format.js";

/** Headings, paragraphs, lists, tables and code. Headings start at level `top`. */
export function markdown(text, top = 3) {
  const whole = document.createDocumentFragment();
  const lines = text.replaceAll("\r", "").split("\n");
  while (lines.length) {
    const line = lines[0];
    if (!line.trim()) lines.shift();
    else if (line.startsWith("```")) whole.append(code(lines));
    else if (line.startsWith("#")) whole.append(heading(lines.shift(), top));
    else if (line.startsWith("|")) whole.append(table(taken(lines, (l) => l.startsWith("|"))));
    else if (/^[-*] /.test(line)) whole.append(list(lines));
    else whole.append(el("p", {}, ...inline(taken(lines, isProse).join(" "))));
  }
  return whole;
}

/** How well a model was measured to do, in sentences; null where its manifest does not say. */
export function measured(manifest) {
  const plain = manifest.summary?.evaluation?.conditions?.["as-published"];
  const auc = plain?.figures?.auc;
  if (typeof auc?.value !== "number") return null;
  const span = ({ value, low, high }) =>
    typeof low === "number" ? `${share(value)} (${share(low)} to ${share(high)})` : share(value);
  const rate = (name, whose) => {
    const figure = plain.figures[name];
    return typeof figure?.value === "number" ? `${span(figure)} of the ${whose} clips` : null;
  };
  const called = [rate("false_positive_rate", "genuine"), rate("true_positive_rate", "forged")].filter(Boolean);
  return (
    `Measured on ${plain.real} genuine and ${plain.fake} forged clips that it never saw: of a forged and a genuine ` +
    `clip it gives the forged one the higher score in ${span(auc)} of all cases, where guessing gives 50%.` +
    (called.length ? ` It calls ${called.join(" and ")} “manipulated”.` : "") +
    " In brackets stand 95% intervals."
  );
}

const isProse = (line) => line.trim() && !/^(#|\||```|[-*] )/.test(line);

function taken(lines, wanted) {
  const found = [];
  while (lines.length && (found.length === 0 || wanted(lines[0]))) found.push(lines.shift());
  return found;
}

function code(lines) {
  lines.shift();
  const found = [];
  while (lines.length && !lines[0].startsWith("```")) found.push(lines.shift());
  lines.shift();
  return el("pre", { tabindex: "0" }, el("code", {}, found.join("\n")));
}

function heading(line, top) {
  const [, marks, words] = /^(#+)\s*(.*)$/.exec(line);
  return el(`h${Math.min(6, top + marks.length - 1)}`, {}, ...inline(words));
}

function list(lines) {
  const items = [];
  for (const line of taken(lines, (l) => /^([-*] | {2,}\S)/.test(l))) {
    if (/^[-*] /.test(line)) items.push(line.slice(2));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  return el("ul", {}, ...items.map((item) => el("li", {}, ...inline(item))));
}

function table(lines) {
  const cells = (line) => line.replace(/^\||\|\s*$/g, "").split("|").map((cell) => cell.trim());
  const [head, , ...rows] = lines.map(cells);
  const filled = head.some((cell) => cell);
  const row = (name, values) => el("tr", {}, ...values.map((value) => el(name, {}, ...inline(value))));
  return el(
    "div",
    { class: "scrolls", tabindex: "0", role: "region", "aria-label": filled ? head.join(", ") : "Table" },
    el(
      "table",
      {},
      filled ? el("thead", {}, row("th", head)) : null,
      el("tbody", {}, ...rows.map((values) => row("td", values))),
    ),
  );
}

/** Code and bold text; an address stays text, so that a card leads nowhere. */
function inline(text) {
  return text
    .split(/(`[^`]+`|\*\*[^*]+\*\*)/)
    .filter((part) => part)
    .map((part) => {
      if (part.startsWith("`")) return el("code", {}, part.slice(1, -1));
      if (part.startsWith("**") && part.length > 4) return el("strong", {}, part.slice(2, -2));
      return part.replace(/\[([^\]]+)\]\([^)]*\)/g, "$1");
    });
}
