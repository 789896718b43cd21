// Payouts of the next block.

import { h } from "../dom.js";
import * as api from "../api.js";
import { coins, count, many, percent, short } from "../format.js";
import { badge, bar, card, heading, table, wholeAddressLink } from "../parts.js";

// Shares of the window, by the rules of their version.
function counting(version) {
  return version >= 36
    ? "A share counts from its child on, less with every share that follows: its weight halves in a quarter of the window."
    : "A share counts from its grandchild on, and for about three blocks' worth of work.";
}

/** Address of each payee on the merged chain, and the amount while its blocks pay the miners. */
function mergedColumns({ merged_symbol: symbol, payouts }) {
  const address = { label: `Address in ${symbol}`, of: (row) => (row.merged_address
    ? [h("span", { class: "mono nowrap", title: row.merged_address }, short(row.merged_address, 10, 6)), row.is_merged_address_named ? null : h("span", { class: "soft" }, " (same key)")] : "none"), by: (row) => row.merged_address };
  const amount = { label: `Amount in ${symbol}`, num: true, of: (row) => coins(row.merged_amount), by: (row) => row.merged_amount };
  return payouts.some((row) => row.merged_amount !== null) ? [address, amount] : [address];
}

export default function payouts({ redraw }) {
  return {
    events: ["rates"],
    title: () => "Payouts",
    async load() {
      const [payouts, merged] = await Promise.all([api.get("/payouts?limit=2000"), api.get("/merged?limit=0")]);
      return { ...payouts, chains: merged.chains };
    },
    render: (data) => [
      heading("Payouts", "If the pool found a block now, its coinbase would pay these addresses directly. No operator holds the money in between."),
      card(`${many(data.total, "payee")}, ${coins(data.block_value, data.symbol)} in all`,
        table("payouts", "Expected payouts", [
          { label: "Rank", num: true, of: (row) => count(row.rank), by: (row) => row.rank },
          { label: "Address", head: true, of: (row) => [wholeAddressLink(row.address), " ", row.is_local ? badge("mines here", "is-good") : null, row.is_dust ? badge("dust", "is-warn") : null], by: (row) => row.address },
          { label: "Part", num: true, of: (row) => [percent(row.fraction, 2), bar(row.fraction)], by: (row) => row.fraction },
          { label: `Amount in ${data.symbol}`, num: true, of: (row) => coins(row.amount), by: (row) => row.amount },
          ...(data.merged_symbol ? mergedColumns(data) : []),
        ], data.payouts.map((row, at) => ({ ...row, rank: at + 1 })), { key: (row) => row.address, redraw, sort: { column: 3, down: true }, empty: "None yet: there is no share, or no template from bitcoind." }),
        data.total > data.payouts.length ? h("p", { class: "more soft" }, `The largest ${count(data.payouts.length)} of ${count(data.total)}.`) : null),
      h("p", { class: "soft small" }, `${counting(data.share_version)}${data.finder_percent > 0 ? ` The finder of the block gets ${data.finder_percent} % on top.` : ""}`),
      data.chains.length > 0 ? h("p", { class: "soft small" }, `Blocks of merged chains (${data.chains.map((chain) => chain.name).join(", ")}) are not part of this: they pay the operator of this node. `, h("a", { href: "/#merged" }, "Who is paid")) : null,
    ],
  };
}
