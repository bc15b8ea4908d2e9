// Makes elements. Whatever is shown passes through text nodes and attributes; no text ever becomes markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** An element with attributes; a function among them listens to the event of its name. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Shows one of several elements and hides the others. */
export function showOnly(wanted, all) {
  for (const element of all) element.hidden = element !== wanted;
}

/** A list of facts; those whose value is null are left out. */
export function facts(rows, attributes = {}) {
  const list = el("dl", attributes);
  for (const [name, value] of rows) {
    if (value === null || value === undefined || value === "") continue;
    list.append(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  }
  return list;
}

/** Says something to those who listen to the page, without moving the focus. */
export function announce(words) {
  $("announce").textContent = words;
}
