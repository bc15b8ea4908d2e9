// What the page says of the server and its models before a clip is sent.

import { markdown, measured } from "./card.js";
import { $, el } from "./dom.js";
import { bytes, length } from "./format.js";
import { ask } from "./request.js";

/** What the server says of itself; the page does without, and the server says its limits when they are reached. */
export const about = { max_upload_bytes: Infinity, version: "" };
/** Null until the server has told them. */
export let models = null;

/** Shows the limits of the server. */
export async function meetServer() {
  $("host").textContent = location.host;
  try {
    Object.assign(about, await ask("page/about.json"));
  } catch {
    return;
  }
  $("limits").textContent =
    `MP4, MOV, WebM, MKV, AVI, GIF and more, up to ${bytes(about.max_upload_bytes)}; ` +
    `the first ${length(about.max_duration_s)} are looked at`;
  $("version").textContent = about.version;
  $("docs").hidden = !about.docs;
}

/** Offers the models of the server. Throws Problem. */
export async function meetModels(key) {
  models = await ask("v1/models", key);
  const option = ({ id }) => {
    const standard = id === models.default;
    return el("option", { value: standard ? "" : id, selected: standard }, standard ? `${id} (default)` : id);
  };
  $("model-choice").replaceChildren(...models.models.map(option));
  $("model-choice").disabled = models.models.length < 2;
  showModel(models.default, key);
}

/** Shows the card of a model, and how well it was measured to do. */
export async function showModel(id, key) {
  if ($("card").dataset.model === id) return;
  try {
    const { card, manifest } = await ask(`v1/models/${encodeURIComponent(id)}`, key);
    const words = measured(manifest);
    if (words) $("model-measured").textContent = `${id}: ${words}`;
    $("limits-measured").textContent = words || "";
    $("limits-measured").hidden = !words;
    $("card-name").textContent = ` of ${id}`;
    $("card-text").replaceChildren(markdown(card, 3));
    $("card").dataset.model = id;
  } catch {
    $("card-text").replaceChildren(el("p", {}, "The model card can not be had at the moment."));
  }
}
