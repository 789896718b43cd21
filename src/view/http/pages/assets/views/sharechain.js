// The drawing of the newest shares, and the same shares as a table.

import { h } from "../dom.js";
import * as api from "../api.js";
import { ago, count, difficulty, duration, many, percent, rate } from "../format.js";
import { addressLink, badge, card, facts, heading, shareLink, staleText, table } from "../parts.js";
import { drawing, follow } from "../chain.js";
import { messages, versionsCard } from "../versions.js";

export default function sharechain({ redraw }) {
  return {
    events: ["rates"],
    title: () => "Sharechain",
    async load() {
      const [shares, summary] = await Promise.all([api.get("/shares"), api.get("/summary")]);
      return { shares, summary };
    },
    drawn: (root) => follow(root),
    render: ({ shares: { shares, tip, heads }, summary: { pool, versions } }) => [
      heading("Sharechain", "Each share is a block of lower difficulty that records which addresses the next block must pay. All nodes of the pool keep the same chain."),
      messages(versions),
      h("section", { class: "card" }, h("h2", null, `The newest ${many(shares.length, "share")}`), drawing(shares, tip)),
      h("div", { class: "columns" },
        card("The chain", facts([
          ["Best share", shareLink(tip)],
          ["Shares on the best chain", count(pool.shares)],
          ["Heads", count(heads)],
          ["A share every", duration(pool.share_period)],
          ["Difficulty of a share", difficulty(pool.share_difficulty)],
          ["Hash rate", rate(pool.hash_rate)],
          ["Lost as stale", percent(pool.stale_proportion)],
        ])),
        card("Share versions", table("versions", "Hash rate by the share version that it votes for", [
          { label: "Votes for", head: true, of: (row) => `version ${row.version}` },
          { label: "Hash rate", num: true, of: (row) => rate(row.hash_rate) },
        ], pool.desired_versions, { empty: "No votes yet." }))),
      versionsCard(versions),
      card("As a table", table("shares", "The newest shares", columns, [...shares].sort((one, other) => other.height - one.height || other.time - one.time), { key: (row) => row.hash, redraw })),
    ],
  };
}

const columns = [
  { label: "Height", head: true, num: true, of: (row) => shareLink(row.hash, count(row.height)), by: (row) => row.height },
  { label: "Time", of: (row) => ago(row.time), by: (row) => row.time },
  { label: "Paid to", of: (row) => addressLink(row.payee), by: (row) => row.payee },
  { label: "Difficulty", num: true, of: (row) => difficulty(row.difficulty), by: (row) => row.difficulty },
  { label: "Share", of: (row) => shareLink(row.hash), by: (row) => row.hash },
  { label: "", of: (row) => marks(row) },
];

export function marks(row) {
  return [
    row.is_block ? badge("block", "is-gold") : null, row.is_own ? badge("found here", "is-good") : null, row.is_best ? null : badge("not on the best chain", "is-warn"),
    row.is_verified ? null : badge("not verified"), row.stale ? badge(staleText(row.stale)) : null,
  ].filter(Boolean).flatMap((one) => [one, " "]);
}
