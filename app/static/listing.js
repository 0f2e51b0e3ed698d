/** Lists the caller's detections, including those of other clients. */

/** @import { Detection } from "./api.js" */
/** @import { Entry } from "./library.js" */

import { PAGE, listDetections } from "./api.js";
import { time } from "./library.js";
import { Problem } from "./problem.js";

const REFRESH = 30000; // ms between two requests for new detections
const AT_ONCE = 500; // records that are listed automatically

/** Dispatches `change` when something was listed, or could not be. */
export class Listing extends EventTarget {
  #library;
  /** @type {Promise<void>?} */ #loading = null;
  /** @type {string?} where older ones are listed */ #next = null;
  /** @type {boolean} whether the first answer has come */ known = false;
  /** @type {Problem?} why the list may be incomplete */ problem = null;

  /** @type {(entry: Entry) => boolean} */ #isOpen;

  /**
   * @param {import("./library.js").Library} library
   * @param {(entry: Entry) => boolean} isOpen whether an entry that was deleted elsewhere is shown;
   *     then it stays, as not found
   */
  constructor(library, isOpen) {
    super();
    this.#library = library;
    this.#isOpen = isOpen;
    setInterval(() => document.hidden || this.refresh(), REFRESH);
    document.addEventListener("visibilitychange", () => document.hidden || this.refreshAll());
  }

  /** Whether there are older detections that are not listed. */
  get more() {
    return this.#next !== null;
  }

  /** List what is new. */
  refresh() {
    return this.#load(null);
  }

  /** List what is new, and compare all that is listed with the service. */
  async refreshAll() {
    await this.#loading; // it may compare less
    return this.#load(null, true);
  }

  /** List older ones. */
  loadOlder() {
    return this.#load(this.#next);
  }

  /** Forget what is listed, for another caller. */
  reset() {
    this.known = false;
    this.#next = null;
  }

  /**
   * @param {string?} from
   * @param {boolean} [all] whether not to stop at a known record
   */
  #load(from, all = false) {
    this.#loading ??= this.#loadPages(from, all).finally(() => {
      this.#loading = null;
      this.dispatchEvent(new Event("change"));
    });
    return this.#loading;
  }

  /**
   * @param {string?} from
   * @param {boolean} all
   */
  async #loadPages(from, all) {
    const further = !this.known || from !== null; // otherwise stop at a known record
    const before = [...this.#library.entries].filter(({ record }) => record !== null);
    /** @type {Detection[]} */
    const listed = [];
    let next = from;
    try {
      for (let count = 0; count < AT_ONCE; count += PAGE) {
        const page = await listDetections(next);
        const fresh = page.detections.map((record) => this.#library.take(record)); // take each one
        listed.push(...page.detections);
        this.known = true;
        this.problem = null;
        this.dispatchEvent(new Event("change"));
        next = page.next;
        if (next === null || (!further && !all && !fresh.every(Boolean))) break;
      }
      if (further) this.#next = next;
      if (from === null) this.#dropDeleted(before, listed, next === null);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.problem = problem;
    }
  }

  /**
   * Drop entries that the service does not list any more.
   * @param {Entry[]} before what was known when the list was requested
   * @param {Detection[]} listed newest first
   * @param {boolean} complete whether there are no older ones
   */
  #dropDeleted(before, listed, complete) {
    const ids = new Set(listed.map(({ id }) => id));
    const last = listed.at(-1);
    const oldest = complete || last === undefined ? -Infinity : time(last.created_at);
    for (const entry of before) {
      const { id, record } = entry;
      if (id === null || record === null || ids.has(id) || time(record.created_at) <= oldest) continue;
      if (this.#isOpen(entry)) this.#library.change(entry, { phase: "gone" });
      else this.#library.remove(entry);
    }
  }
}
