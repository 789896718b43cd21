// Merged chains: their condition, who is paid for their blocks, and the blocks that were found.

import { h } from "./dom.js";
import { ago, blockDifficulty, coins, count, date, duration, many, short } from "./format.js";
import { badge, facts, routeList, stateBadge, table } from "./parts.js";

const STATES = { starting: ["starting", ""], mining: ["mining", "is-good"], waiting: ["last work", "is-warn"], left_out: ["left out", "is-bad"] };
const ROUTES = { rpc: "RPC to its daemon" };

const paysMiners = (chain) => chain.mode === "payouts";

/** Tells miners who is paid. */
export const payNote = (symbol, chains) => h("p", { class: "soft small", id: "merged-pay" },
  `The work of this node's miners counts for these chains, too. ${
    chains.every(paysMiners) ? "Their blocks pay the miners of the pool, by their part in the window of shares"
      : chains.some(paysMiners) ? `Blocks of ${chains.filter(paysMiners).map((chain) => chain.name).join(", ")} pay the miners of the pool; the others pay the node's operator, at the address or wallet named here, and miners get nothing of them`
        : "Their blocks pay the node's operator: the address or wallet named here. Miners get nothing of them"
  }; what they earn in ${symbol} stays the same.`);

/** The chains, for the first page. */
export function chainsCard(chains, { symbol, difficulty_scale: scale }) {
  return h("section", { class: "card", id: "merged", "data-key": "merged" },
    h("div", { class: "card-head" }, h("h2", null, "Merged mining"), h("a", { class: "small", href: "/blocks#merged" }, "Blocks of merged chains")),
    payNote(symbol, chains),
    table("merged", "Merged chains", [
      { label: "Chain", head: true, of: (row) => [row.name, row.chain_id === null ? null : h("span", { class: "soft" }, ` (id ${row.chain_id})`)] },
      { label: "State", class: "wide", of: chainState },
      { label: "Height", num: true, of: (row) => count(row.height) },
      { label: "Difficulty", num: true, of: (row) => (row.difficulty !== null ? blockDifficulty(row.difficulty, scale) : isMined(row) ? "a share's" : "–") },
      { label: "Age of its work", of: (row) => ago(row.work_since, "") },
      { label: "Next block here", of: (row) => duration(row.seconds_to_block) },
      { label: "Blocks", num: true, of: (row) => [count(row.found), row.lost > 0 ? h("span", { class: "soft" }, ` (${count(row.lost)} lost)`) : null] },
      { label: "A block pays", num: true, of: (row) => coins(row.value) },
      { label: chains.some(paysMiners) ? "Pays" : "Pays the operator at", of: (row) => payee(row.payee, short(row.payee, 10, 6)) },
      { label: "Daemon", class: "break", of: (row) => [row.version || "–", row.failures > 0 ? h("span", { class: "soft" }, ` (${many(row.failures, "failed call")})`) : null] },
    ], chains, { key: (row) => row.name }));
}

/** The found blocks, for the page of blocks. */
export function blocksSection({ chains, blocks, total }, symbol) {
  return [
    h("h2", { id: "merged" }, "Blocks of merged chains"),
    h("p", { class: "lede" }, "Found by this node's miners, and followed until they can be spent."),
    payNote(symbol, chains),
    h("ul", { class: "small", "data-key": "merged-payees" }, chains.map((chain) => h("li", null, `${chain.name}: `, payee(chain.payee)))),
    blocks.length === 0 ? h("p", { class: "empty" }, "None yet.") : blocks.map(block),
    total > blocks.length ? h("p", { class: "more soft" }, `The newest ${count(blocks.length)} of ${count(total)}.`) : null,
  ];
}

function block(row) {
  return h("section", { class: "card", "data-key": `${row.chain}-${row.hash}`, id: `${row.chain}-${row.hash}` },
    h("div", { class: "card-head" },
      h("h2", null, `${row.chain} `, row.height === null ? "block " : `block ${count(row.height)} `, stateBadge(row)),
      h("span", { class: "soft small" }, date(row.time), " (", ago(row.time), ")")),
    facts([
      ["Hash", h("span", { class: "mono" }, row.hash)],
      ["Found by worker", h("span", { class: "break" }, row.finder)],
      [row.payee.endsWith(" miners") ? "Pays" : "Pays the operator at", payee(row.payee)],
      ["Worth", row.value === null ? null : `${coins(row.value)} coins`],
      ["Confirmations", row.state === "confirming" ? `${count(row.confirmations)} of ${row.maturity === null ? "?" : count(row.maturity)}` : row.state === "mature" ? "enough: spendable" : null],
      ["Why", row.detail],
      ["Routes", routeList(row.routes, ROUTES)],
    ]));
}

const isMined = (chain) => chain.state === "mining" || chain.state === "waiting";

function chainState(chain) {
  const [text, kind] = STATES[chain.state] ?? [chain.state, ""];
  return [badge(text, chain.state === "mining" && chain.trouble ? "is-warn" : kind), chain.trouble ? h("span", { class: "small break" }, ` ${chain.trouble}`) : null];
}

/** An address of another chain has no page here. */
const payee = (text, shown = text) => (text.includes(" ") ? text : h("span", { class: shown === text ? "mono break" : "mono nowrap", title: text }, shown));
