// Graphs over an hour up to a year, with zoom.

import { h } from "../dom.js";
import * as api from "../api.js";
import { date, duration, many } from "../format.js";
import { card, heading } from "../parts.js";
import { plot, reading } from "../plot.js";
import { RANGES, opening } from "../range.js";

const capital = (word) => word[0].toUpperCase() + word.slice(1);

/** The finest bins are 24 s wide. */
const RELOAD_MS = 12000;

export default function graphs({ redraw, reload }) {
  const asked = new URLSearchParams(location.search).get("view");
  // The default view until the reader chooses one.
  let view = Object.hasOwn(RANGES, asked) ? asked : null;
  // Visible part, in seconds since 1970; null for all.
  let zoom = null;
  let views = [];
  setInterval(reload, RELOAD_MS);

  function choose(name) {
    view = name;
    zoom = null;
    history.replaceState(null, "", `?view=${name}`);
    reload();
  }

  // The finest view that reaches back far enough.
  function viewFor(from) {
    const back = Date.now() / 1000 - from;
    return (views.find((one) => one.seconds >= back) ?? views.at(-1)).view;
  }

  function zoomTo(span) {
    if (!span) {
      zoom = null;
    } else {
      const now = Date.now() / 1000;
      const most = views.at(-1).seconds;
      const width = Math.max(120, Math.min(most, span[1] - span[0]));
      const to = Math.max(now - most + width, Math.min(now, span[1]));
      zoom = [to - width, to];
      const finer = viewFor(zoom[0]);
      if (finer !== view) {
        view = finer;
        reload();
      }
    }
    redraw();
  }

  return {
    events: [],
    title: () => "Graphs",
    async load() {
      const index = await api.get("/graphs");
      views = [...index.views].sort((one, other) => one.seconds - other.seconds);
      view ??= await opening();
      const wanted = view;
      const graphs = await Promise.all(index.sources.map((source) => api.find(`/graphs/${source.source}/${wanted}?limit=8`)));
      return { views, view: wanted, sources: index.sources, graphs };
    },
    drawn(root, data, isResize) {
      if (isResize && data) redraw();
    },
    render(data) {
      const current = data.views.find((one) => one.view === data.view);
      const now = Date.now() / 1000;
      const [from, to] = zoom ?? [now - current.seconds, now];
      const width = Math.max(280, Math.min(1170, document.getElementById("main").clientWidth - 38));
      const columns = width > 900 ? 2 : 1;
      const each = columns === 2 ? (width - 54) / 2 : width;
      const quarter = (to - from) / 4;
      return [
        heading("Graphs", "Drag over a graph to zoom in, double-click to come back. With the keyboard: plus and minus, arrows, Escape."),
        h("div", { class: "tools" },
          h("div", { class: "group", role: "group", "aria-label": "Time that is shown" }, data.views.map((one) =>
            h("button", { type: "button", "aria-pressed": String(!zoom && one.view === view), onclick: () => choose(one.view) }, capital(RANGES[one.view] ?? one.view)))),
          h("div", { class: "group", role: "group", "aria-label": "Zoom" },
            h("button", { type: "button", onclick: () => zoomTo([from - quarter, to - quarter]), "aria-label": "Earlier" }, "←"),
            h("button", { type: "button", onclick: () => zoomTo([from + quarter, to - quarter]), "aria-label": "Zoom in" }, "+"),
            h("button", { type: "button", onclick: () => zoomTo([from - quarter * 2, to + quarter * 2]), "aria-label": "Zoom out" }, "−"),
            h("button", { type: "button", onclick: () => zoomTo([from + quarter, to + quarter]), "aria-label": "Later", disabled: to >= now - 1 }, "→"),
            h("button", { type: "button", onclick: () => zoomTo(null), disabled: !zoom }, "All")),
          h("span", { class: "soft small", role: "status" }, `${date(from).slice(0, 16)} to ${date(to).slice(0, 16)}, a value every ${duration(current.bin_seconds)}`)),
        h("div", { class: columns === 2 ? "columns" : null }, data.sources.map((source, at) => graph(source, data.graphs[at], { from, to, width: each, zoom: zoomTo, id: source.source }))),
      ];
    },
  };

  function graph(source, data, more) {
    if (!data) return null;
    const isEmpty = !data.series.some((series) => series.values.some((value) => value !== null));
    return h("section", { class: "card", "data-key": source.source },
      h("h2", null, source.title),
      isEmpty ? h("p", { class: "empty" }, "Nothing measured yet.") : [
        plot(data, { ...more, stacked: source.is_stacked, label: `${source.title}: ${summary(data)}` }),
        data.series.length > 1 || data.series[0]?.name ? h("ul", { class: "legend" }, data.series.map((series, kind) => h("li", { "data-key": series.name }, h("span", { class: `dot bg${Math.min(kind, 8)}` }), h("span", { class: "break" }, series.name.length > 30 ? `${series.name.slice(0, 14)}…${series.name.slice(-8)}` : series.name))), data.omitted > 0 ? h("li", { class: "soft" }, `and ${many(data.omitted, "smaller one")}`) : null) : null,
        h("details", null, h("summary", null, "As a table"), numbers(source, data, more)),
      ]);
  }
}

function summary(data) {
  return data.series.map((series) => {
    const known = series.values.filter((value) => value !== null);
    if (known.length === 0) return `${series.name || "value"} unknown`;
    return `${series.name || "last value"} ${reading(known.at(-1), data.unit)}, between ${reading(Math.min(...known), data.unit)} and ${reading(Math.max(...known), data.unit)}`;
  }).join("; ");
}

/** About twenty-four lines of numbers, newest first. */
function numbers(source, data, { from, to }) {
  const shown = data.times.map((time, at) => [time, at]).filter(([time, at]) => time >= from && time <= to && data.series.some((series) => series.values[at] !== null));
  const step = Math.max(1, Math.ceil(shown.length / 24));
  const rows = shown.reverse().filter((_, at) => at % step === 0);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${source.title} as a table` }, h("table", null, h("caption", { class: "unseen" }, source.title),
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Time"), data.series.map((series) => h("th", { scope: "col", class: "num" }, series.name || "Value")))),
    h("tbody", null, rows.map(([time, at]) => h("tr", null, h("th", { scope: "row" }, date(time).slice(0, 16)), data.series.map((series) => h("td", { class: "num" }, reading(series.values[at], data.unit))))))));
}
