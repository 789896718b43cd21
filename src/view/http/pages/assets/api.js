// Requests to the node, and its events.

const BASE = "/api/v1";

/** A failed request, with a message for the reader. */
export class Trouble extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export async function get(path) {
  let response;
  try {
    response = await fetch(BASE + path, { headers: { accept: "application/json" }, signal: AbortSignal.timeout(15000) });
  } catch {
    throw new Trouble("The node does not answer. Is it running, and is this machine connected with it?");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Trouble(body?.detail ?? body?.title ?? `The node answered ${response.status}.`, response.status);
  if (body === null) throw new Trouble("The node's answer is not JSON.");
  return body;
}

/** Same as `get`, but null for 404. */
export async function find(path) {
  try {
    return await get(path);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** Merged chains with their newest blocks; null if there are none, as the summary says. */
export const merged = async (summary, blocks) => (summary.merged.chains > 0 ? get(`/merged?limit=${blocks}`) : null);

const listeners = new Map();
let source = null;

/** Calls `handler` with each event of the kind. */
export function on(kind, handler) {
  if (!listeners.has(kind)) listeners.set(kind, new Set());
  listeners.get(kind).add(handler);
  source?.addEventListener(kind, dispatch);
}

function dispatch(event) {
  const data = event.type === "open" || event.type === "error" ? null : JSON.parse(event.data);
  for (const handler of listeners.get(event.type) ?? []) handler(data);
}

/** Subscribes while the page is visible: a browser has six connections to a node for all of its tabs. */
export function listen() {
  const follow = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (source === null || source.readyState === EventSource.CLOSED) {
      source = new EventSource(`${BASE}/events`);
      for (const kind of listeners.keys()) source.addEventListener(kind, dispatch);
    }
  };
  document.addEventListener("visibilitychange", follow);
  addEventListener("pagehide", () => { source?.close(); source = null; });
  addEventListener("pageshow", follow);
  setInterval(follow, 5000);
  follow();
}

export const isListening = () => source?.readyState === EventSource.OPEN;
