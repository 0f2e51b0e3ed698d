/** The list: one row for each picture that passes the filter. */

/** @import { Entry, Library } from "./library.js" */
/** @import { ModelCard } from "./model.js" */
/** @import { Emitter } from "./dom.js" */

import { byId, element, within } from "./dom.js";
import { recall, remember } from "./preferences.js";
import { DECISIONS, FILTERS, ORDERS, arrange, count } from "./review.js";
import { Thumbnails } from "./thumbnails.js";
import * as states from "./states.js";
import { percent, state } from "./words.js";

/** @type {Record<string, number>} */
const MOVES = {
  ArrowRight: 1,
  ArrowLeft: -1,
  ArrowDown: 1,
  ArrowUp: -1,
  PageDown: 8,
  PageUp: -8,
  Home: -Infinity,
  End: Infinity,
};
const VERTICAL = new Set(["ArrowDown", "ArrowUp", "PageDown", "PageUp"]);

/** Dispatches `select` (detail: the entry) when the user picks a row. */
export class List extends /** @type {new () => Emitter<Entry>} */ (EventTarget) {
  #library;
  #model;
  /** @type {Map<Entry, HTMLElement>} */ #rows = new Map();
  /** @type {WeakMap<Element, Entry>} by row */ #entries = new WeakMap();
  /** @type {Entry[]} */ #shown = [];
  /** @type {Entry?} */ #selected = null;
  /** @type {Entry?} whose row was the last that was selected or had the focus */ #current = null;
  /** @type {Set<Entry>} */ #stale = new Set();
  /** @type {number?} */ #frame = null;
  #thumbnails = new Thumbnails();
  #root = byId("rows");
  #filters = byId("filters");
  #order = byId("order", HTMLSelectElement);
  #decided = byId("decided", HTMLSelectElement);
  #find = byId("find", HTMLInputElement);
  #empty = byId("no-rows");

  /**
   * @param {Library} library
   * @param {ModelCard} model
   */
  constructor(library, model) {
    super();
    this.#library = library;
    this.#model = model;
    this.#offer();
    library.addEventListener("change", ({ detail: entry }) => this.#touch(entry));
    model.addEventListener("change", () => {
      for (const entry of this.#rows.keys()) this.#touch(entry);
    });
    for (const control of [this.#filters, this.#decided, this.#order, this.#find]) {
      control.addEventListener("input", () => this.#arrange());
    }
    for (const control of [this.#filters, this.#order]) {
      control.addEventListener("change", () => this.#remember());
    }
    this.#root.addEventListener("click", (event) => {
      const entry = this.entryAt(event.target);
      if (entry !== undefined) this.#pick(entry);
    });
    this.#root.addEventListener("keydown", (event) => {
      const { key, target, altKey, ctrlKey, metaKey } = event;
      const entry = this.entryAt(target);
      if (altKey || ctrlKey || metaKey || entry === undefined) return;
      if (key === "Enter" || key === " ") this.#pick(entry);
      else if (!(key in MOVES)) return;
      else if (this.#selected !== null) this.step(this.#move(key));
      else this.focus(this.at(this.#move(key)) ?? this.#current); // opened only when chosen
      event.preventDefault();
    });
    this.#root.addEventListener("focusin", ({ target }) => {
      this.#current = this.entryAt(target) ?? null;
      this.#makeReachable();
    });
  }

  /** @returns {Entry[]} what the list shows, in its order */
  get shown() {
    this.#flush();
    return this.#shown;
  }

  /**
   * Mark the row of an entry and scroll to it.
   * @param {Entry?} entry
   */
  select(entry) {
    const before = this.rowOf(this.#selected);
    this.#selected = entry;
    this.#current = entry ?? this.#current;
    this.#flush();
    if (before !== undefined) mark(before, false);
    const row = this.rowOf(entry);
    if (row !== undefined) {
      mark(row, true);
      this.#root.scrollTop += this.#outOfSight(row);
    }
    this.#makeReachable();
  }

  /**
   * Focus the row of an entry, or the first row if the entry is not shown.
   * @param {Entry?} entry
   */
  focus(entry) {
    this.#near(entry)?.focus();
  }

  /**
   * Open the entry this many rows further.
   * @param {number} by
   */
  step(by) {
    const entry = this.at(by);
    if (entry === null) return;
    const inList = this.#root.contains(document.activeElement);
    this.#pick(entry);
    if (inList || document.activeElement === document.body) {
      this.#rows.get(entry)?.focus({ preventScroll: true });
    }
  }

  /**
   * How many entries a key moves; up and down by a line, in which a grid has several.
   * @param {string} key
   */
  #move(key) {
    const columns = getComputedStyle(this.#root).gridTemplateColumns.split(" ").length;
    return MOVES[key] * (VERTICAL.has(key) ? columns : 1);
  }

  /**
   * The entry that lies so many rows further on than the open or else the current one, which need
   * not be shown, at most at the end.
   * @param {number} by
   * @returns {Entry?} null if there is none
   */
  at(by) {
    let { shown } = this;
    const from = this.#selected ?? this.#current;
    if (from === null) return shown[0] ?? null;
    if (!shown.includes(from)) shown = [...shown, from].sort(ORDERS[this.#order.value].compare);
    const target = Math.min(Math.max(shown.indexOf(from) + by, 0), shown.length - 1);
    return shown[target] === from ? null : shown[target];
  }

  /**
   * The row of an entry.
   * @param {Entry?} entry
   */
  rowOf(entry) {
    return entry === null ? undefined : this.#rows.get(entry);
  }

  /**
   * The entry of a row, or of the row that an element lies in.
   * @param {EventTarget?} target
   */
  entryAt(target) {
    const row = target instanceof Element ? target.closest("[role=option]") : null;
    return row === null ? undefined : this.#entries.get(row);
  }

  /**
   * The row of an entry, or the first row if the entry is not shown.
   * @param {Entry?} entry
   */
  #near(entry) {
    const row = this.rowOf(entry);
    return row?.isConnected ? row : /** @type {HTMLElement?} */ (this.#root.firstElementChild);
  }

  #offer() {
    const filter = recalled("filter", FILTERS);
    for (const [name, { label }] of Object.entries(FILTERS)) {
      const input = element("input", { type: "radio", name: "filter", value: name });
      input.checked = name === filter;
      const number = element("span", { className: "count" }, "0");
      this.#filters.append(element("label", {}, input, element("span", {}, `${label} `, number)));
    }
    for (const [name, { label }] of Object.entries(ORDERS)) {
      this.#order.append(element("option", { value: name }, label));
    }
    for (const [name, { label }] of Object.entries(DECISIONS)) {
      this.#decided.append(element("option", { value: name }, label));
    }
    this.#order.value = recalled("order", ORDERS);
  }

  #remember() {
    remember("filter", within(this.#filters, "input:checked", HTMLInputElement).value);
    remember("order", this.#order.value);
  }

  /** @param {Entry} entry */
  #pick(entry) {
    this.dispatchEvent(new CustomEvent("select", { detail: entry }));
  }

  /** @param {Entry} entry */
  #touch(entry) {
    this.#stale.add(entry);
    this.#frame ??= requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    if (this.#stale.size === 0) return;
    if (this.#frame !== null) cancelAnimationFrame(this.#frame);
    this.#frame = null;
    for (const entry of this.#stale) this.#update(entry);
    this.#stale.clear();
    this.#arrange();
  }

  /** @param {Entry} entry */
  #update(entry) {
    let row = this.#rows.get(entry);
    if (!this.#library.has(entry)) {
      this.#rows.delete(entry);
      row?.remove();
      return;
    }
    if (row === undefined) {
      row = makeRow();
      this.#rows.set(entry, row);
      this.#entries.set(row, entry);
      mark(row, entry === this.#selected);
    }
    const { result } = entry;
    const untrained = result !== null && this.#model.isUntrained(result.model);
    fill(row, entry, untrained);
    this.#thumbnails.update(row, entry);
  }

  #arrange() {
    const view = {
      filter: within(this.#filters, "input:checked", HTMLInputElement).value,
      decided: this.#decided.value,
      order: this.#order.value,
      text: this.#find.value,
    };
    this.#shown = arrange(this.#library.entries, view);
    const rows = this.#shown.flatMap((entry) => this.#rows.get(entry) ?? []);
    const { children } = this.#root;
    if (rows.length !== children.length || rows.some((row, place) => row !== children[place])) {
      const { activeElement } = document;
      const inList = this.#root.contains(activeElement);
      const selected = this.rowOf(this.#selected);
      const follow = selected && (!selected.isConnected || this.#outOfSight(selected) === 0);
      this.#place(rows);
      if (follow && selected.isConnected) this.#root.scrollTop += this.#outOfSight(selected);
      if (inList) (rows.find((row) => row === activeElement) ?? this.#near(this.#current))?.focus({ preventScroll: true });
    }
    const counts = count(this.#library.entries);
    for (const label of this.#filters.querySelectorAll("label")) {
      const { value, checked } = within(label, "input", HTMLInputElement);
      setText(within(label, ".count"), String(counts[value]));
      label.hidden = counts[value] === 0 && !checked && value !== "all";
    }
    this.#root.hidden = rows.length === 0;
    this.#empty.hidden = rows.length > 0;
    this.#makeReachable();
    this.dispatchEvent(new Event("arranged"));
  }

  /**
   * Show these rows; keep existing ones, so that the visible part does not move.
   * @param {HTMLElement[]} rows
   */
  #place(rows) {
    /** @type {Set<Element>} */
    const shown = new Set(rows);
    for (const row of [...this.#root.children]) if (!shown.has(row)) row.remove();
    let next = this.#root.firstElementChild;
    for (const row of rows) {
      if (row === next) next = row.nextElementSibling;
      else this.#root.insertBefore(row, next);
    }
  }

  /**
   * How far the list must scroll to show a row, pixels.
   * @param {HTMLElement} row
   */
  #outOfSight(row) {
    const list = this.#root.getBoundingClientRect();
    const { top, bottom } = row.getBoundingClientRect();
    return Math.min(0, top - list.top) + Math.max(0, bottom - list.bottom);
  }

  /** Make exactly one row reachable with the Tab key: the current or else the first. */
  #makeReachable() {
    /** @type {HTMLElement?} */
    const reachable = this.#root.querySelector("[tabindex='0']");
    const next = this.#near(this.#current);
    if (reachable === next) return;
    if (reachable !== null) reachable.tabIndex = -1;
    if (next !== null) next.tabIndex = 0;
  }
}

function makeRow() {
  const row = element(
    "div",
    { className: "row", role: "option", tabIndex: -1 },
    element("img", { className: "thumbnail", alt: "", draggable: false }),
    element("span", { className: "name", dir: "auto" }),
    element("span", { className: "state" }),
    element("span", { className: "figure" }),
    element("span", { className: "decision" }),
    element("span", { className: "origin" }),
    element("span", { className: "changed" }),
    element("progress", { ariaHidden: "true" }),
  );
  return row;
}

/**
 * What the user chose last, or else the first choice.
 * @param {string} name of the preference
 * @param {Record<string, unknown>} choices
 */
function recalled(name, choices) {
  const value = recall(name);
  return value !== null && Object.hasOwn(choices, value) ? value : Object.keys(choices)[0];
}

/**
 * @param {HTMLElement} row
 * @param {boolean} selected
 */
function mark(row, selected) {
  row.ariaSelected = String(selected);
}

/**
 * @param {HTMLElement} row
 * @param {Entry} entry
 * @param {boolean} untrained whether its score means nothing
 */
function fill(row, entry, untrained) {
  const { phase, result } = entry;
  const bar = within(row, "progress", HTMLProgressElement);
  setText(within(row, ".name"), entry.name);
  row.title = entry.name;
  setText(within(row, ".state"), states.short(entry, untrained));
  setText(within(row, ".figure"), result === null ? "" : percent(result.ai_probability));
  setText(within(row, ".decision"), states.decided(entry));
  setText(within(row, ".origin"), states.badge(result));
  setText(within(row, ".changed"), result?.manipulated ? "manipulated" : "");
  row.dataset.tone = tone(entry, untrained);
  bar.hidden = entry.finished;
  if (phase === "sending" && entry.sent < 1) bar.value = entry.sent;
  else if (phase === "waiting") bar.value = 0;
  else bar.removeAttribute("value");
}

/**
 * @param {Entry} entry
 * @param {boolean} untrained
 */
function tone({ result, finished, trouble }, untrained) {
  if (result !== null && untrained) return "none";
  if (result !== null) return state(result);
  if (trouble !== null) return "trouble";
  return finished ? "bad" : "pending";
}

/**
 * @param {HTMLElement} target
 * @param {string} text
 */
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
