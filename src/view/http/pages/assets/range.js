// Default range of graphs: the shortest that covers all measurements.

import * as api from "./api.js";

/** Names of the views' ranges. */
export const RANGES = { last_hour: "hour", last_day: "day", last_week: "week", last_month: "month", last_year: "year" };

/** Lifetime of a choice while a page stays open. */
const CHOICE_MS = 60000;

let chosen = null;
let chosenAt = 0;

/** Returns the shortest of `views` (shortest first) that covers all values of `graphs`, one source in each view. */
export function covering(views, graphs, now) {
  const ends = graphs.flatMap((graph) => graph.times
    .filter((_, at) => graph.series.some((series) => series.values[at] !== null))
    .map((time) => time + graph.bin_seconds / 2));
  // A wide bin that only reaches into a range may hold nothing older than the range.
  const oldest = Math.min(now, ...ends);
  return (views.find((one) => now - one.seconds < oldest) ?? views.at(-1)).view;
}

async function choose() {
  const { views } = await api.get("/graphs");
  const sorted = [...views].sort((one, other) => one.seconds - other.seconds);
  // Memory is measured with and without miners.
  const graphs = await Promise.all(sorted.map((one) => api.get(`/graphs/memory_usage/${one.view}?limit=1`)));
  return covering(sorted, graphs, Date.now() / 1000);
}

/** Returns the default view of a graph. */
export function opening() {
  if (Date.now() - chosenAt > CHOICE_MS) {
    chosenAt = Date.now();
    chosen = choose();
    chosen.catch(() => { chosenAt = 0; });
  }
  return chosen;
}
