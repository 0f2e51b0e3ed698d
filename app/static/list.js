/** The review list: a row for each picture that the filter lets through. */

import { element } from "./dom.js";
import { FILTERS, ORDERS, arrange, count } from "./review.js";
import { Thumbnails } from "./thumbnails.js";
import * as states from "./states.js";
import { contradicted, percent } from "./words.js";

const MOVES = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity };

/** Dispatches `select` (detail: the entry) when the user picks a row. */
export class List extends EventTarget {
  #library;
  #model;
  #rows = new Map(); // entry → row
  #entries = new WeakMap(); // row → entry
  #shown = [];
  #selected = null;
  #current = null; // the entry whose row was the last that was selected or had the focus
  #stale = new Set();
  #frame = null;
  #thumbnails = new Thumbnails();
  #root = document.getElementById("rows");
  #filters = document.getElementById("filters");
  #order = document.getElementById("order");
  #find = document.getElementById("find");
  #empty = document.getElementById("no-rows");

  /**
   * @param {import("./library.js").Library} library
   * @param {import("./model.js").ModelCard} model
   */
  constructor(library, model) {
    super();
    this.#library = library;
    this.#model = model;
    this.#offer();
    library.addEventListener("change", ({ detail: entry }) => this.#touch(entry));
    model.addEventListener("change", () => [...this.#rows.keys()].forEach((e) => this.#touch(e)));
    for (const control of [this.#filters, this.#order, this.#find]) {
      control.addEventListener("input", () => this.#arrange());
    }
    this.#root.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row !== null) this.#pick(this.#entries.get(row));
    });
    this.#root.addEventListener("keydown", (event) => {
      const { key, target, altKey, ctrlKey, metaKey } = event;
      if (altKey || ctrlKey || metaKey) return;
      if (key === "Enter" || key === " ") this.#pick(this.#entries.get(target));
      else if (!(key in MOVES)) return;
      else if (this.#selected !== null) this.step(MOVES[key]);
      else this.focus(this.at(MOVES[key]) ?? this.#current); // to be opened only when it is chosen
      event.preventDefault();
    });
    this.#root.addEventListener("focusin", ({ target }) => {
      this.#current = this.#entries.get(target);
      this.#makeReachable();
    });
  }

  /** @returns {import("./library.js").Entry[]} what the list shows, in its order */
  get shown() {
    this.#flush();
    return this.#shown;
  }

  /**
   * Mark the row of an entry, and bring it into sight.
   * @param {import("./library.js").Entry?} entry
   */
  select(entry) {
    const before = this.#rows.get(this.#selected);
    this.#selected = entry;
    this.#current = entry ?? this.#current;
    this.#flush();
    if (before !== undefined) mark(before, false);
    const row = this.#rows.get(entry);
    if (row !== undefined) {
      mark(row, true);
      this.#root.scrollTop += this.#outOfSight(row);
    }
    this.#makeReachable();
  }

  /**
   * Give the focus to the row of an entry, or to the first if the list does not show it.
   * @param {import("./library.js").Entry?} entry
   */
  focus(entry) {
    const row = this.#rows.get(entry);
    (row?.isConnected ? row : this.#root.firstElementChild)?.focus();
  }

  /**
   * Pick the entry that lies so many rows further on.
   * @param {number} by
   */
  step(by) {
    const entry = this.at(by);
    if (entry === null) return;
    const inList = this.#root.contains(document.activeElement);
    this.#pick(entry);
    if (inList || document.activeElement === document.body) {
      this.#rows.get(entry).focus({ preventScroll: true });
    }
  }

  /**
   * The entry that lies so many rows further on than the open or else the current one, at most at
   * the end.
   * @param {number} by
   * @returns {import("./library.js").Entry?} null if there is none
   */
  at(by) {
    const { shown } = this;
    const from = this.#selected ?? this.#current;
    const place = shown.indexOf(from);
    const last = shown.length - 1;
    const target = place < 0 ? 0 : Math.min(Math.max(place + by, 0), last);
    return shown[target] === from ? null : (shown[target] ?? null);
  }

  #offer() {
    for (const [name, { label }] of Object.entries(FILTERS)) {
      const input = element("input", { type: "radio", name: "filter", value: name });
      input.checked = name === "all";
      const number = element("span", { className: "count" }, "0");
      this.#filters.append(element("label", {}, input, element("span", {}, `${label} `, number)));
    }
    for (const [name, { label }] of Object.entries(ORDERS)) {
      this.#order.append(element("option", { value: name }, label));
    }
  }

  #pick(entry) {
    this.dispatchEvent(new CustomEvent("select", { detail: entry }));
  }

  #touch(entry) {
    this.#stale.add(entry);
    this.#frame ??= requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    if (this.#stale.size === 0) return;
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    for (const entry of this.#stale) this.#update(entry);
    this.#stale.clear();
    this.#arrange();
  }

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
    const untrained = entry.phase === "succeeded" && this.#model.isUntrained(entry.record.model);
    fill(row, entry, untrained);
    this.#thumbnails.update(row, entry);
  }

  #arrange() {
    const view = {
      filter: this.#filters.querySelector("input:checked").value,
      order: this.#order.value,
      text: this.#find.value,
    };
    this.#shown = arrange(this.#library.entries, view);
    const rows = this.#shown.map((entry) => this.#rows.get(entry)).filter((row) => row !== undefined);
    const { children } = this.#root;
    if (rows.length !== children.length || rows.some((row, place) => row !== children[place])) {
      const { activeElement } = document;
      const selected = this.#rows.get(this.#selected);
      const follow = selected && (!selected.isConnected || this.#outOfSight(selected) === 0);
      this.#place(rows);
      if (follow && selected.isConnected) this.#root.scrollTop += this.#outOfSight(selected);
      if (rows.includes(activeElement)) activeElement.focus({ preventScroll: true });
    }
    const counts = count(this.#library.entries);
    for (const label of this.#filters.querySelectorAll("label")) {
      const { value, checked } = label.firstElementChild;
      setText(label.querySelector(".count"), String(counts[value]));
      label.hidden = counts[value] === 0 && !checked && value !== "all";
    }
    this.#root.hidden = rows.length === 0;
    this.#empty.hidden = rows.length > 0;
    this.#makeReachable();
    this.dispatchEvent(new Event("arranged"));
  }

  /** Show these rows; those that can stay do, so that what is in sight stays in sight. */
  #place(rows) {
    const shown = new Set(rows);
    for (const row of [...this.#root.children]) if (!shown.has(row)) row.remove();
    let next = this.#root.firstElementChild;
    for (const row of rows) {
      if (row === next) next = next.nextElementSibling;
      else this.#root.insertBefore(row, next);
    }
  }

  /** How far the list must scroll for a row of it to be seen, pixels. */
  #outOfSight(row) {
    const list = this.#root.getBoundingClientRect();
    const { top, bottom } = row.getBoundingClientRect();
    return Math.min(0, top - list.top) + Math.max(0, bottom - list.bottom);
  }

  /** One row, and one alone, can be reached with the Tab key: the current, else the first. */
  #makeReachable() {
    const reachable = this.#root.querySelector("[tabindex='0']");
    const current = this.#rows.get(this.#current);
    const next = current?.isConnected ? current : this.#root.firstElementChild;
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
    element("span", { className: "name" }),
    element("span", { className: "state" }),
    element("span", { className: "figure" }),
    element("span", { className: "changed" }),
    element("progress", { ariaHidden: "true" }),
  );
  return row;
}

function mark(row, selected) {
  row.ariaSelected = String(selected);
}

function fill(row, entry, untrained) {
  const [, name, state, figure, changed, bar] = row.children;
  const { phase, record } = entry;
  const succeeded = phase === "succeeded";
  setText(name, entry.name);
  row.title = entry.name;
  setText(state, states.short(entry, untrained));
  setText(figure, succeeded ? percent(record.ai_probability) : "");
  setText(changed, succeeded && record.manipulated ? "manipulated" : "");
  row.dataset.tone = tone(entry, untrained);
  bar.hidden = entry.finished;
  if (phase === "sending" && entry.sent < 1) bar.value = entry.sent;
  else if (phase === "waiting") bar.value = 0;
  else bar.removeAttribute("value");
}

function tone({ phase, record, finished, trouble }, untrained) {
  if (phase === "succeeded" && untrained) return "none";
  if (phase === "succeeded") return contradicted(record) ? "uncertain" : record.verdict;
  if (trouble !== null) return "trouble";
  return finished ? "bad" : "pending";
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
