// Share versions: the way from one to the next, and what the authorities announce.

import { h } from "./dom.js";
import { ago, count, date, percent } from "./format.js";
import { bar, card, facts, notice, shareLink } from "./parts.js";

/** Messages of the authorities, as warnings. Their addresses are shown, never linked. */
export function messages({ messages: all }) {
  if (all.length === 0) return null;
  return h("div", { class: "notices", role: "group", "aria-label": "Messages of the authorities" }, all.map((message) => notice([
    h("strong", null, `${message.kind} of the ${message.signer}`), `, ${message.urgency}`, message.to ? ` (version ${message.from || "?"} to ${message.to})` : null,
    ": ", message.text || "no text", message.url ? h("span", { class: "mono break" }, ` ${message.url}`) : null,
    h("span", { class: "soft small" }, ` – ${date(message.time)}, in ${count(message.shares)} of the newest shares, the last `, shareLink(message.share)),
  ], message.urgency === "required" || message.kind === "emergency" ? "is-bad" : "")));
}

const STATES = { voting: "voted on", activated: "activated", confirmed: "confirmed" };

/** Version of the chain, votes, and what will happen; null on networks that stay at one version. */
export function versionsCard(versions) {
  if (versions.state === null || versions.target === null) return null;
  const { target } = versions;
  return card(`Share version ${target} is ${STATES[versions.state] ?? versions.state}`,
    versions.outlook ? h("p", null, versions.outlook) : null,
    facts([
      ["Version of the newest share", count(versions.current)],
      ["This node makes", versions.next === null ? null : `version ${versions.next}`],
      [`Shares that vote for ${target}`, percent(versions.votes), " ", bar(versions.votes)],
      [`Shares that are ${target}`, percent(versions.shares), " ", bar(versions.shares)],
      ["Votes of the oldest tenth, by work", versions.deciding_votes === null ? null : percent(versions.deciding_votes)],
      ["Counted shares", `${count(versions.counted)} of ${count(versions.counted_needed)}`],
      ["Shares until it is confirmed", versions.shares_until_confirmed === null ? null : count(versions.shares_until_confirmed)],
    ]));
}
