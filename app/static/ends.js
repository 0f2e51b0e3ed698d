/**
 * The ends of the caller's detections, as the service sends them (Server-Sent Events). `EventSource`
 * cannot send the key.
 */

import { ask } from "./api.js";
import { Problem, unreachable } from "./problem.js";

const LOCK = "gamma-ends"; // one stream for each browser: HTTP/1.1 has six connections to a host
const RECONNECT = 1000; // ms
const RETRY = 30000; // ms after a stream that failed
const LONGEST = 75000; // ms; the service closes a stream after 60 s

/** One stream, which is opened again when the service closes it. */
export class Ends {
  #hear;
  #position = ""; // of the last event
  #notBefore = 0; // ms since the epoch
  /** @type {AbortController?} */ #closing = null;
  /** Whether ends are heard now. */
  listening = false;

  /** @param {(id: string?) => void} hear called with the id of a detection that ended; null: with the first one that is still to come */
  constructor(hear) {
    this.#hear = hear;
  }

  /** Open the stream if it is closed, unless another tab has one or it failed just now. */
  async open() {
    if (this.#closing !== null || Date.now() < this.#notBefore) return;
    const closing = new AbortController();
    this.#closing = closing;
    try {
      const follow = () => this.#follow(closing.signal);
      // Locks exist in secure contexts only.
      await (navigator.locks?.request(LOCK, { ifAvailable: true }, (lock) => lock && follow()) ?? follow());
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#notBefore = Date.now() + Math.max(RETRY, (problem.retryAfter ?? 0) * 1000);
    }
    if (this.#closing === closing) this.close();
  }

  close() {
    this.#closing?.abort();
    this.#closing = null;
    this.listening = false;
  }

  /** @param {AbortSignal} signal */
  async #follow(signal) {
    while (!signal.aborted) {
      try {
        await this.#read(signal);
      } catch (problem) {
        if (!signal.aborted) throw problem;
      }
      await new Promise((resolve) => setTimeout(resolve, RECONNECT));
    }
  }

  /** @param {AbortSignal} signal */
  async #read(signal) {
    const response = await ask("v1/events", {
      headers: { "Last-Event-ID": this.#position },
      signal: AbortSignal.any([signal, AbortSignal.timeout(LONGEST)]),
    });
    const pieces = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const piece = await pieces?.read().catch(() => {
        throw unreachable();
      });
      if (signal.aborted || piece === undefined || piece.done) return;
      const messages = (rest + piece.value).split("\n\n");
      rest = messages.pop() ?? "";
      for (const message of messages) this.#take(message);
    }
  }

  /** @param {string} message */
  #take(message) {
    const fields = new Map(message.split("\n").map((line) => /** @type {[string, string]} */ (line.split(/: (.*)/))));
    const data = fields.get("data");
    if (!this.listening) {
      // Not before something has arrived: a proxy may hold the stream back.
      this.listening = true;
      if (this.#position === "") this.#hear(null);
    }
    this.#position = fields.get("id") ?? this.#position;
    if (data !== undefined) this.#hear(JSON.parse(data).id);
  }
}
