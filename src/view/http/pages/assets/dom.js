// Creates elements, and patches the page without touching unchanged elements, so that focus, selection and scroll
// position survive. Text is inserted as text nodes, so names from strangers are never markup.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "title", "polygon", "clipPath", "defs"]);

/** Creates an element: `h("a", {href: "/", onclick: f}, "text", [more, children])`; null and false are left out. */
export function h(tag, attributes, ...children) {
  const inSvg = SVG_TAGS.has(tag) || attributes?.svg;
  const element = inSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false || name === "svg") continue;
    if (name.startsWith("on")) listen(element, name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

function listen(element, type, handler) {
  element.handlers ??= {};
  if (!(type in element.handlers)) element.addEventListener(type, dispatch);
  element.handlers[type] = handler;
}

function dispatch(event) {
  return this.handlers[event.type]?.call(this, event);
}

/** Patches the children of `parent` into `wanted`, an array of nodes. */
export function patch(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let at = parent.firstChild;
  for (const next of wanted.flat(Infinity)) {
    if (next === null || next === undefined || next === false) continue;
    const node = next instanceof Node ? next : document.createTextNode(String(next));
    const key = node.dataset?.key;
    let old = key ? keyed.get(key) : at;
    while (!key && old?.dataset?.key) old = old.nextSibling;
    if (old && isAlike(old, node)) {
      if (old === at) at = at.nextSibling;
      else parent.insertBefore(old, at);
      change(old, node);
    } else {
      parent.insertBefore(node, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function isAlike(old, node) {
  return old.nodeType === node.nodeType && old.nodeName === node.nodeName && old.dataset?.key === node.dataset?.key;
}

function change(old, node) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  if (node.keep) return;
  for (const { name } of [...old.attributes]) {
    // Details opened by the reader stay open.
    if (!node.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const type of Object.keys(node.handlers ?? {})) listen(old, type, node.handlers[type]);
  for (const type of Object.keys(old.handlers ?? {})) if (!(type in (node.handlers ?? {}))) old.handlers[type] = undefined;
  patch(old, [...node.childNodes]);
}

/** Marks an element that is drawn by other code: `patch` skips it. */
export function keep(element) {
  element.keep = true;
  return element;
}
