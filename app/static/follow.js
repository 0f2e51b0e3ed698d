/** Keeps unfinished detections up to date. Loaded when there is one. */

/** @import { Entry } from "./library.js" */

import { PAGE, getDetections } from "./api.js";
import { Ends } from "./ends.js";
import { time } from "./library.js";
import { Problem } from "./problem.js";

const FIRST_DELAY = 250; // ms
const SLOWEST_DELAY = 2000; // ms
const GROWTH = 1.4;
const GATHERED = 100; // ms in which ends are gathered, to ask for them together
const WINDOW = 16; // unfinished records that are polled each time: the oldest, and the open one
const HEARD_WINDOW = 4; // while their ends are heard: enough for phases and places in the queue
const SWEEP = 32; // every so often all of them, because not all finish in turn

/** Waits for the ends of detections, and polls unfinished ones, many in one request. */
export class Follower {
  #library;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #delay = FIRST_DELAY;
  #asking = false;
  #polls = 0;
  #isOpen;
  /** @type {Set<Entry>} that have ended */ #ended = new Set();
  #ends = new Ends((id) => this.#hear(id));

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
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#ends.close() : this.soon()));
    this.soon();
  }

  /** Poll again soon. */
  soon() {
    this.#delay = FIRST_DELAY;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#poll(), 0);
  }

  /** Follow the detections of another key. */
  renew() {
    this.#ends.close();
    this.soon();
  }

  async #poll() {
    if (this.#asking) return;
    this.#asking = true;
    if (!document.hidden) this.#ends.open();
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
    if (![...this.#library.entries].some((entry) => entry.followed)) {
      this.#ends.close();
      return;
    }
    if (this.#ends.listening) this.#delay = SLOWEST_DELAY;
    else if (followed.filter(({ finished }) => finished).length > WINDOW / 2) this.#delay = FIRST_DELAY;
    this.#timer = setTimeout(() => this.#poll(), Math.max(pause, this.#delay));
    this.#delay = Math.min(this.#delay * GROWTH, SLOWEST_DELAY);
  }

  /** @param {string?} id of a detection that has ended; null: others may have ended before */
  #hear(id) {
    if (id === null) {
      this.#polls = SWEEP - 1;
      this.soon();
      return;
    }
    const entry = this.#library.find(id);
    if (entry === null || !entry.followed) return;
    if (this.#ended.size === 0) setTimeout(() => this.#askEnded(), GATHERED);
    this.#ended.add(entry);
  }

  async #askEnded() {
    const entries = [...this.#ended];
    this.#ended.clear();
    for (let start = 0; start < entries.length; start += PAGE) {
      await this.#ask(entries.slice(start, start + PAGE));
    }
    if (entries.some((entry) => entry.followed)) this.#polls = SWEEP - 1; // it failed: ask again
  }

  /** The entries to poll now: the service works through them from the oldest on. */
  #due() {
    const followed = [...this.#library.entries]
      .filter((entry) => entry.followed)
      .sort((one, other) => createdAt(one) - createdAt(other));
    this.#polls += 1;
    if (this.#polls % SWEEP === 0) return followed;
    const window = this.#ends.listening ? HEARD_WINDOW : WINDOW;
    return followed.filter((entry, place) => place < window || entry.record === null || this.#isOpen(entry));
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
