// Drawing of the sharechain: time runs to the right, the best chain is straight, forks lie beside it.

import { h, keep } from "./dom.js";
import { ago, clock, difficulty, short, shortHash } from "./format.js";
import { staleText } from "./parts.js";

const STEP = 27;
const LANE = 30;
const LANES_MAX = 4;
const COLOURS = 8;
const STAR = "0,-7 1.9,-2.4 6.8,-2.1 3,1 4.2,5.8 0,3.2 -4.2,5.8 -3,1 -6.8,-2.1 -1.9,-2.4";

/** Colours of the payees with most shares; one colour for all others. */
export function colours(shares) {
  const counts = new Map();
  for (const share of shares) counts.set(share.payee, (counts.get(share.payee) ?? 0) + 1);
  const ranked = [...counts].sort((one, other) => other[1] - one[1] || (one[0] < other[0] ? -1 : 1));
  return new Map(ranked.map(([payee, count], rank) => [payee, { kind: Math.min(rank, COLOURS), count }]));
}

/** Lanes by hash: 0 for the best chain. */
export function lanes(shares) {
  const known = new Map(shares.map((share) => [share.hash, share]));
  const lane = new Map();
  const extended = new Set();
  const last = new Map();
  for (const share of [...shares].sort((one, other) => one.height - other.height || one.time - other.time)) {
    let mine = 0;
    if (!share.is_best) {
      const parent = known.get(share.parent);
      if (parent && !parent.is_best && !extended.has(parent.hash)) {
        mine = lane.get(parent.hash);
        extended.add(parent.hash);
      } else {
        mine = LANES_MAX;
        for (let distance = 1; distance <= LANES_MAX; distance += 1) {
          const free = [distance, -distance].find((one) => (last.get(one) ?? -1) < share.height - 1);
          if (free !== undefined) {
            mine = free;
            break;
          }
        }
      }
      last.set(mine, share.height);
    }
    lane.set(share.hash, mine);
  }
  return lane;
}

function describe(share) {
  return [
    `Share at height ${share.height}`, `by ${share.payee}`, share.is_own ? "found by this node" : null, share.is_block ? "solves a block" : null,
    share.is_best ? null : "not on the best chain", share.is_verified ? null : "not verified yet", staleText(share.stale),
  ].filter(Boolean).join(", ");
}

let seen = null;

/** Returns the drawing as an element. `tip` is the best share's hash, `current` that of the page's own share. */
export function drawing(shares, tip, current = null) {
  if (shares.length === 0) return h("p", { class: "empty" }, "There is no share yet. The first one appears here as soon as it is found.");
  const lane = lanes(shares);
  const colour = colours(shares);
  const known = new Map(shares.map((share) => [share.hash, share]));
  const heights = shares.map((share) => share.height);
  const [lowest, highest] = [Math.min(...heights), Math.max(...heights)];
  const used = [...lane.values()];
  const [top, bottom] = [Math.min(0, ...used), Math.max(0, ...used)];
  const middle = [...shares].map((share) => share.difficulty).sort((one, other) => one - other)[shares.length >> 1] || 1;
  const at = (share) => [share.height * STEP, lane.get(share.hash) * LANE];
  const size = (share) => Math.max(share.is_block ? 9 : 4, Math.min(11, 6.5 * Math.cbrt(share.difficulty / middle)));
  const left = (lowest - 1) * STEP;
  const width = (highest - lowest + 2) * STEP;
  const height = (bottom - top) * LANE + 66;
  const edges = shares.filter((share) => known.has(share.parent)).map((share) => {
    const [x, y] = at(share);
    const [px, py] = at(known.get(share.parent));
    const bend = (x - px) / 2;
    return h("path", { "data-key": `edge-${share.hash}`, class: `edge ${share.is_best ? "is-best" : "is-stray"}`, d: y === py ? `M${px},${py}H${x}` : `M${px},${py}C${px + bend},${py} ${x - bend},${y} ${x},${y}` });
  });
  const first = seen === null;
  seen ??= new Set();
  const nodes = shares.map((share) => {
    const [x, y] = at(share);
    const r = size(share);
    const kind = colour.get(share.payee).kind;
    const isNew = !first && !seen.has(share.hash);
    seen.add(share.hash);
    const state = [share.is_block ? " is-block" : "", share.is_verified ? "" : " is-unverified", share.is_best ? "" : " is-stray", isNew ? " is-new" : ""].join("");
    return h("a", { svg: true, "data-key": share.hash, href: `/share/${share.hash}`, class: `share${state}`, tabindex: share.hash === (current ?? tip) ? 0 : -1, "aria-current": share.hash === current ? "true" : null, "aria-label": describe(share), "data-hash": share.hash },
      h("g", { transform: `translate(${x} ${y})` },
        // Wider than the visible mark, for touch.
        h("rect", { x: -STEP / 2, y: -LANE / 2, width: STEP, height: LANE, fill: "transparent" }),
        share.hash === current ? h("circle", { class: "current-ring", r: r + 7 }) : null,
        share.hash === tip ? h("circle", { class: "tip-ring", r: r + 5.5 }) : null,
        share.is_own ? h("circle", { class: "own", r: r + 2.5 }) : null,
        h("circle", { class: `body k${kind}`, r }),
        share.is_block ? h("polygon", { class: "block", points: STAR, transform: "scale(1.15)" }) : null));
  });
  const ticks = ticksOf(shares).map((share) => h("g", { "data-key": `tick-${share.height}` },
    h("line", { class: "rule", x1: share.height * STEP, x2: share.height * STEP, y1: top * LANE - 18, y2: bottom * LANE + 18 }),
    h("text", { x: share.height * STEP, y: top * LANE - 22, "text-anchor": "middle" }, clock(share.time).slice(0, 5)),
    h("text", { x: share.height * STEP, y: bottom * LANE + 30, "text-anchor": "middle" }, String(share.height))));
  const forks = shares.filter((share) => !share.is_best).length;
  const svg = h("svg", { width, height, viewBox: `${left} ${top * LANE - 34} ${width} ${height}`, role: "group",
    "aria-label": `The newest ${shares.length} shares, ${forks} of them not on the best chain. Arrow keys go from share to share.` },
    h("g", { "aria-hidden": "true" }, ticks), h("g", { "aria-hidden": "true" }, edges), h("g", null, nodes));
  const hint = keep(h("div", { class: "hint", hidden: true, "aria-hidden": "true" }));
  return h("div", { class: "chain", onpointerover: show, onpointerout: hide, onfocusin: show, onfocusout: hide, onkeydown: walk },
    h("div", { class: "view", "data-last": highest }, svg), hint, legend(shares, colour));

  function show(event) {
    const link = event.target.closest?.("a.share");
    const box = this.querySelector(".hint");
    const share = link && known.get(link.dataset.hash);
    if (!share) return;
    box.replaceChildren(
      h("div", null, h("span", { class: `dot bg${colour.get(share.payee).kind}` }), short(share.payee, 12, 8)),
      h("div", null, `height ${share.height}, difficulty ${difficulty(share.difficulty)}`),
      h("div", null, ago(share.time), ` · ${shortHash(share.hash)}`),
      [share.is_block ? "solves a block" : null, share.is_own ? "found here" : null, share.is_best ? null : "not on the best chain", share.is_verified ? null : "not verified yet", staleText(share.stale)]
        .filter(Boolean).map((line) => h("div", null, line)));
    box.hidden = false;
    const from = link.getBoundingClientRect();
    const frame = this.getBoundingClientRect();
    const x = from.left + from.width / 2 - frame.left - box.offsetWidth / 2;
    const below = from.bottom - frame.top + 6;
    box.style.left = `${Math.max(0, Math.min(frame.width - box.offsetWidth, x))}px`;
    box.style.top = `${below}px`;
  }

  function hide() {
    this.querySelector(".hint").hidden = true;
  }

  function walk(event) {
    const link = event.target.closest?.("a.share");
    const share = link && known.get(link.dataset.hash);
    if (!share) return;
    const same = () => shares.filter((other) => other.height === share.height).sort((one, other) => lane.get(one.hash) - lane.get(other.hash));
    const beside = (step) => same()[same().findIndex((other) => other.hash === share.hash) + step];
    const best = shares.filter((other) => other.is_best).sort((one, other) => one.height - other.height);
    const next = {
      ArrowLeft: () => known.get(share.parent),
      ArrowRight: () => shares.filter((other) => other.parent === share.hash).sort((one, other) => Number(other.is_best) - Number(one.is_best))[0],
      ArrowUp: () => beside(-1),
      ArrowDown: () => beside(1),
      Home: () => best[0],
      End: () => best.at(-1),
    }[event.key];
    if (!next) return;
    event.preventDefault();
    const to = next();
    if (!to) return;
    const target = this.querySelector(`a.share[data-hash="${to.hash}"]`);
    for (const other of this.querySelectorAll('a.share[tabindex="0"]')) other.setAttribute("tabindex", "-1");
    target.setAttribute("tabindex", "0");
    target.focus();
    target.scrollIntoView({ block: "nearest", inline: "center" });
  }
}

/** Shares of the best chain with a time mark: about one in eight. */
function ticksOf(shares) {
  return shares.filter((share) => share.is_best && share.height % 8 === 0);
}

function legend(shares, colour) {
  const named = [...colour].filter(([, { kind }]) => kind < COLOURS);
  const others = colour.size - named.length;
  const mark = (...content) => h("svg", { viewBox: "-9 -9 18 18", "aria-hidden": "true" }, content);
  return h("ul", { class: "legend", "aria-label": "What the drawing shows" },
    named.map(([payee, { kind, count }]) => h("li", { "data-key": payee }, h("span", { class: `dot bg${kind}` }), h("a", { class: "mono", href: `/address/${encodeURIComponent(payee)}`, title: payee }, short(payee, 6, 4)), ` ${count}`)),
    others > 0 ? h("li", { "data-key": "others" }, h("span", { class: `dot bg${COLOURS}` }), `${others} others`) : null,
    h("li", { "data-key": "is-own" }, mark(h("circle", { r: 4, class: "k8" }), h("circle", { r: 7, fill: "none", stroke: "var(--ink)", "stroke-width": 2 })), "found here"),
    h("li", { "data-key": "is-block" }, mark(h("polygon", { points: STAR, fill: "var(--gold)" })), "block"),
    h("li", { "data-key": "is-stray" }, mark(h("circle", { r: 5, fill: "none", stroke: "var(--c8)", "stroke-width": 2.4 })), "not on the best chain"));
}

/** Scrolls to the page's own share, else to the newest, unless the reader has scrolled away. */
export function follow(root) {
  const view = root.querySelector(".chain .view");
  if (!view) return;
  const current = view.querySelector('[aria-current="true"]');
  const wasAtEnd = view.width === undefined || view.width - view.clientWidth - view.scrollLeft < 60;
  if (current && view.width === undefined) {
    const [mark, frame] = [current.getBoundingClientRect(), view.getBoundingClientRect()];
    view.scrollLeft += mark.left - frame.left - frame.width / 2;
  } else if (wasAtEnd && !current) {
    view.scrollLeft = view.scrollWidth;
  }
  view.width = view.scrollWidth;
}
