// Peers and bans.

import * as api from "../api.js";
import { h } from "../dom.js";
import { ago, count, date, duration, many, percent } from "../format.js";
import { badge, bar, card, heading, notice, table, tile } from "../parts.js";

export default function peers({ redraw }) {
  return {
    events: ["rates", "peer"],
    title: () => "Peers",
    async load() {
      const [peers, bans] = await Promise.all([api.get("/peers"), api.get("/bans")]);
      return { ...peers, bans: bans.bans, total_bans: bans.total };
    },
    render: (data) => [
      heading("Peers", "Nodes of the pool that this one exchanges shares with, and banned addresses."),
      h("div", { class: "tiles" },
        tile("Connections", count(data.incoming + data.outgoing), null, `${count(data.incoming)} came in, ${count(data.outgoing)} went out`),
        tile("Known addresses", count(data.known_addresses), null, `${count(data.dialing)} being dialled`),
        tile("Banned", count(data.total_bans), null, "for breaking the protocol, or by the operator")),
      data.download ? h("div", { class: "notices" }, notice(`Loading the sharechain: ${count(data.download.have)} of ${count(data.download.wanted)} shares${data.download.seconds_left === null ? "" : `, ${duration(data.download.seconds_left)} left`}.`, "is-info")) : null,
      card(many(data.peers.length, "peer"), table("peers", "Peers", [
        { label: "Address", head: true, class: "mono", of: (row) => row.address, by: (row) => row.address },
        { label: "Direction", of: (row) => [row.is_incoming ? "in" : "out", row.is_permanent ? [" ", badge("always", "is-good")] : null], by: (row) => Number(row.is_incoming) },
        { label: "Connected", of: (row) => ago(row.since, ""), by: (row) => -row.since },
        { label: "Latency", num: true, of: (row) => (row.latency === null ? "–" : `${(row.latency * 1000).toFixed(0)}\u00a0ms`), by: (row) => row.latency },
        { label: "Shares from", num: true, of: (row) => count(row.shares_received), by: (row) => row.shares_received },
        { label: "Shares to", num: true, of: (row) => count(row.shares_sent), by: (row) => row.shares_sent },
        { label: "Protocol", num: true, of: (row) => row.protocol_version, by: (row) => row.protocol_version },
        { label: "Software", class: "break", of: (row) => row.sub_version, by: (row) => row.sub_version },
      ], data.peers, { key: (row) => `peer-${row.id}`, redraw, empty: "No peer is connected." })),
      card("Banned", table("bans", "Banned addresses", [
        { label: "Address", head: true, class: "mono", of: (row) => row.address, by: (row) => row.address },
        { label: "Until", of: (row) => h("span", { title: date(row.until) }, `for another ${duration(row.until - Date.now() / 1000)}`), by: (row) => row.until },
        { label: "By", of: (row) => (row.by_operator ? "the operator" : `the node, ${many(row.score, "offence")}`), by: (row) => row.score },
        { label: "Why", class: "break", of: (row) => row.reason, by: (row) => row.reason },
      ], data.bans, { key: (row) => row.address, redraw, empty: "None." }),
        h("p", { class: "more soft" }, "On the node's machine, ", h("code", null, "p2pool ban ADDRESS"), " and ", h("code", null, "p2pool unban ADDRESS"), " change this list.")),
    ],
  };
}
