/** Keeps the library up to date: unfinished and new detections. */

/** @import { Detection } from "./api.js" */
/** @import { Entry } from "./library.js" */

import { PAGE, getDetections, listDetections } from "./api.js";
import { time } from "./library.js";
import { Problem } from "./problem.js";

const FIRST_DELAY = 250; // ms
const SLOWEST_DELAY = 2000; // ms
const GROWTH = 1.4;
const WINDOW = 16; // unfinished records that are polled each time: the oldest, and the open one
const SWEEP = 32; // every so often all of them, because not all finish in turn
const REFRESH = 30000; // ms between two requests for new detections
const AT_ONCE = 500; // records that are listed automatically

/** Polls unfinished detections, many in one request. */
export class Follower {
  #library;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #delay = FIRST_DELAY;
  #asking = false;
  #polls = 0;
  #isOpen;

  /**
   * @param {import("./library.js").Library} library
   * @param {(entry: Entry) => boolean} isOpen whether an entry is shown, so that it is always polled
   */
  constructor(library, isOpen) {
    this.#library = library;
    this.#isOpen = isOpen;
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
    const followed = this.#due();
    try {
      for (let start = 0; start < followed.length; start += PAGE) {
        pause = Math.max(pause, await this.#ask(followed.slice(start, start + PAGE)));
      }
    } finally {
      this.#asking = false;
      this.#timer = undefined;
    }
    if (![...this.#library.entries].some((entry) => entry.followed)) return;
    if (followed.filter(({ finished }) => finished).length > WINDOW / 2) this.#delay = FIRST_DELAY;
    this.#timer = setTimeout(() => this.#poll(), Math.max(pause, this.#delay));
    this.#delay = Math.min(this.#delay * GROWTH, SLOWEST_DELAY);
  }

  /** The entries to poll now: the service works through them from the oldest on. */
  #due() {
    const followed = [...this.#library.entries]
      .filter((entry) => entry.followed)
      .sort((one, other) => createdAt(one) - createdAt(other));
    this.#polls += 1;
    if (this.#polls % SWEEP === 0) return followed;
    return followed.filter((entry, place) => place < WINDOW || this.#isOpen(entry));
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

/**
 * When the service took it; of one that is known only by its id, long ago.
 * @param {Entry} entry
 */
function createdAt({ record }) {
  return record === null ? 0 : time(record.created_at);
}

/** Lists the caller's detections, including those of other clients. Dispatches `change`. */
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
  refreshAll() {
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
