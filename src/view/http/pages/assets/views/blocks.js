// The pool's found blocks, and their routes to the network.

import { h } from "../dom.js";
import * as api from "../api.js";
import { ago, coins, count, date, many, percent } from "../format.js";
import { addressLink, badge, facts, heading, routeList, shareLink, stateBadge, tile } from "../parts.js";
import { blocksSection } from "../merged.js";

export default function blocks() {
  return {
    events: ["rates", "merged_block"],
    title: () => "Blocks",
    async load() {
      const [blocks, summary] = await Promise.all([api.get("/blocks?limit=100"), api.get("/summary")]);
      return { ...blocks, summary, merged: await api.merged(summary, 100) };
    },
    render: ({ blocks: rows, total, symbol, summary: { pool }, merged }) => [
      heading("Blocks", "Blocks of the pool. Those that this node submitted are followed on every route until they are mature, a hundred blocks deep."),
      h("div", { class: "tiles" },
        tile("Blocks", count(total), null, "that this node remembers"),
        tile("Found by this node", count(rows.filter((row) => row.is_own).length), null, "by its own miners"),
        tile("Orphaned", count(rows.filter((row) => ["orphaned", "stale", "rejected"].includes(row.state)).length), null, "not in the best chain"),
        tile("Luck", pool.luck === null ? "–" : percent(pool.luck, 0), null, "blocks found against those expected")),
      rows.length === 0 ? h("p", { class: "empty" }, "None yet. Each one appears here the moment it is found.") : rows.map((row) => block(row, symbol)),
      merged ? blocksSection(merged, symbol) : null,
    ],
  };
}

const ROUTES = { rpc: "RPC to bitcoind", p2p: "peer-to-peer to bitcoind", embedded: "the embedded chain" };

function block(row, symbol) {
  return h("section", { class: "card", "data-key": row.hash, id: row.hash },
    h("div", { class: "card-head" },
      h("h2", null, `Block ${count(row.height)} `, stateBadge(row), " ", row.is_own ? badge("found here", "is-good") : null),
      h("span", { class: "soft small" }, date(row.time), " (", ago(row.time), ")")),
    facts([
      ["Hash", h("span", { class: "mono" }, row.hash)],
      ["Share", shareLink(row.share)],
      row.payee ? ["Its share pays", addressLink(row.payee, row.payee)] : null,
      [row.is_own ? "Found by worker" : "Share came from", row.finder ? h("span", { class: "break" }, row.finder) : null],
      ["Worth", row.value === null ? null : coins(row.value, symbol)],
      ["Confirmations", row.confirmations === null || !["confirming", "mature"].includes(row.state) ? null : row.state === "mature" ? "100 or more: spendable" : many(row.confirmations, "confirmation")],
      ["Why", row.detail],
      ["Routes", routeList(row.routes, ROUTES)],
    ]));
}
