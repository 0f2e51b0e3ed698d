/** A failed request. */

import { readable } from "./words.js";

const TEMPORARY = new Set([0, 429, 502, 503, 504]);

/** All fields can be shown to the user. */
export class Problem extends Error {
  /**
   * @param {object} facts
   * @param {string} facts.title
   * @param {string} facts.detail
   * @param {string} facts.code stable code of the service, or one of `unreachable`, `unreadable`
   * @param {number} facts.status HTTP status; 0 if there was no answer
   * @param {string?} [facts.requestId]
   * @param {number?} [facts.retryAfter] seconds after which the service wants to be asked again
   */
  constructor({ title, detail, code, status, requestId = null, retryAfter = null }) {
    super(detail);
    this.title = title;
    this.detail = detail;
    this.code = code;
    this.status = status;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }

  /** Whether the service needs a key, or another one. */
  get wantsKey() {
    return this.status === 401 || this.code === "key_invalid";
  }

  /** Whether the same request may succeed later. */
  get temporary() {
    return this.wantsKey || TEMPORARY.has(this.status) || (this.status === 409 && this.retryAfter !== null);
  }
}

/**
 * @param {number} status of an answer that is no success
 * @param {(name: string) => string?} header
 * @param {Partial<import("gamma-api").Problem>?} body problem document, if there was one
 */
export function problemOf(status, header, body) {
  return new Problem({
    title: body?.title ?? `The service answered with HTTP status ${status}`,
    detail: readable(body?.detail ?? "No reason was given."),
    code: body?.code ?? `http_${status}`,
    status,
    requestId: body?.request_id ?? header("X-Request-ID"),
    retryAfter: Number.parseInt(header("Retry-After") ?? "", 10) || null,
  });
}

/** @param {string} [detail] */
export function unreachable(detail = "No answer: the service or the network is down.") {
  const title = "The service cannot be reached";
  return new Problem({ title, detail, code: "unreachable", status: 0 });
}

/**
 * @param {number} status
 * @param {(name: string) => string?} header
 */
export function unreadable(status, header) {
  return new Problem({
    title: "Invalid answer",
    detail: "The answer did not come from this service.",
    code: "unreadable",
    status,
    requestId: header("X-Request-ID"),
  });
}
