// Plots series over time, with a crosshair that shows values and a brush that zooms.

import { h, keep } from "./dom.js";
import { date, scaled } from "./format.js";

const LEFT_MIN = 40;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 22;

let pen = null;

/** Width of a label in the style sheet's font, in pixels. */
function widthOf(text) {
  if (!pen) {
    pen = document.createElement("canvas").getContext("2d");
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  }
  return pen.measureText(text).width;
}

/** Returns round numbers for an axis from 0 to `most`. */
export function ticks(most, count = 4) {
  if (!(most > 0)) return [0, 1];
  const rough = most / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const found = [];
  for (let value = 0; value <= most + step * 0.999; value += step) found.push(value);
  return found;
}

const TIME_STEPS = [60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400, 14 * 86400, 30 * 86400, 91 * 86400];

function timeTicks(from, to, width) {
  const step = TIME_STEPS.find((one) => (to - from) / one <= Math.max(2, width / 95)) ?? TIME_STEPS.at(-1);
  const zone = new Date(from * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) found.push(at);
  return found.map((at) => [at, step >= 86400 ? date(at).slice(5, 10) : to - from > 86400 ? `${date(at).slice(8, 10)}. ${date(at).slice(11, 16)}` : date(at).slice(11, 16)]);
}

/** Same as `ticks` for satoshis, which have no fractions. */
const amountTicks = (most) => (most > 0 ? ticks(Math.max(4, most)) : [0, 1e8]);

/** Labels of an axis: amounts in coins, with as many digits as needed. */
export function axisLabels(marks, unit) {
  if (unit !== "satoshi") return marks.map((value) => (value === 0 ? "0" : reading(value, unit)));
  const step = marks[1] - marks[0];
  const digits = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].find((count) => Number.isInteger(step / 10 ** (8 - count))) ?? 9;
  return marks.map((value) => (value === 0 ? "0" : (value / 1e8).toFixed(digits)));
}

/** Formats a value with its unit: bytes and hashes get prefixes. */
export function reading(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "satoshi") return `${(value / 1e8).toFixed(8)}`;
  if (unit === "s") {
    const [text, prefix] = value < 1 && value > 0 ? scaled(value * 1000) : scaled(value);
    return `${text}\u00a0${value < 1 && value > 0 ? "m" : prefix}s`;
  }
  const [text, prefix] = scaled(value);
  return unit === "" ? `${text}${prefix ? `\u00a0${prefix}` : ""}` : `${text}\u00a0${prefix}${unit}`;
}

/**
 * The plot. `graph`: {times, series: [{name, values}], unit, bin_seconds}, oldest first. `more`: {from, to, width, height, zoom(from, to), label}.
 * Series are stacked if `more.stacked`.
 */
export function plot(graph, more) {
  const { from, to, width } = more;
  const height = more.height ?? 190;
  const tall = height - TOP - BOTTOM;
  const visible = [];
  graph.times.forEach((time, index) => { if (time >= from - graph.bin_seconds && time <= to + graph.bin_seconds) visible.push(index); });
  const layers = stack(graph, visible, more.stacked);
  const highest = Math.max(0, ...layers.flatMap((layer) => layer.upper.filter((value) => value !== null)));
  const marks = graph.unit === "satoshi" ? amountTicks(highest) : ticks(highest);
  const labels = axisLabels(marks, graph.unit);
  const most = marks.at(-1);
  const left = Math.max(LEFT_MIN, Math.ceil(Math.max(...labels.map(widthOf))) + 8);
  const inner = Math.max(50, width - left - RIGHT);
  const x = (time) => left + ((time - from) / (to - from)) * inner;
  const y = (value) => TOP + tall - (value / most) * tall;
  const clip = `clip-${more.id}`;
  const shapes = layers.flatMap((layer) => {
    const kind = Math.min(layer.kind, 8);
    const points = visible.map((index, at) => [x(graph.times[index]), layer.upper[at], layer.lower[at]]);
    const single = layers.length === 1;
    return [
      h("path", { class: `area k${kind}${single || !more.stacked ? " is-only" : ""}`, d: areaPath(points, y), "clip-path": `url(#${clip})` }),
      more.stacked && !single ? null : h("path", { class: `line k${kind}`, d: linePath(points, y), "clip-path": `url(#${clip})` }),
    ];
  });
  const axis = marks.map((value, at) => h("g", null,
    h("line", { class: "grid", x1: left, x2: left + inner, y1: y(value), y2: y(value) }),
    h("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, labels[at])));
  const times = timeTicks(from, to, inner).map(([time, text]) => {
    // A label at the right end would exceed the width.
    const middle = Math.min(x(time), width - Math.ceil(widthOf(text) / 2));
    return h("text", { x: middle, y: height - 5, "text-anchor": "middle" }, text);
  });
  const svg = h("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": more.label, tabindex: 0 },
    h("defs", null, h("clipPath", { id: clip }, h("rect", { x: left, y: 0, width: inner, height }))),
    axis, times, shapes,
    h("line", { class: "cross", x1: -9, x2: -9, y1: TOP, y2: TOP + tall, visibility: "hidden" }),
    h("rect", { class: "brush", x: 0, y: TOP, width: 0, height: tall, visibility: "hidden" }));
  const hint = keep(h("div", { class: "hint", hidden: true, "aria-hidden": "true" }));
  return h("div", { class: "plot", onpointermove: move, onpointerleave: leave, onpointerdown: press, onpointerup: release, onpointercancel: leave, ondblclick: () => more.zoom?.(null), onkeydown: keys }, svg, hint);

  function timeAt(event) {
    const box = event.currentTarget.querySelector("svg").getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * width;
    return Math.max(from, Math.min(to, from + ((px - left) / inner) * (to - from)));
  }

  function move(event) {
    const root = event.currentTarget;
    const time = timeAt(event);
    const { pressed } = root;
    if (typeof pressed === "number") {
      const brush = root.querySelector(".brush");
      brush.setAttribute("visibility", "visible");
      brush.setAttribute("x", x(Math.min(time, pressed)));
      brush.setAttribute("width", Math.abs(x(time) - x(pressed)));
    }
    let nearest = -1;
    for (const index of visible) if (nearest < 0 || Math.abs(graph.times[index] - time) < Math.abs(graph.times[nearest] - time)) nearest = index;
    const cross = root.querySelector(".cross");
    const box = root.querySelector(".hint");
    if (nearest < 0) return;
    const at = x(graph.times[nearest]);
    for (const name of ["x1", "x2"]) cross.setAttribute(name, at);
    cross.setAttribute("visibility", "visible");
    const values = graph.series.map((series, kind) => [series.name, series.values[nearest], kind]).filter(([, value]) => value !== null && value !== undefined);
    box.replaceChildren(h("div", null, date(graph.times[nearest]).slice(0, 16)), ...values.slice(0, 9).map(([name, value, kind]) => h("div", null, h("span", { class: `dot bg${Math.min(kind, 8)}` }), values.length > 1 || name ? `${name}: ` : "", reading(value, graph.unit))), values.length === 0 ? h("div", null, "nothing measured") : "");
    box.hidden = false;
    const scale = root.clientWidth / width;
    const place = at * scale + 14;
    box.style.top = `${TOP}px`;
    box.style.left = `${place + box.offsetWidth > root.clientWidth ? Math.max(0, at * scale - 14 - box.offsetWidth) : place}px`;
  }

  function leave(event) {
    const root = event.currentTarget;
    // Kept on the element, as a redraw has new handlers.
    root.pressed = null;
    root.querySelector(".cross").setAttribute("visibility", "hidden");
    root.querySelector(".brush").setAttribute("visibility", "hidden");
    root.querySelector(".hint").hidden = true;
  }

  function press(event) {
    if (event.button !== 0 || event.pointerType === "touch" || !more.zoom) return;
    event.preventDefault();
    event.currentTarget.querySelector("svg").focus({ preventScroll: true });
    event.currentTarget.setPointerCapture(event.pointerId);
    event.currentTarget.pressed = timeAt(event);
  }

  function release(event) {
    const { pressed } = event.currentTarget;
    if (typeof pressed !== "number") return;
    const [one, other] = [pressed, timeAt(event)].sort((a, b) => a - b);
    leave(event);
    if (x(other) - x(one) > 8) more.zoom([one, other]);
  }

  function keys(event) {
    if (!more.zoom) return;
    const span = to - from;
    const shift = span / 4;
    const next = {
      "+": [from + shift, to - shift], "=": [from + shift, to - shift], "-": [from - span / 2, to + span / 2],
      ArrowLeft: [from - shift, to - shift], ArrowRight: [from + shift, to + shift], Escape: null, 0: null,
    };
    if (!(event.key in next) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    more.zoom(next[event.key]);
  }
}

function stack(graph, visible, stacked) {
  const below = visible.map(() => 0);
  return graph.series.map((series, kind) => {
    const values = visible.map((index) => series.values[index] ?? null);
    if (!stacked) return { kind, upper: values, lower: values.map(() => 0) };
    const lower = [...below];
    const upper = values.map((value, at) => (below[at] += value ?? 0));
    return { kind, upper, lower };
  });
}

function runs(points) {
  const found = [];
  let run = [];
  for (const point of points) {
    if (point[1] === null) {
      if (run.length) found.push(run);
      run = [];
    } else {
      run.push(point);
    }
  }
  if (run.length) found.push(run);
  return found;
}

const spot = (px, py) => `${px.toFixed(1)},${py.toFixed(1)}`;

function linePath(points, y) {
  return runs(points).map((run) => (run.length === 1 ? `M${spot(run[0][0] - 1, y(run[0][1]))}h2` : `M${run.map(([px, value]) => spot(px, y(value))).join("L")}`)).join("");
}

function areaPath(points, y) {
  return runs(points).filter((run) => run.length > 1).map((run) => `M${run.map(([px, upper]) => spot(px, y(upper))).join("L")}L${[...run].reverse().map(([px, , lower]) => spot(px, y(lower))).join("L")}Z`).join("");
}

/** A small line without axes, for a tile. */
export function spark(values, label) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const most = Math.max(...known) || 1;
  const points = values.map((value, index) => [(index / (values.length - 1)) * 200, value, 0]);
  const y = (value) => 37 - (value / most) * 35;
  return h("div", { class: "spark" }, h("svg", { viewBox: "0 0 200 38", preserveAspectRatio: "none", role: "img", "aria-label": label },
    h("path", { class: "area", d: areaPath(points, y) }), h("path", { class: "line", d: linePath(points, y) })));
}
