// Figures in words.

/** A probability. It never reads as certainty. */
export function percent(p) {
  if (p > 0.99 && p <= 1) return "over 99%";
  if (p < 0.01) return "under 1%";
  return `${Math.round(p * 100)}%`;
}

/** A part of a whole. */
export function share(part) {
  return `${Math.round(part * 100)}%`;
}

export function bytes(count) {
  if (count < 1000) return `${count} bytes`;
  const units = ["kB", "MB", "GB", "TB"];
  const power = Math.min(units.length, Math.floor(Math.log10(count) / 3));
  const value = count / 1000 ** power;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[power - 1]}`;
}

/** A time within a clip. digits: of the fraction of a second. */
export function clock(seconds, digits = 2) {
  const parts = Math.max(0, Math.round(seconds * 10 ** digits));
  const rest = (parts % (60 * 10 ** digits)) / 10 ** digits;
  return `${Math.floor(parts / (60 * 10 ** digits))}:${rest < 10 ? "0" : ""}${rest.toFixed(digits)}`;
}

export function seconds(value) {
  return `${value < 10 ? value.toFixed(2).replace(/\.?0+$/, "") : value.toFixed(1)} s`;
}

/** A longer time, in its own unit. */
export function length(value) {
  return value < 120 ? count(Math.round(value), "second") : count(Math.round(value / 60), "minute");
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

export function moment(date) {
  const local = date.toLocaleString(undefined, { dateStyle: "long", timeStyle: "long" });
  return `${local} (${date.toISOString().replace(/\.\d+/, "")})`;
}
