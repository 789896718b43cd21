// Miners of this node.

import { h } from "../dom.js";
import * as api from "../api.js";
import { ago, coins, count, difficulty, many, percent, rate } from "../format.js";
import { addressLink, badge, card, heading, table, tone } from "../parts.js";
import { refusedText } from "./address.js";

export default function miners({ redraw }) {
  return {
    events: ["rates"],
    title: () => "Miners",
    async load() {
      const [miners, workers] = await Promise.all([api.get("/miners"), api.get("/workers?limit=1000")]);
      return { ...miners, workers: workers.workers, total_workers: workers.total };
    },
    render: ({ miners: rows, workers, total_workers: total, symbol }) => [
      heading("Miners", "Miners of this node in the last day. Point a miner at this host's worker port, with your payout address as its user name."),
      card(many(rows.length, "address", "addresses"), table("miners", "Miners by payout address", [
        { label: "Address", head: true, of: (row) => addressLink(row.address), by: (row) => row.address },
        { label: "Workers", num: true, of: (row) => count(row.workers), by: (row) => row.workers },
        { label: "Connections", num: true, of: (row) => count(row.connections), by: (row) => row.connections },
        { label: "Hash rate", num: true, of: (row) => rate(row.hash_rate), by: (row) => row.hash_rate },
        { label: "Late", num: true, of: (row) => late(row), by: (row) => row.late_hash_rate / row.hash_rate },
        { label: "Part of the pool's work", num: true, of: (row) => percent(row.fraction, 2), by: (row) => row.fraction },
        { label: `Next block pays (${symbol})`, num: true, of: (row) => coins(row.expected_payout), by: (row) => row.expected_payout },
        { label: "Last submission", of: (row) => ago(row.last_seen), by: (row) => row.last_seen },
      ], rows, { key: (row) => row.address, redraw, sort: { column: 3, down: true }, empty: "No miner worked here in the last day." })),
      card(many(total, "worker"), table("workers", "Workers", workerColumns(true), workers, { key: (row) => row.name, redraw, sort: { column: 1, down: true }, empty: "No submissions in the last day." }),
        total > workers.length ? h("p", { class: "more soft" }, `Those with most hash rate; ${count(total - workers.length)} more are in `, h("a", { href: "/api/v1/workers" }, "the API"), ".") : null),
    ],
  };
}

function late(row) {
  const part = row.hash_rate > 0 ? row.late_hash_rate / row.hash_rate : null;
  return h("span", { class: tone(part, 0.03, 0.1) }, percent(part));
}

export function workerColumns(links) {
  return [
    { label: "Worker", head: true, class: "break", of: (row) => [links && row.address ? h("a", { href: `/address/${encodeURIComponent(row.address)}`, title: row.name }, nameOf(row)) : nameOf(row), " ", healthBadge(row)], by: (row) => row.name },
    { label: "Hash rate", num: true, of: (row) => rate(row.hash_rate), by: (row) => row.hash_rate },
    { label: "Late", num: true, of: late, by: (row) => row.late_hash_rate / row.hash_rate },
    { label: "Difficulty", num: true, of: (row) => difficulty(row.difficulty), by: (row) => row.difficulty },
    { label: "Accepted", num: true, of: (row) => count(row.accepted), by: (row) => row.accepted },
    { label: "Refused", class: "wide", of: (row) => refusedText(row), by: (row) => Object.values(row.refused).reduce((sum, number) => sum + number, 0) },
    { label: "Best", num: true, of: (row) => difficulty(row.best_difficulty), by: (row) => row.best_difficulty },
    { label: "Last submission", of: (row) => ago(row.last_seen), by: (row) => row.last_seen },
  ];
}

/** Open connections: user agent, and results since the connection began. */
export function connectionColumns() {
  return [
    { label: "Worker", head: true, class: "break", of: (row) => [nameOf({ name: row.worker, address: row.address }), " ", healthBadge(row)], by: (row) => row.worker },
    { label: "Device", class: "break", of: (row) => row.user_agent || (row.protocol === "getwork" ? "polls by getwork" : "unknown"), by: (row) => row.user_agent },
    { label: "Since", of: (row) => ago(row.since), by: (row) => row.since },
    { label: "Difficulty", num: true, of: (row) => difficulty(row.difficulty), by: (row) => row.difficulty },
    { label: "Hash rate since", num: true, of: (row) => rate(row.hash_rate), by: (row) => row.hash_rate },
    { label: "Late", num: true, of: late, by: (row) => row.late_hash_rate / row.hash_rate },
    { label: "Accepted", num: true, of: (row) => count(row.accepted), by: (row) => row.accepted },
    { label: "Refused", num: true, of: (row) => count(row.refused), by: (row) => row.refused },
    { label: "Last submission", of: (row) => (row.last_seen ? ago(row.last_seen) : "none yet"), by: (row) => row.last_seen },
  ];
}

const HEALTH = { new: ["new", ""], late: ["late", "is-warn"], refused: ["refused", "is-bad"], silent: ["silent", "is-bad"], too_small: ["device too small", "is-bad"] };

/** Badge for a worker's problem; none for a healthy one. */
function healthBadge(row) {
  const [text, tone] = HEALTH[row.health] ?? [null];
  return text ? h("span", { title: row.warning }, badge(text, tone)) : null;
}

/** Part of a worker's name after the address. */
function nameOf(row) {
  if (!row.address) return row.name;
  const rest = row.name.slice(row.address.length);
  return row.name.startsWith(row.address) && rest ? `${row.address.slice(0, 6)}…${row.address.slice(-4)}${rest}` : row.name.length > 30 ? `${row.name.slice(0, 12)}…${row.name.slice(-8)}` : row.name;
}
