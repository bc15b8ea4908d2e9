// Talks to the service. XMLHttpRequest sends the clip, since it alone tells how much of a body has gone out
// on every kind of connection, and hands over the events of the answer while they arrive.

import { isReadable } from "./files.js";

const UNREACHABLE = {
  type: "/problems/unreachable",
  title: "The connection broke",
  detail: "The server could not be reached, or it ended the connection before it had answered.",
  status: 0,
};
/** XMLHttpRequest tells it as a broken connection. */
const UNREADABLE = {
  type: "/problems/unreadable-file",
  title: "This file can not be read",
  detail: "Your browser can not, or can no longer, read the file.",
  status: 0,
};

export class Problem extends Error {
  constructor(body, retryAfter = null) {
    super(body.detail || body.title);
    this.name = (body.type || "").split("/").pop();
    this.title = body.title || "The server could not answer";
    this.status = body.status || 0;
    this.requestId = body.request_id || null;
    this.retryAfter = retryAfter;
  }
}

export class Cancelled extends Error {}

const address = (path) => new URL(path, document.baseURI);

/** JSON of a route. Throws Problem. */
export async function ask(path, key = null) {
  let response;
  try {
    response = await fetch(address(path), { headers: key ? { "X-API-Key": key } : {} });
  } catch {
    throw new Problem(UNREACHABLE);
  }
  const text = await response.text();
  if (!response.ok) throw refusal(response.status, text, response.headers.get("Retry-After"));
  return JSON.parse(text);
}

/**
 * Sends a clip. Returns the answer and its text as they came. Throws Problem or Cancelled.
 *
 * sent: called with the share of the clip that has gone out. event: called with the name and the content of
 * each event before the answer.
 */
export async function detect(file, options) {
  if (!(await isReadable(file))) throw new Problem(UNREADABLE);
  try {
    return await send(file, options);
  } catch (problem) {
    if (problem.name === "unreachable" && !(await isReadable(file))) throw new Problem(UNREADABLE);
    throw problem;
  }
}

function send(file, { query, key, signal, sent, event }) {
  if (signal.aborted) throw new Cancelled();
  const url = address("v1/detect");
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const events = new Events((name, data) => event(name, JSON.parse(data)));
    request.open("POST", url);
    request.setRequestHeader("Accept", "text/event-stream");
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (key) request.setRequestHeader("X-API-Key", key);
    request.upload.addEventListener("progress", (e) => e.lengthComputable && sent(e.loaded / e.total));
    request.upload.addEventListener("load", () => sent(1));
    request.addEventListener("progress", () => request.status === 200 && events.read(request.responseText));
    request.addEventListener("load", () => {
      try {
        resolve({ ...outcome(request, events), requestId: request.getResponseHeader("X-Request-ID") });
      } catch (problem) {
        reject(problem);
      }
    });
    request.addEventListener("error", () => reject(new Problem(UNREACHABLE)));
    request.addEventListener("abort", () => reject(new Cancelled()));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

function outcome(request, events) {
  if (request.status !== 200) {
    throw refusal(request.status, request.responseText, request.getResponseHeader("Retry-After"));
  }
  events.read(request.responseText);
  if (events.last === null) throw new Problem(UNREACHABLE);
  const { name, data } = events.last;
  if (name !== "answer") throw new Problem(JSON.parse(data));
  return { answer: JSON.parse(data), text: data };
}

function refusal(status, text, retryAfter) {
  const wait = Number.parseInt(retryAfter, 10);
  const after = Number.isFinite(wait) ? wait : null;
  try {
    return new Problem({ status, ...JSON.parse(text) }, after);
  } catch {
    return new Problem({ status, title: `The server answered with status ${status}` }, after);
  }
}

/** Server-sent events of a text that grows. The last one, the answer or the problem, is kept. */
class Events {
  constructor(tell) {
    this.tell = tell;
    this.at = 0;
    this.last = null;
  }

  read(text) {
    for (let end; (end = text.indexOf("\n\n", this.at)) >= 0; this.at = end + 2) {
      const lines = text.slice(this.at, end).split("\n");
      const field = (name) => lines.filter((l) => l.startsWith(`${name}: `)).map((l) => l.slice(name.length + 2));
      const [name] = field("event");
      const data = field("data").join("\n");
      if (name === "answer" || name === "problem") this.last = { name, data };
      else if (data) this.tell(name, data);
    }
  }
}
