// Selects the page for the path, loads its data, draws it, and redraws it after events of the node.

import { h, patch } from "./dom.js";
import * as api from "./api.js";
import { refreshAgo, duration } from "./format.js";
import { notice } from "./parts.js";

const PAGES = [
  [/^\/$/, "overview"],
  [/^\/sharechain$/, "sharechain"],
  [/^\/share\/([0-9a-fA-F]{1,64})$/, "share"],
  [/^\/miners$/, "miners"],
  [/^\/address\/([^/]+)$/, "address"],
  [/^\/payouts$/, "payouts"],
  [/^\/blocks$/, "blocks"],
  [/^\/graphs$/, "graphs"],
  [/^\/peers$/, "peers"],
];

/** Pages that belong to another entry of the menu. */
const PARENTS = { share: "/sharechain", address: "/miners" };

const main = document.getElementById("main");
const live = document.getElementById("live");

async function start() {
  document.getElementById("find").addEventListener("submit", lookUp);
  const path = location.pathname.replace(/(.)\/$/, "$1");
  const [name, parameter] = match(path);
  markPage(path, name);
  if (!name) {
    document.title = "Not found · P2Pool";
    patch(main, [h("h1", null, "There is no such page"), h("p", null, "Go on from the ", h("a", { href: "/" }, "overview"), ".")]);
    return;
  }
  const page = await import(`/assets/views/${name}.js`);
  const view = page.default({ parameter, redraw: () => draw(), reload: () => reload() });
  let data = null;
  let trouble = null;
  let loadedAt = 0;
  let loading = null;
  let again = null;

  function draw() {
    document.title = `${view.title(data)} · P2Pool`;
    const content = data ? view.render(data) : trouble ? [h("h1", null, view.title(null))] : [h("h1", null, view.title(null)), h("p", { class: "soft", role: "status" }, "Loading…")];
    patch(main, [trouble ? h("div", { class: "notices", role: "alert", "data-key": "trouble" }, notice(trouble, "is-bad")) : null, content]);
    view.drawn?.(main, data);
  }

  async function load() {
    try {
      data = await view.load();
      trouble = null;
    } catch (error) {
      if (!(error instanceof api.Trouble)) throw error;
      // The old content stays readable.
      trouble = data ? `${error.message} What you see is ${duration(Date.now() / 1000 - loadedAt)} old.` : error.message;
    }
    if (!trouble) loadedAt = Date.now() / 1000;
    draw();
  }

  // At most one at a time, and one a second.
  async function reload() {
    if (loading || document.hidden) {
      again = true;
      return;
    }
    again = false;
    loading = load();
    try {
      await loading;
      await new Promise((done) => { setTimeout(done, 1000); });
    } finally {
      loading = null;
    }
    if (again) reload();
  }

  for (const kind of view.events ?? []) api.on(kind, reload);
  api.on("open", () => { say("Live"); if (loadedAt) reload(); });
  api.on("error", () => say("Not live: reconnecting"));
  api.listen();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) reload(); });
  setInterval(() => { if (!api.isListening()) reload(); }, 10000);
  setInterval(() => refreshAgo(), 1000);
  addEventListener("resize", () => { if (data) view.drawn?.(main, data, true); });
  draw();
  await reload();
}

function match(path) {
  for (const [pattern, name] of PAGES) {
    const found = pattern.exec(path);
    if (found) {
      try {
        return [name, found[1] === undefined ? null : decodeURIComponent(found[1])];
      } catch {
        return [null, null];
      }
    }
  }
  return [null, null];
}

function markPage(path, name) {
  const current = PARENTS[name] ?? path;
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.getAttribute("href") === current) {
      link.setAttribute("aria-current", PARENTS[name] ? "true" : "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }
  api.get("/node").then((node) => {
    document.getElementById("network").textContent = node.network;
    document.getElementById("about").textContent = `P2Pool ${node.version}, up for ${duration(node.uptime_seconds)}`;
  }, () => {});
}

function lookUp(event) {
  event.preventDefault();
  const text = document.getElementById("find-text").value.trim();
  if (text) location.assign(/^[0-9a-fA-F]{64}$/.test(text) ? `/share/${text}` : `/address/${encodeURIComponent(text)}`);
}

function say(text) {
  if (live.textContent !== text) live.textContent = text;
}

start();
