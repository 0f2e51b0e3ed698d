/** One picture on its way through the service, or one detection opened again. */

import { Problem, getDetection, submit } from "./api.js";

const FIRST_POLL = 250; // ms
const SLOWEST_POLL = 2000; // ms
const POLL_GROWTH = 1.4;
const FINAL = new Set(["succeeded", "failed", "expired"]);

/**
 * Dispatches `change` whenever one of its fields has changed, until it is closed.
 *
 * `phase` is `sending`, `opening`, `refused`, or the status of the record (`queued`, `processing`,
 * `succeeded`, `failed`, `expired`).
 */
export class Task extends EventTarget {
  /** @type {File?} */ file = null;
  /** @type {string?} */ id = null;
  /** @type {string} */ phase;
  /** @type {number} share of the upload that is sent */ sent = 0;
  /** @type {object?} */ record = null;
  /** @type {string?} id of the latest request */ requestId = null;
  /** @type {Problem?} why it was refused */ problem = null;
  /** @type {Problem?} why it makes no progress at present */ trouble = null;
  #closing = new AbortController();

  /**
   * Send a picture and follow its detection.
   * @param {File} file
   */
  static submit(file) {
    const task = new Task();
    task.file = file;
    task.phase = "sending";
    task.#run(async (signal) => {
      const onProgress = (sent) => task.#change({ sent });
      task.#take(await submit(file, { signal, onProgress }));
      await task.#follow(signal);
    });
    return task;
  }

  /**
   * Follow a detection that exists already.
   * @param {string} id
   */
  static open(id) {
    const task = new Task();
    task.id = id;
    task.phase = "opening";
    task.#run((signal) => task.#follow(signal));
    return task;
  }

  /** Whether nothing more will change. */
  get finished() {
    return this.phase === "refused" || FINAL.has(this.phase);
  }

  /** Stop all requests; no event follows. */
  close() {
    this.#closing.abort();
  }

  async #run(steps) {
    const { signal } = this.#closing;
    try {
      await steps(signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.#change({ phase: "refused", problem: error, requestId: error.requestId });
    }
  }

  async #follow(signal) {
    let delay = FIRST_POLL;
    while (!this.finished) {
      if (this.record !== null || this.trouble !== null) await pause(delay, signal);
      try {
        this.#take(await getDetection(this.id, signal));
      } catch (error) {
        if (!error.temporary) throw error;
        this.#change({ trouble: error });
      }
      const asked = (this.trouble?.retryAfter ?? 0) * 1000;
      delay = Math.max(asked, Math.min(delay * POLL_GROWTH, SLOWEST_POLL));
    }
  }

  #take({ record, requestId }) {
    this.#change({ record, requestId, id: record.id, phase: record.status, trouble: null });
  }

  #change(fields) {
    if (this.#closing.signal.aborted) return;
    Object.assign(this, fields);
    this.dispatchEvent(new Event("change"));
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}
