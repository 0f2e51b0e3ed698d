/** Keeps the library up to date: unfinished and new detections. */

/** @import { Entry } from "./library.js" */

import { PAGE, getDetections, listDetections } from "./api.js";
import { Problem } from "./problem.js";

const FIRST_DELAY = 250; // ms
const SLOWEST_DELAY = 2000; // ms
const GROWTH = 1.4;
const REFRESH = 30000; // ms between two requests for new detections
const AT_ONCE = 500; // records that are listed automatically

/** Polls all unfinished detections, many in one request. */
export class Follower {
  #library;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #delay = FIRST_DELAY;
  #asking = false;

  /** @param {import("./library.js").Library} library */
  constructor(library) {
    this.#library = library;
    library.addEventListener("change", ({ detail: entry }) => {
      if (entry.followed && !this.#asking && this.#timer === undefined) this.soon();
    });
  }

  /** Poll again soon. */
  soon() {
    this.#delay = FIRST_DELAY;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#poll(), 0);
  }

  async #poll() {
    if (this.#asking) return;
    this.#asking = true;
    let pause = 0;
    try {
      const followed = [...this.#library.entries].filter((entry) => entry.followed);
      for (let start = 0; start < followed.length; start += PAGE) {
        pause = Math.max(pause, await this.#ask(followed.slice(start, start + PAGE)));
      }
    } finally {
      this.#asking = false;
      this.#timer = undefined;
    }
    if (![...this.#library.entries].some((entry) => entry.followed)) return;
    this.#timer = setTimeout(() => this.#poll(), Math.max(pause, this.#delay));
    this.#delay = Math.min(this.#delay * GROWTH, SLOWEST_DELAY);
  }

  /**
   * @param {Entry[]} entries
   * @returns {Promise<number>} ms for which the service wants to be left alone
   */
  async #ask(entries) {
    try {
      const ids = entries.flatMap(({ id }) => id ?? []);
      const { detections, missing, requestId } = await getDetections(ids);
      for (const record of detections) this.#library.take(record, requestId);
      for (const entry of entries) {
        if (entry.id !== null && missing.includes(entry.id)) this.#library.change(entry, { phase: "gone", requestId });
      }
      return 0;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      /** @type {Partial<Entry>} */
      const fields = problem.temporary
        ? { trouble: problem }
        : { phase: "refused", problem, requestId: problem.requestId };
      for (const entry of entries) this.#library.change(entry, fields);
      return (problem.retryAfter ?? 0) * 1000;
    }
  }
}

/** Lists the caller's detections, including those of other clients. Dispatches `change`. */
export class Listing extends EventTarget {
  #library;
  /** @type {Promise<void>?} */ #loading = null;
  /** @type {string?} where older ones are listed */ #next = null;
  /** @type {boolean} whether the first answer has come */ known = false;
  /** @type {Problem?} why the list may be incomplete */ problem = null;

  /** @param {import("./library.js").Library} library */
  constructor(library) {
    super();
    this.#library = library;
    setInterval(() => document.hidden || this.refresh(), REFRESH);
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  /** Whether there are older detections that are not listed. */
  get more() {
    return this.#next !== null;
  }

  /** List what is new. */
  refresh() {
    return this.#load(null);
  }

  /** List older ones. */
  loadOlder() {
    return this.#load(this.#next);
  }

  /** @param {string?} from */
  #load(from) {
    this.#loading ??= this.#loadPages(from).finally(() => {
      this.#loading = null;
      this.dispatchEvent(new Event("change"));
    });
    return this.#loading;
  }

  /** @param {string?} from */
  async #loadPages(from) {
    const further = !this.known || from !== null; // otherwise stop at a known record
    let next = from;
    try {
      for (let count = 0; count < AT_ONCE; count += PAGE) {
        const page = await listDetections(next);
        const fresh = page.detections.map((record) => this.#library.take(record)); // take each one
        this.known = true;
        this.problem = null;
        this.dispatchEvent(new Event("change"));
        next = page.next;
        if (next === null || (!further && !fresh.every(Boolean))) break;
      }
      if (further) this.#next = next;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.problem = problem;
    }
  }
}
