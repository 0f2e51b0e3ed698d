/** Selection of several rows of the list: with Shift or Ctrl, or, in touch mode, by tapping. */

/** @import { Entry, Library } from "./library.js" */
/** @import { List } from "./list.js" */

import { byId } from "./dom.js";

/** Dispatches `change`. */
export class Selection extends EventTarget {
  #library;
  #list;
  /** @type {Set<Entry>} */ #entries = new Set();
  /** @type {Entry?} where a range begins */ #anchor = null;
  /** @type {boolean} whether a plain click selects instead of opening */ #picking = false;
  #root = byId("rows");

  /**
   * @param {Library} library
   * @param {List} list
   */
  constructor(library, list) {
    super();
    this.#library = library;
    this.#list = list;
    this.#root.ariaMultiSelectable = "true";
    // Before the list itself, which would open the row.
    this.#root.addEventListener("click", (event) => this.#click(event), true);
    this.#root.addEventListener("keydown", (event) => this.#key(event), true);
    library.addEventListener("change", ({ detail: entry }) => {
      if (!library.has(entry) && this.#entries.has(entry)) this.#set(this.entries.filter((one) => one !== entry));
      else if (this.#picking || this.#entries.size > 0) this.#mark(entry);
    });
  }

  /** @returns {Entry[]} in the order of the list; those that it does not show come last */
  get entries() {
    const shown = this.#list.shown.filter((entry) => this.#entries.has(entry));
    return [...new Set([...shown, ...this.#entries])];
  }

  get picking() {
    return this.#picking;
  }

  /** @param {boolean} picking */
  set picking(picking) {
    this.#picking = picking;
    this.#set(picking ? this.entries : []);
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const entry = this.#list.entryAt(event.target);
    if (entry === undefined) return;
    const { shiftKey, ctrlKey, metaKey } = event;
    if (shiftKey) this.#extend(entry, ctrlKey || metaKey);
    else if (ctrlKey || metaKey || this.#picking) this.#toggle(entry);
    else {
      this.#anchor = entry;
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const entry = this.#list.entryAt(event.target);
    const { key, shiftKey, ctrlKey, metaKey, altKey } = event;
    if (entry === undefined || altKey) return;
    const control = ctrlKey || metaKey;
    if (key === " " && (control || this.#picking)) this.#toggle(entry);
    else if (control && key.toLowerCase() === "a") this.#set(this.#list.shown);
    else if (shiftKey && !control && (key === "ArrowDown" || key === "ArrowUp")) this.#step(entry, key);
    else if (key === "Escape" && this.#entries.size > 0) this.#set([]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * @param {Entry} from
   * @param {string} key
   */
  #step(from, key) {
    const { shown } = this.#list;
    const next = shown[shown.indexOf(from) + (key === "ArrowDown" ? 1 : -1)];
    if (next === undefined) return;
    this.#anchor ??= from;
    this.#extend(next, false);
    this.#list.rowOf(next)?.focus();
  }

  /** @param {Entry} entry */
  #toggle(entry) {
    this.#anchor = entry;
    this.#set(this.#entries.has(entry) ? this.entries.filter((one) => one !== entry) : [...this.#entries, entry]);
  }

  /**
   * Select from the anchor to an entry.
   * @param {Entry} entry
   * @param {boolean} add whether the others stay selected
   */
  #extend(entry, add) {
    const { shown } = this.#list;
    this.#anchor ??= entry;
    const ends = [Math.max(shown.indexOf(this.#anchor), 0), shown.indexOf(entry)];
    const range = shown.slice(Math.min(...ends), Math.max(...ends) + 1);
    this.#set(add ? [...this.#entries, ...range] : range);
  }

  /** @param {Entry[]} entries */
  #set(entries) {
    this.#entries = new Set(entries);
    for (const entry of this.#library.entries) this.#mark(entry);
    this.dispatchEvent(new Event("change"));
  }

  /** @param {Entry} entry */
  #mark(entry) {
    const row = this.#list.rowOf(entry);
    const checked = this.#entries.has(entry);
    const shown = this.#picking || this.#entries.size > 0;
    if (row !== undefined) row.ariaChecked = shown ? String(checked) : null;
  }
}
