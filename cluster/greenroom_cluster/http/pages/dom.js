// The few ways in which these pages change what is shown. Text is only ever set as text.

/** Return the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Return a new element with this class and these children: elements, or texts. */
export function make(name, kind = "", ...children) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

/** Set a text, unless it is there: what does not change is not read out again, and keeps a selection. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/**
 * Make the children of a list be one for each item, in their order, and reuse those that are there.
 * `create()` returns a new child, and `update(child, item)` shows an item in it.
 */
export function showEach(parent, items, keyOf, create, update) {
  const former = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let previous = null;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = former.get(key);
    former.delete(key);
    if (!child) {
      child = create();
      child.dataset.key = key;
    }
    const place = previous ? previous.nextSibling : parent.firstChild;
    if (child !== place) parent.insertBefore(child, place);
    update(child, item);
    previous = child;
  }
  for (const child of former.values()) child.remove();
}

/** Return a new row with so many cells, of which the first is its heading. */
export function makeRow(kinds) {
  const row = make("tr");
  kinds.forEach((kind, index) => {
    const cell = make(index ? "td" : "th", kind);
    if (!index) cell.scope = "row";
    row.append(cell);
  });
  return row;
}

const WHOLE = new Intl.NumberFormat("en");
const TENTH = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** Return a number for people; a dash for what is not known. */
export const count = (number) => (number === null ? "–" : WHOLE.format(number));
export const rate = (number) => (number === null ? "–" : TENTH.format(number));

/** Return a size for people. A bound of 2**60 bytes and more is none. */
export function bytes(size) {
  if (size >= 2 ** 60) return "no bound";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${TENTH.format(size)} ${units[unit]}`;
}

/** Return a time that something took, for people. */
export function duration(seconds) {
  if (seconds >= 1) return `${TENTH.format(seconds)} s`;
  if (seconds >= 1e-3) return `${TENTH.format(seconds * 1e3)} ms`;
  return `${WHOLE.format(Math.round(seconds * 1e6))} µs`;
}

/** Return the time of day of an ISO 8601 time. */
export const timeOfDay = (text) => new Date(text).toLocaleTimeString("en-GB");
