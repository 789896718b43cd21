// One share, its neighbours and its block.

import { h } from "../dom.js";
import * as api from "../api.js";
import { ago, blockDifficulty, coins, count, date, difficulty, percent, short, shortHash } from "../format.js";
import { addressLink, badge, card, facts, heading, shareLink, staleText } from "../parts.js";
import { drawing, follow } from "../chain.js";

export default function sharePage({ parameter }) {
  const hash = parameter.toLowerCase().padStart(64, "0");
  return {
    events: ["rates"],
    title: () => `Share ${shortHash(hash)}`,
    async load() {
      const [share, shares, node] = await Promise.all([api.find(`/shares/${hash}`), api.get("/shares"), api.get("/node")]);
      return { share, shares, node };
    },
    drawn: (root) => follow(root),
    render: ({ share, shares, node }) => (share ? page(share, shares, node) : [
      heading(`Share ${shortHash(hash)}`),
      h("p", null, "This node does not have this share. Old shares are removed some time after they were last paid for; a new one may not have arrived yet."),
      h("p", { class: "mono break soft" }, hash),
      h("p", null, h("a", { href: "/sharechain" }, "The sharechain")),
    ]),
  };
}

function page(share, { shares, tip }, node) {
  const near = shares.filter((other) => Math.abs(other.height - share.height) <= 30);
  return [
    h("h1", null, "Share ", h("span", { class: "mono" }, shortHash(share.hash))),
    h("p", { class: "lede cells" },
      share.is_block ? badge("solves a block", "is-gold") : null, share.is_own ? badge("found here", "is-good") : null,
      share.is_best ? badge("on the best chain", "is-good") : badge("not on the best chain", "is-warn"),
      share.is_verified ? badge("verified", "is-good") : badge("not verified yet", "is-warn"), share.stale ? badge(staleText(share.stale)) : null),
    near.some((other) => other.hash === share.hash) ? h("section", { class: "card" }, h("h2", null, "Shares around it"), drawing(near, tip, share.hash)) : null,
    h("div", { class: "columns" },
      card("Contents", facts([
        ["Hash", h("span", { class: "mono" }, share.hash)],
        ["Height", count(share.height)],
        ["Made", date(share.time), " (", ago(share.time), ")"],
        ["Pays", addressLink(share.payee, share.payee)],
        ["Donation", percent(share.donation)],
        ["Difficulty", difficulty(share.difficulty), share.min_difficulty ? ` (at least ${difficulty(share.min_difficulty)})` : null],
        ["Share version", `${share.version}, votes for ${share.desired_version}`],
        ["Stales", staleText(share.stale) ?? "announces none"],
        ["Work down to the first share", share.abswork],
      ])),
      card("Its lineage", facts([
        ["Parent", share.parent ? shareLink(share.parent) : "none: the first of its chain"],
        ["Children", share.children.length > 0 ? share.children.map((child, at) => [at > 0 ? ", " : "", shareLink(child)]) : "none yet"],
        ["Ancestors", share.ancestors.length > 0 ? share.ancestors.map((one, at) => [at > 0 ? ", " : "", shareLink(one)]) : "none"],
        ["A hundred shares back", share.far_share ? shareLink(share.far_share) : "none"],
        ["First seen", share.first_seen ? [date(share.first_seen), " (", ago(share.first_seen), ")"] : null],
        ["Came from", share.received_from],
      ]))),
    card("The block that it would be", facts([
      ["Block hash", h("span", { class: "mono" }, share.block.hash)],
      ["Height", share.block.height === null ? null : count(share.block.height)],
      ["Built on", share.block.previous ? h("span", { class: "mono" }, share.block.previous) : "nothing"],
      ["Difficulty of the block", blockDifficulty(share.block.difficulty, node.difficulty_scale)],
      ["Time in the header", date(share.block.time)],
      ["Coinbase's value", `${coins(share.block.value)} ${share.block.symbol}`],
      ["Coinbase transaction", h("span", { class: "mono" }, share.block.coinbase_txid)],
      ["Coinbase's script", h("span", { class: "mono" }, short(share.block.coinbase_script, 60, 20))],
      ["Whole coinbase", share.block.coinbase ? h("details", null, h("summary", null, `${count(share.block.coinbase.length / 2)} bytes, without witness`), h("code", { class: "break" }, share.block.coinbase)) : null],
    ])),
    share.additions ? merged(share.additions) : null,
    h("p", { class: "small" }, h("a", { href: `/api/v1/shares/${share.hash}` }, "As JSON")),
  ];
}

/** Where the miner is paid on merged chains, and the blocks that the work is for, too. */
function merged(additions) {
  const chain = (entry) => entry.chain ?? `chain ${entry.chain_id}`;
  return card("Merged chains", facts([
    ...additions.merged_addresses.map((entry) => [`Pays on ${chain(entry)}`, h("span", { class: "mono break" }, entry.address ?? (entry.script ? `script ${short(entry.script, 60, 20)}` : "nobody"))]),
    additions.merged_addresses.length === 0 ? ["Pays", "no address of a merged chain is named"] : null,
    ...additions.merged_blocks.map((block) => [`Block of ${chain(block)}`, `height ${count(block.height)}, ${coins(block.value)} coins for the miners, `, h("span", { class: "mono" }, block.hash)]),
    ["Hash of the payouts", additions.merged_payout_hash ? h("span", { class: "mono" }, additions.merged_payout_hash) : "none"],
    ["Messages of the authorities", additions.message_bytes > 0 ? `${count(additions.message_bytes)} bytes` : null],
  ]));
}
