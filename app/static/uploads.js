/** Uploads pictures: a few at a time, and no faster than the service allows. */

/** @import { Accepted } from "./api.js" */
/** @import { Entry } from "./library.js" */

import { deleteDetection, isAlive, submit } from "./api.js";
import { Problem, unreachable } from "./problem.js";

const PARALLEL = 3;
const FIRST_PAUSE = 2000; // ms, without Retry-After
const LONGEST_PAUSE = 30000; // ms

/** Dispatches `change` when uploads pause or continue. */
export class Uploads extends EventTarget {
  #library;
  /** @type {Entry[]} */ #waiting = [];
  /** @type {Map<Entry, AbortController>} */ #sending = new Map();
  /** @type {WeakMap<Entry, string>} */ #idempotencyKeys = new WeakMap();
  #parallel = PARALLEL;
  #pause = FIRST_PAUSE;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #stopped = false;
  /** @type {Problem?} what all uploads wait for */ pausedBy = null;

  /** @param {import("./library.js").Library} library */
  constructor(library) {
    super();
    this.#library = library;
  }

  /** Number of pictures that are not uploaded yet. */
  get pending() {
    return this.#waiting.length + this.#sending.size;
  }

  /** @param {File[]} files */
  add(files) {
    const entries = this.#library.addFiles(files);
    this.#waiting.push(...entries);
    this.#sendNext();
    return entries;
  }

  /**
   * Send the file of an entry without a result again.
   * @param {Entry} entry
   */
  retry(entry) {
    if (entry.id !== null) this.#idempotencyKeys.delete(entry); // a new detection, not the answer of the old
    const former = { problem: null, record: null, id: null, review: undefined, history: null };
    this.#library.change(entry, { phase: "waiting", sent: 0, ...former });
    this.#waiting.push(entry);
    this.resume();
  }

  /** @param {Entry} entry that waits or is being sent */
  cancel(entry) {
    this.#sending.get(entry)?.abort();
    const place = this.#waiting.indexOf(entry);
    if (place >= 0) this.#waiting.splice(place, 1);
    this.#library.change(entry, { phase: "cancelled", trouble: null });
    this.#settle();
  }

  /** Cancel everything that is not uploaded yet. */
  cancelAll() {
    for (const entry of [...this.#waiting, ...this.#sending.keys()]) this.cancel(entry);
  }

  /** Retry now. */
  resume() {
    clearTimeout(this.#timer);
    this.#stopped = false;
    this.#sendNext();
  }

  #sendNext() {
    if (this.#stopped) return;
    while (this.#sending.size < this.#parallel) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#send(next);
    }
  }

  /** @param {Entry} entry */
  async #send(entry) {
    const closing = new AbortController();
    const { signal } = closing;
    const idempotencyKey = this.#idempotencyKeys.get(entry) ?? randomName();
    this.#idempotencyKeys.set(entry, idempotencyKey);
    this.#sending.set(entry, closing);
    this.#library.change(entry, { phase: "sending", sent: 0, trouble: null });
    try {
      const answer = await submit(/** @type {File} */ (entry.file), {
        idempotencyKey,
        signal,
        onProgress: (sent) => signal.aborted || this.#library.change(entry, { sent }),
      });
      if (signal.aborted) await deleteDetection(answer.record.id);
      else this.#accepted(entry, answer);
    } catch (error) {
      if (!signal.aborted) {
        if (!(error instanceof Problem)) throw error;
        await this.#failed(entry, error, signal);
      }
    } finally {
      this.#sending.delete(entry);
      this.#settle();
      this.#sendNext();
    }
  }

  /**
   * @param {Entry} entry
   * @param {Accepted} answer
   */
  #accepted(entry, { record, requestId }) {
    this.#parallel = PARALLEL;
    this.#pause = FIRST_PAUSE;
    if (!this.#stopped) this.#setPaused(null);
    const fields = { id: record.id, phase: record.status, record, requestId, trouble: null };
    this.#library.change(entry, fields);
  }

  /**
   * @param {Entry} entry
   * @param {Problem} problem
   * @param {AbortSignal} signal
   */
  async #failed(entry, problem, signal) {
    // No answer although the service is up: then it is this file, not the service.
    const silent = problem.status === 0;
    const refused = silent ? await isAlive() : !problem.temporary;
    if (signal.aborted) return;
    if (refused) {
      this.#library.change(entry, { phase: "refused", problem, requestId: problem.requestId });
      return;
    }
    this.#wait(entry, silent ? unreachable() : problem);
  }

  /**
   * @param {Entry} entry
   * @param {Problem} problem
   */
  #wait(entry, problem) {
    this.#sending.delete(entry);
    this.#library.change(entry, { phase: "waiting", sent: 0, trouble: problem });
    this.#waiting.unshift(entry);
    this.#parallel = 1; // send one to see whether the service accepts pictures again
    this.#stopped = true;
    this.#setPaused(problem);
    clearTimeout(this.#timer);
    if (problem.wantsKey) return; // until there is a key
    const pause = problem.retryAfter === null ? this.#pause : problem.retryAfter * 1000;
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    this.#timer = setTimeout(() => this.resume(), pause);
  }

  #settle() {
    if (this.pending > 0) return;
    clearTimeout(this.#timer);
    this.#stopped = false;
    this.#setPaused(null);
  }

  /** @param {Problem?} problem */
  #setPaused(problem) {
    if (this.pausedBy === problem) return;
    this.pausedBy = problem;
    this.dispatchEvent(new Event("change"));
  }
}

/** 128 random bits; `crypto.randomUUID` exists in secure contexts only. */
function randomName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
