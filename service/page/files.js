// Files as they are chosen, and whether they are still there when they are needed.

import { $ } from "./dom.js";

/** Has the files that are chosen, pasted or dropped handed over. */
export function listenForFiles(choose) {
  $("file").addEventListener("change", (event) => choose(event.target.files));
  document.addEventListener("paste", (event) => choose(event.clipboardData.files));
  const over = (event, shows) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    $("over").hidden = !shows;
  };
  document.addEventListener("dragenter", (event) => over(event, true));
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && over(event, false));
  document.addEventListener("drop", (event) => {
    over(event, false);
    choose(event.dataTransfer.files);
  });
}

/** False of a file that was moved, removed or changed since it was chosen, and of a folder. True of an empty file. */
export async function isReadable(file) {
  try {
    // A part without bytes is had of any file.
    await (file.size ? file.slice(0, 1) : file).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}
