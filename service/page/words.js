// What the page says of verdicts, reasons and problems.

import { percent } from "./format.js";

/** Verdicts: a heading, and what it does and does not mean. */
export const VERDICTS = {
  authentic: [
    "No sign of manipulation found",
    "The score lies below the threshold: too little was found that speaks for manipulation. That is not proof " +
      "that the clip is genuine.",
  ],
  manipulated: [
    "Signs of manipulation",
    "At least one face carries traces that the detector links to manipulation. That is a reason to look " +
      "closer, not proof: genuine footage can look like this, too.",
  ],
  uncertain: [
    "The evidence does not decide",
    "The score lies where genuine and manipulated clips can not be told apart well enough. Treat the clip as " +
      "unchecked.",
  ],
  not_applicable: [
    "No verdict",
    "The detector judges faces alone, and found none in this clip that it can judge. That says nothing about " +
      "whether the clip is genuine.",
  ],
};

/** Where a probability lies between the thresholds: how it is drawn, and how it is said. */
export const LEVELS = {
  low: "below both thresholds",
  middle: "between the thresholds",
  high: "over both thresholds",
};

export function level(fake, thresholds) {
  if (fake >= thresholds.manipulated_above) return "high";
  return fake < thresholds.authentic_below ? "low" : "middle";
}

const REASONS = {
  over_threshold: "Score over the threshold",
  between_thresholds: "Score between the thresholds",
  no_face: "No face",
  face_too_small: "Face too small",
  too_blurred: "Face too blurred",
  too_dark: "Face too dark",
  too_short: "Seen too briefly",
  profile: "Face from the side",
  heavily_compressed: "Heavily compressed",
  upscaled: "Few pixels",
  codec_not_calibrated: "Codec not measured",
  partly_seen: "Only partly seen",
  untrained_model: "Model not trained",
  uncalibrated: "Not calibrated",
};

const named = (code) => REASONS[code] || code.replaceAll("_", " ");

/** A reason of the answer as a title and a sentence. */
export function reason(text) {
  const [, code, words] = /^(\w+): (.*)$/s.exec(text) || [null, "", text];
  return [code ? named(code) : "Remark", `${words.charAt(0).toUpperCase()}${words.slice(1).replace(/\.$/, "")}.`];
}

export const remark = named;

/** The number is that of the answer, so that the page, its report, the JSON and the command line name the same face. */
export const faceName = (track) => `Face ${track}`;

/** A face in a few words, for the label beside its box and its name. */
export function faceScore(face) {
  return face.usable && face.probabilities ? percent(face.probabilities.fake) : "not judged";
}

/** What to do about a problem; its own title and detail stand beside it. */
export const REMEDIES = {
  unreachable: "Check your connection and try again. A very large clip may also be cut off by a proxy on the way.",
  "unreadable-file":
    "Was it moved, renamed or changed after you had chosen it? Choose it again. Of a folder, choose the clips in it.",
  "empty-body": "The file has no content. Choose another one.",
  "upload-too-slow": "Try again over a faster connection, or choose a shorter clip.",
  "upload-too-large": "Choose a shorter clip, or export it at a lower resolution. Keep the original: a copy shows less.",
  "unsupported-media": "Choose a video such as MP4, MOV, WebM, MKV or AVI, or a GIF, WebP, JPEG or PNG picture.",
  "undecodable-media": "The file is damaged or incomplete. Check that it plays to its end, and fetch it again if it does not.",
  "no-video-stream": "The file holds sound alone. Choose one with pictures.",
  "no-frames": "Not one picture in it could be read. Check that it plays; the original may be intact.",
  "picture-too-small": "The picture is smaller than any face has to be. Look for the original.",
  "picture-too-large": "Choose a copy of lower resolution.",
  "deadline-exceeded": "Try again when the server has less to do, or choose a shorter clip.",
  "unknown-model": "Reload the page; the server offers other models now.",
  "internal-error": "This is a defect of the server. Tell its operator the reference below.",
  overloaded: "The server still has no room for this clip. Try again in a while.",
  "not-ready": "The server is starting or has lost a part that it needs. Try again in a while.",
  "rate-limited": "Your key is used more often than the operator allows. Try again in a while.",
};

/** Whether the same clip may fare better another time. */
export const mayPass = ({ name, status }) =>
  name === "unreachable" || status === 408 || status === 429 || status >= 500;

/** Problems that pass by themselves, and how the page says that it waits. */
export const PASSING = {
  overloaded: "The server is busy with other clips.",
  "not-ready": "The server is not ready yet.",
  "rate-limited": "Your key has been used too often in a short time.",
};
