// Formats numbers for display.

import { h } from "./dom.js";

const PREFIXES = ["", "k", "M", "G", "T", "P", "E", "Z"];

/** Formats a number with a prefix: [text, prefix]. */
export function scaled(number, digits = 3) {
  if (!Number.isFinite(number)) return ["–", ""];
  let index = 0;
  let value = Math.abs(number);
  while (value >= 999.5 && index < PREFIXES.length - 1) {
    value /= 1000;
    index += 1;
  }
  value *= Math.sign(number);
  if (value !== 0 && Math.abs(value) < 0.01 && index === 0) return [value.toPrecision(digits).replace(/e([+-])0*/, "e$1"), ""];
  const whole = Math.max(1, Math.floor(Math.log10(Math.abs(value) || 1)) + 1);
  return [value.toFixed(Math.max(0, Math.min(digits - whole, 2 + (Math.abs(value) < 0.1)))), PREFIXES[index]];
}

export function withUnit(number, unit) {
  const [text, prefix] = scaled(number);
  return text === "–" ? text : `${text}\u00a0${prefix}${unit}`;
}

export const rate = (hashes) => (hashes === null || hashes === undefined ? "–" : withUnit(hashes, "H/s"));

export function difficulty(value) {
  if (value === null || value === undefined) return "–";
  const [text, prefix] = scaled(value);
  return prefix ? `${text}\u00a0${prefix}` : text;
}

/** Formats the difficulty of a block: with its unit where the coin's miners use another. */
export const blockDifficulty = (value, scale) => (scale > 1 ? `${difficulty(value)} (bdiff)` : difficulty(value));

export function percent(proportion, digits = 1) {
  return proportion === null || proportion === undefined ? "–" : `${(proportion * 100).toFixed(digits)}\u00a0%`;
}

/** Formats satoshis as coins, with all eight digits where they matter. */
export function coins(satoshi, symbol = "") {
  if (satoshi === null || satoshi === undefined) return "–";
  const text = (satoshi / 1e8).toFixed(8);
  return symbol ? `${text}\u00a0${symbol}` : text;
}

/** Formats seconds in the two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const units = [["year", "years", 31557600], ["day", "days", 86400], ["h", "h", 3600], ["min", "min", 60], ["s", "s", 1]];
  if (seconds >= 31557600 * 1000) return "over 1000 years";
  if (seconds < 1) return seconds <= 0 ? "0\u00a0s" : "under 1\u00a0s";
  const first = units.findIndex(([, , size]) => seconds >= size);
  const [one, many, size] = units[first];
  const count = Math.floor(seconds / size);
  const rest = units[first + 1];
  const more = rest && count < 10 ? Math.round((seconds - count * size) / rest[2]) : 0;
  const text = `${count}\u00a0${count === 1 ? one : many}`;
  return more > 0 && more * rest[2] < size ? `${text} ${more}\u00a0${more === 1 ? rest[0] : rest[1]}` : text;
}

export function count(number) {
  return number === null || number === undefined ? "–" : Number(number).toLocaleString("en").replaceAll(",", "\u202f");
}

/** Formats a count with its noun in singular or plural. */
export function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

export function date(seconds) {
  const when = new Date(seconds * 1000);
  const pad = (number) => String(number).padStart(2, "0");
  return `${when.getFullYear()}-${pad(when.getMonth() + 1)}-${pad(when.getDate())} ${pad(when.getHours())}:${pad(when.getMinutes())}:${pad(when.getSeconds())}`;
}

/** Creates an element that shows the time since an event, and is kept up to date. */
export function ago(seconds, suffix = " ago") {
  if (!seconds) return "–";
  return h("time", { datetime: new Date(seconds * 1000).toISOString(), title: date(seconds), "data-ago": seconds, "data-suffix": suffix }, agoText(seconds, suffix));
}

function agoText(seconds, suffix) {
  const passed = Date.now() / 1000 - seconds;
  return passed < 1.5 ? "now" : duration(passed) + suffix;
}

export function refreshAgo(root = document) {
  for (const element of root.querySelectorAll("time[data-ago]")) {
    const text = agoText(Number(element.dataset.ago), element.dataset.suffix);
    if (element.textContent !== text) element.textContent = text;
  }
}

/** Shortens a long name in the middle. */
export function short(text, head = 8, tail = 6) {
  return text && text.length > head + tail + 3 ? `${text.slice(0, head)}…${text.slice(-tail)}` : (text ?? "–");
}

/** Shortens a share's hash, without its leading zeros. */
export function shortHash(hash) {
  const digits = (hash ?? "").replace(/^0+/, "");
  return digits ? `…${digits.slice(0, 8)}` : "–";
}
