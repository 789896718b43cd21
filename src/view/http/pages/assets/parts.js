// Components shared by pages: tiles, tables, notices, links.

import { h } from "./dom.js";
import { ago, count, duration, many, percent, short, shortHash } from "./format.js";

export const addressLink = (address, text = short(address, 10, 6)) => h("a", { class: text === address ? "mono break" : "mono nowrap", href: `/address/${encodeURIComponent(address)}`, title: address }, text);

/** The whole address where there is room for it. */
export const wholeAddressLink = (address) => addressLink(address, [h("span", { class: "if-wide" }, address), h("span", { class: "if-narrow" }, short(address, 8, 5))]);

export const shareLink = (hash, text = shortHash(hash)) => (hash ? h("a", { class: "mono nowrap", href: `/share/${hash}`, title: hash }, text) : "–");

export function tile(title, value, unit, note, more) {
  return h("section", { class: `tile${more?.wide ? " is-wide" : ""}` },
    h("h3", null, title),
    h("p", { class: `value ${more?.tone ?? ""}` }, value, unit ? h("small", null, unit) : null),
    note ? h("p", { class: "note" }, note) : null,
    more?.below ?? null);
}

export const badge = (text, tone = "") => h("span", { class: `badge ${tone}` }, text);

export const notice = (text, tone = "") => h("p", { class: `notice ${tone}` }, text);

export const card = (title, ...children) => h("section", { class: "card" }, title ? h("h2", null, title) : null, children);

export function facts(rows) {
  return h("dl", { class: "facts" }, rows.filter((row) => row && row[1] !== null && row[1] !== undefined).map(([name, ...value]) => [h("dt", null, name), h("dd", null, value)]));
}

const STATES = { submitted: ["on its way", "is-warn"], confirming: ["confirmed", "is-good"], mature: ["mature", "is-good"], orphaned: ["orphaned", "is-bad"], stale: ["too late", "is-bad"], rejected: ["refused", "is-bad"] };

/** State of a found block. */
export function stateBadge(block) {
  const [text, kind] = STATES[block.state] ?? ["not followed", ""];
  return badge(block.state === "confirming" && block.confirmations ? `${many(block.confirmations, "confirmation")}` : text, kind);
}

const OUTCOMES = { accepted: "is-good", stale: "is-bad", rejected: "is-bad", waiting: "is-warn", failed: "is-bad" };

/** Outcomes of a block's routes, by their `names`; null if there are none. */
export function routeList(routes, names) {
  if (routes.length === 0) return null;
  const time = ({ seconds, attempts }) => ` after ${seconds < 10 ? `${(seconds * 1000).toFixed(0)} ms` : duration(seconds)}${attempts > 1 ? `, in ${count(attempts)} attempts` : ""}`;
  return h("ul", null, routes.map((route) => h("li", null,
    h("span", { class: "soft" }, `${names[route.route] ?? route.route}: `), badge(route.outcome, OUTCOMES[route.outcome] ?? ""),
    route.detail ? ` ${route.detail}` : null, h("span", { class: "soft" }, time(route)))));
}

/** A bar that shows a fraction, beside its number. */
export function bar(proportion, kind = 0) {
  const width = Math.max(0, Math.min(1, proportion || 0)) * 100;
  return h("svg", { class: "bar-of", viewBox: "0 0 100 7", preserveAspectRatio: "none", "aria-hidden": "true" },
    h("rect", { width: 100, height: 7, rx: 3, fill: "var(--sunk)" }), h("rect", { class: `k${kind}`, width, height: 7, rx: 3 }));
}

const sorts = new Map();

/**
 * A sortable table. `columns`: {label, of(row) → cell, by(row) → sort key, num, head}.
 * The sort order is remembered by `id` while the page is open.
 */
export function table(id, caption, columns, rows, more = {}) {
  if (rows.length === 0) return h("p", { class: "empty" }, more.empty ?? "None.");
  const sort = sorts.get(id) ?? more.sort ?? null;
  let sorted = rows;
  if (sort) {
    const by = columns[sort.column].by;
    const sign = sort.down ? -1 : 1;
    sorted = [...rows].sort((one, other) => sign * compare(by(one), by(other)));
  }
  const shown = more.limit ? sorted.slice(0, more.limit) : sorted;
  const head = columns.map((column, index) => {
    const isSorted = sort?.column === index;
    const label = column.by && more.redraw
      ? h("button", { type: "button", onclick: () => { sorts.set(id, { column: index, down: isSorted ? !sort.down : Boolean(column.num) }); more.redraw(); } }, column.label, isSorted ? h("span", { "aria-hidden": "true" }, sort.down ? " ↓" : " ↑") : null)
      : column.label;
    return h("th", { scope: "col", class: column.num ? "num" : null, "aria-sort": isSorted ? (sort.down ? "descending" : "ascending") : null }, label);
  });
  const body = shown.map((row, at) => h("tr", { "data-key": more.key ? more.key(row) : `row-${at}` }, columns.map((column) =>
    column.head ? h("th", { scope: "row", class: column.num ? "num" : null }, column.of(row, at)) : h("td", { class: [column.num ? "num" : "", column.class ?? ""].join(" ").trim() || null }, column.of(row, at)))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", null, h("caption", { class: more.caption ? null : "unseen" }, caption), h("thead", null, h("tr", null, head)), h("tbody", null, body)));
}

function compare(one, other) {
  if (one === null || one === undefined) return other === null || other === undefined ? 0 : -1;
  if (other === null || other === undefined) return 1;
  return typeof one === "string" ? one.localeCompare(other) : one - other;
}

export const heading = (title, lede) => [h("h1", null, title), lede ? h("p", { class: "lede" }, lede) : null];

/** Tone of a fraction that should be small: green, amber, red. */
export function tone(proportion, warn, bad) {
  if (proportion === null || proportion === undefined) return "";
  return proportion >= bad ? "bad" : proportion >= warn ? "warn" : "";
}

/** A value and its confidence interval on a scale. */
export function range({ value, low, high }, from, to, label) {
  const x = (number) => ((Math.max(from, Math.min(to, number)) - from) / (to - from)) * 200;
  return h("svg", { class: "range", viewBox: "0 0 200 20", preserveAspectRatio: "none", role: "img", "aria-label": label },
    h("rect", { x: 0, y: 8, width: 200, height: 4, rx: 2, fill: "var(--sunk)" }),
    h("rect", { x: x(low), y: 8, width: Math.max(2, x(high) - x(low)), height: 4, rx: 2, fill: "var(--accent)", opacity: 0.45 }),
    h("line", { x1: x(1), x2: x(1), y1: 3, y2: 17, stroke: "var(--soft)", "stroke-dasharray": "2 2", "vector-effect": "non-scaling-stroke" }),
    h("rect", { x: x(value) - 1.5, y: 3, width: 3, height: 14, rx: 1.5, fill: "var(--accent)" }));
}

export const staleText = (stale) => ({ orphan: "announces an orphan", doa: "announces a dead share" })[stale] ?? (stale ? `announces ${stale}` : null);

export { ago, percent };
