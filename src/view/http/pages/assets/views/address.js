// One payout address: workers, earnings, warnings.

import { h } from "../dom.js";
import * as api from "../api.js";
import { ago, coins, count, difficulty, duration, percent, rate, scaled } from "../format.js";
import { badge, card, heading, notice, shareLink, table, tile, tone } from "../parts.js";
import { spark } from "../plot.js";
import { RANGES, opening } from "../range.js";
import { marks } from "./sharechain.js";
import { connectionColumns, workerColumns } from "./miners.js";

/** Texts for the reasons of refused submissions, and advice. */
const REASONS = {
  job_not_found: "for an unknown job", duplicate: "sent twice", low_difficulty: "below the difficulty", bad_ntime: "with a wrong time",
  bad_version: "with forbidden version bits", bad_nonce: "with a malformed nonce", bad_extranonce2: "with a malformed extranonce2", not_subscribed: "before subscribing",
};

export function refusedText(row) {
  const parts = Object.entries(row.refused).filter(([, number]) => number > 0).sort((one, other) => other[1] - one[1]);
  const sum = parts.reduce((total, [, number]) => total + number, 0);
  if (sum === 0) return "0";
  const words = parts.map(([reason, number]) => `${number} ${REASONS[reason] ?? reason.replaceAll("_", " ")}`).join(", ");
  return h("span", { title: words, class: tone(sum / (sum + row.accepted), 0.02, 0.1) }, `${count(sum)}: `, words);
}

export default function addressPage({ parameter: address, redraw }) {
  return {
    events: ["rates"],
    title: () => `${address.slice(0, 10)}…`,
    async load() {
      const view = await opening();
      const [miner, graph] = await Promise.all([
        api.find(`/addresses/${encodeURIComponent(address)}`),
        api.find(`/graphs/miner_hash_rates/${view}?address=${encodeURIComponent(address)}`),
      ]);
      return { miner, graph };
    },
    render: ({ miner, graph }) => (miner ? page(miner, graph, redraw) : [
      heading("Nothing known of this address"),
      h("p", { class: "mono break" }, address),
      h("p", null, "None of its workers mined here in the last day, and no share in the pool's window pays it. A new miner appears as soon as it has authorised."),
    ]),
  };
}

function page(miner, graph, redraw) {
  const [value, prefix] = scaled(miner.hash_rate);
  const late = miner.hash_rate > 0 ? miner.late_hash_rate / miner.hash_rate : null;
  const refused = Object.values(miner.refused).reduce((sum, number) => sum + number, 0);
  const symbol = miner.symbol;
  const series = graph?.series.find((one) => one.name === miner.address);
  return [
    h("h1", null, "Address ", h("span", { class: "mono break" }, miner.address)),
    h("p", { class: "lede" }, miner.workers.length > 0 ? "Mining at this node." : miner.connections.length > 0 ? "Connected, and has submitted nothing yet." : "Not mining at this node now; shares in the window pay it."),
    miner.warnings.length > 0 ? h("div", { class: "notices", role: "group", "aria-label": "Warnings" }, miner.warnings.map((text) => notice(text))) : null,
    h("div", { class: "tiles" },
      tile("Hash rate", value, `${prefix}H/s`, miner.workers.length === 1 ? "from one worker" : `from ${count(miner.workers.length)} workers`, { wide: true, below: series ? spark(series.values, `Hash rate over the last ${RANGES[graph.view]}`) : null }),
      tile("The next block would pay", coins(miner.expected_payout), symbol, miner.expected_payout > 0 ? [percent(miner.fraction, 3), " of the block"] : "nothing yet: it begins with a share in the window", { wide: true }),
      tile("Next share", duration(miner.seconds_to_share), null, miner.seconds_to_share ? ["on average; one in ten waits over ", duration(miner.seconds_to_share * Math.LN10)] : "known while a worker mines", {}),
      tile("Recent shares", count(miner.shares), `of ${count(miner.shares_of)}`, miner.last_share ? ["the last ", ago(miner.last_share)] : "none yet"),
      tile("Refused submissions", count(refused), null, refused > 0 ? [percent(refused / (refused + miner.accepted), 2), " of all"] : "none since the start", { tone: tone(refused / (refused + miner.accepted || 1), 0.02, 0.1) }),
      tile("Late submissions", percent(late), null, "of the hash rate came too late", { tone: tone(late, 0.03, 0.1) }),
      tile("Best submission", difficulty(miner.best_difficulty), null, miner.best_difficulty ? ["difficulty; a share takes ", difficulty(miner.share_difficulty)] : "none since the start"),
      tile("Stale shares", percent(miner.stale_proportion), null, miner.stale_cost > 0 ? ["cost it ", coins(miner.stale_cost, symbol), " per block"] : "as announced in shares", { tone: tone(miner.stale_proportion, 0.1, 0.25) })),
    miner.is_dust ? h("div", { class: "notices" }, notice(`What the next block would pay is less than ${coins(miner.dust_limit, symbol)}: a good part of it would go to fees when it is spent. Payouts grow with hash rate and with shares in the window.`)) : null,
    card("Workers", table("workers", "Workers of this address", workerColumns(false), miner.workers, { key: (row) => row.name, redraw, sort: { column: 1, down: true }, empty: "No submissions in the last day." })),
    card("Open connections", table("connections", "Open connections of this address", connectionColumns(), miner.connections, { key: (row) => `${row.worker} ${row.since}`, redraw, sort: { column: 4, down: true }, empty: "None." })),
    card("Its newest shares", table("own-shares", "Newest shares that pay this address", [
      { label: "Height", head: true, num: true, of: (row) => shareLink(row.hash, count(row.height)), by: (row) => row.height },
      { label: "Time", of: (row) => ago(row.time), by: (row) => row.time },
      { label: "Difficulty", num: true, of: (row) => difficulty(row.difficulty), by: (row) => row.difficulty },
      { label: "", of: marks },
    ], miner.recent_shares, { key: (row) => row.hash, redraw, empty: "None among the chain's newest." })),
    h("p", { class: "small" }, h("a", { href: `/api/v1/addresses/${encodeURIComponent(miner.address)}` }, "As JSON")),
  ];
}
