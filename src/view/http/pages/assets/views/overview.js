// First page: state, earnings, warnings.

import { h } from "../dom.js";
import * as api from "../api.js";
import { ago, blockDifficulty, coins, count, difficulty, duration, many, percent, rate, scaled } from "../format.js";
import { addressLink, badge, bar, card, notice, range, shareLink, stateBadge, table, tile, tone } from "../parts.js";
import { chainsCard } from "../merged.js";
import { messages, versionsCard } from "../versions.js";
import { drawing, follow } from "../chain.js";
import { spark } from "../plot.js";
import { RANGES, opening } from "../range.js";

const SHARES = 120;
const ICONS = { good: "M5 12.5l4.5 4.5L19 7.5", warn: "M12 6v7.5M12 17.2v.6", bad: "M7 7l10 10M17 7L7 17" };

/** Refresh interval of the sparklines. */
const LINES_MS = 60000;

export default function overview() {
  let lines = null;
  let linesAt = 0;
  return {
    events: ["rates"],
    title: () => "Overview",
    async load() {
      if (Date.now() - linesAt > LINES_MS) {
        lines = opening().then((view) => Promise.all([api.find(`/graphs/pool_rates/${view}`), api.find(`/graphs/local_hash_rate/${view}`)]));
        linesAt = Date.now();
        lines.catch(() => { linesAt = 0; });
      }
      const [summary, shares, payouts, blocks, [pool, local]] = await Promise.all([
        api.get("/summary"), api.get(`/shares?limit=${SHARES}`), api.get("/payouts?limit=6"), api.get("/blocks?limit=5"), lines,
      ]);
      return { summary, shares, payouts, blocks, pool, local, merged: await api.merged(summary, 0) };
    },
    drawn: (root) => follow(root),
    render: ({ summary, shares, payouts, blocks, merged, pool, local }) => [
      state(summary),
      summary.warnings.length > 0 ? h("div", { class: "notices", role: "group", "aria-label": "Warnings" }, summary.warnings.map((text) => notice(text))) : null,
      messages(summary.versions),
      tiles(summary, pool, local),
      versionsCard(summary.versions),
      h("section", { class: "card" },
        h("div", { class: "card-head" }, h("h2", null, "Sharechain"), h("a", { class: "small", href: "/sharechain" }, `All ${many(summary.pool.shares, "share")}`)),
        drawing(shares.shares, shares.tip)),
      h("div", { class: "columns" },
        card("The next block would pay",
          table("payouts", "Expected payouts", payoutColumns(payouts.symbol), payouts.payouts, { key: (row) => row.address, empty: "None yet: there is no share, or no template from bitcoind." }),
          h("p", { class: "more" }, h("a", { href: "/payouts" }, `All ${many(payouts.total, "payee")}`))),
        card("Blocks found",
          table("blocks", "The newest blocks of the pool", blockColumns(blocks.symbol), blocks.blocks, { key: (row) => row.hash, empty: "None yet. Each one appears here, with how it reached the network." }),
          h("p", { class: "more" }, h("a", { href: "/blocks" }, "All blocks")))),
      merged ? chainsCard(merged.chains, summary.node) : null,
    ],
  };
}

function state({ node, local, peers, pool }) {
  const trouble = node.daemon.trouble;
  const [kind, headline] = !node.serving
    ? ["bad", node.waiting ? "Miners get no work" : "Miners are disconnected"]
    : trouble ? ["warn", "Working, with problems"]
    : local.workers === 0 ? ["warn", "Ready, but no miner is working"]
    : ["good", "Working"];
  const reason = node.waiting ?? trouble ?? null;
  return h("section", { class: `state is-${kind}`, "data-key": "state", "aria-label": "State of the node" },
    h("span", { class: "mark" }, h("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, h("path", { d: ICONS[kind], fill: "none", stroke: "currentColor", "stroke-width": 2.6, "stroke-linecap": "round", "stroke-linejoin": "round" }))),
    h("div", null,
      h("h1", null, headline),
      reason ? h("p", { class: "break" }, reason) : null,
      h("p", null,
        h("span", { class: "nowrap" }, many(local.workers, "worker"), " here"), " · ",
        h("span", { class: "nowrap" }, many(pool.miners, "payee"), " in the pool"), " · ",
        h("span", { class: "nowrap" }, many(peers.incoming + peers.outgoing, "peer")), " · ",
        h("span", { class: "break" }, node.daemon.version || "bitcoind has not answered yet"))));
}

function tiles({ pool, local, block, blocks, node }, poolGraph, localGraph) {
  const lost = local.shares.orphan + local.shares.dead;
  const late = local.hash_rate > 0 ? local.late_hash_rate / local.hash_rate : null;
  const efficiency = local.efficiency;
  const big = (value, unit) => {
    const [text, prefix] = value === null || value === undefined ? ["–", ""] : scaled(value);
    return [text, text === "–" ? "" : `${prefix}${unit}`];
  };
  const sum = (graph) => (graph ? graph.times.map((_, at) => graph.series.reduce((total, series) => (series.values[at] === null ? total : (total ?? 0) + series.values[at]), null)) : []);
  const good = (graph) => (graph ? sum({ ...graph, series: graph.series.filter((series) => series.name === "good" || graph.series.length === 1) }) : []);
  return h("div", { class: "tiles" },
    tile("Hash rate of the pool", ...big(pool.hash_rate, "H/s"), [percent(pool.stale_proportion), " lost as stale"], { wide: true, below: spark(good(poolGraph), `The pool's hash rate over the last ${RANGES[poolGraph?.view]}`) }),
    tile("Hash rate here", ...big(local.hash_rate, "H/s"),
      local.hash_rate > 0 && pool.hash_rate > 0 ? [percent(Math.min(1, local.hash_rate / pool.hash_rate)), " of the pool"] : "no submissions in ten minutes", { wide: true, below: spark(sum(localGraph), `This node's hash rate over the last ${RANGES[localGraph?.view]}`) }),
    tile("This node's miners would get", coins(local.expected_payout), node.symbol, "if the pool found a block now", { wide: true }),
    tile("Efficiency", efficiency ? (efficiency.value * 100).toFixed(1) : "–", efficiency ? "%" : "",
      efficiency ? [`95 % sure: ${(efficiency.low * 100).toFixed(0)} to ${(efficiency.high * 100).toFixed(0)} %`] : "known after this node's first shares",
      { tone: efficiency && efficiency.high < 0.95 ? "bad" : "", below: efficiency ? range(efficiency, 0, 2, `Efficiency ${percent(efficiency.value)}, most likely between ${percent(efficiency.low)} and ${percent(efficiency.high)}; 100 % is what the pool loses on average`) : null }),
    tile("Shares of this node", count(local.shares.total), null,
      local.shares.total > 0
        ? [`${count(local.shares.orphan)} orphan, ${count(local.shares.dead)} dead: `, h("span", { class: tone(lost / local.shares.total, 0.1, 0.25) }, percent(lost / local.shares.total))]
        : "since the start"),
    tile("Late submissions", percent(late), null, "work for jobs that were replaced by then", { tone: tone(late, 0.03, 0.1) }),
    tile("Next share here", duration(local.seconds_to_share), null, ["on average, at difficulty ", difficulty(pool.share_difficulty)]),
    tile("Next block", duration(pool.seconds_to_block), null, ["on average, at difficulty ", blockDifficulty(block?.difficulty, node.difficulty_scale)]),
    tile("Newest share", pool.last_share ? ago(pool.last_share) : "–", null, pool.last_share ? ["the pool aims at one every ", duration(pool.share_period)] : "there is none yet"),
    tile("Luck", pool.luck === null ? "–" : percent(pool.luck, 0), null, pool.luck === null ? "known after the pool's first block" : "blocks found against those expected"),
    tile("Blocks of the pool", count(blocks.found), null, blocks.last ? ["the last ", ago(blocks.last)] : "none in the chain that is kept"),
    tile("A block is worth", coins(block?.value), node.symbol, ["fee here ", percent(node.fee, node.fee > 0 ? 2 : 0), node.fee > 0 && local.hashes > 0 ? [", so far ", percent(local.fee_hashes / local.hashes, 2), " of the work"] : null], { wide: true }));
}

const payoutColumns = (symbol) => [
  { label: "Address", head: true, of: (row) => [addressLink(row.address), row.is_local ? [" ", badge("mines here", "is-good")] : null] },
  { label: "Part", num: true, of: (row) => [percent(row.fraction), bar(row.fraction)] },
  { label: `Amount in ${symbol}`, num: true, of: (row) => coins(row.amount) },
];

const blockColumns = (symbol) => [
  { label: "Height", head: true, of: (row) => h("a", { href: `/blocks#${row.hash}` }, count(row.height)) },
  { label: "Found", of: (row) => ago(row.time) },
  { label: "Share", of: (row) => shareLink(row.share) },
  { label: "State", of: (row) => stateBadge(row) },
];
