/** All pictures of this page: files being uploaded, and detections of the service. */

/** @import { Detection } from "./api.js" */
/** @import { Emitter } from "./dom.js" */
/** @import { Problem } from "./problem.js" */
/** @import { Opinion, Assignment, Review } from "./reviews.js" */

/**
 * A succeeded record; a glance has no masks.
 * @typedef {Detection & {
 *   [K in "ai_probability" | "verdict" | "thresholds" | "model" | "timings"]:
 *     NonNullable<Detection[K]>
 * }} Result
 *
 * @typedef {Result & {masks: NonNullable<Detection["masks"]>}} MaskedResult
 *
 * @typedef {"waiting" | "sending" | "refused" | "cancelled" | "opening" | "gone" |
 *   Detection["status"]} Phase
 */

/**
 * Whether a result has masks.
 * @param {Result} record
 * @returns {record is MaskedResult}
 */
export function hasMasks(record) {
  return record.masks !== null;
}

/**
 * A decision, or its withdrawal, that the service has not confirmed.
 * @typedef {object} Unsaved
 * @property {Opinion | "withdrawn"} decision
 * @property {string} note
 * @property {string} reviewer display name
 * @property {number} seen version of the decision that the reviewer saw; 0: there was none
 * @property {boolean} conflict whether a colleague was faster, so that the reviewer must choose
 */

const FINAL = new Set(["succeeded", "failed", "expired", "refused", "cancelled", "gone"]);
const FOLLOWED = new Set(["opening", "queued", "processing"]);

/**
 * One picture.
 *
 * `phase` is `waiting` (in this tab), `sending`, `refused`, `cancelled`, `opening`, `gone`, or the
 * status of the record: `queued`, `processing`, `succeeded`, `failed`, `expired`.
 */
export class Entry {
  /** @type {File?} only of pictures that were added here */ file = null;
  /** @type {string?} */ id = null;
  /** @type {Phase} */ phase = "opening";
  /** @type {number} share of the upload that is sent */ sent = 0;
  /** @type {Detection?} */ record = null;
  /** @type {string?} id of the latest request */ requestId = null;
  /** @type {Problem?} why it was refused */ problem = null;
  /** @type {Problem?} why it makes no progress */ trouble = null;
  /** @type {number} when it was added, ms since the epoch */ added = 0;
  /** @type {number} when its phase changed last, ms since the epoch */ since = Date.now();

  /** @type {Review | null | undefined} current decision; undefined: not known yet */ review;
  /** @type {Review[]?} all decisions, newest first; null: not loaded */ history = null;
  /** @type {Unsaved?} */ unsaved = null;
  /** @type {Assignment?} who has it open */ holder = null;
  /** @type {boolean} whether this person has it open */ mine = false;

  /** The decision about it, saved or not. */
  get decision() {
    const decision = (this.unsaved ?? this.review)?.decision ?? "withdrawn";
    return decision === "withdrawn" ? null : decision;
  }

  /** Whether a decision about it is possible. */
  get decidable() {
    return this.id !== null && (this.phase === "succeeded" || this.phase === "failed");
  }

  /** Whether it is worth a decision and has none. */
  get undecided() {
    return this.phase === "succeeded" && this.decision === null;
  }

  /** The record, if it has a result. */
  get result() {
    const judged = this.phase === "succeeded" && !this.record?.not_judged;
    return judged ? /** @type {Result} */ (this.record) : null;
  }

  /** Whether the picture was examined, but gets no score. */
  get unjudged() {
    return this.phase === "succeeded" && this.result === null;
  }

  /** Whether the entry will not change any more. */
  get finished() {
    return FINAL.has(this.phase);
  }

  /** Whether there is nothing of it but this row: it was not sent, or the service has it no more. */
  get onlyHere() {
    return this.finished && (this.id === null || this.phase === "gone");
  }

  /** Whether the service has the detection and it is unfinished. */
  get followed() {
    return FOLLOWED.has(this.phase);
  }

  /** The name to show. */
  get name() {
    const unnamed = this.id === null ? "Picture" : `Detection ${this.id.slice(0, 8)}`;
    return this.file?.name || this.record?.ref_id || unnamed;
  }
}

/** Dispatches `change` (detail: the entry) for each entry that is new, changed or removed. */
export class Library extends /** @type {new () => Emitter<Entry>} */ (EventTarget) {
  /** @type {Set<Entry>} */ #entries = new Set();
  /** @type {Map<string, Entry>} */ #byId = new Map();
  #newest = 0;

  /** @returns {Iterable<Entry>} in no order */
  get entries() {
    return this.#entries;
  }

  /** @param {string} id */
  find(id) {
    return this.#byId.get(id) ?? null;
  }

  /** @param {Entry} entry */
  has(entry) {
    return this.#entries.has(entry);
  }

  /**
   * Add files that were chosen together; the first of them counts as the newest.
   * @param {File[]} files
   */
  addFiles(files) {
    const first = Math.max(Date.now(), this.#newest + 1) + files.length;
    return files.map((file, place) => this.#add({ file, phase: "waiting", added: first - place }));
  }

  /**
   * The entry of a detection that is known only by its id.
   * @param {string} id
   */
  open(id) {
    return this.find(id) ?? this.#add({ id, phase: "opening", added: Date.now() });
  }

  /**
   * Add or update an entry from a record of the service.
   * @param {Detection} record
   * @param {string?} requestId
   * @returns {boolean} whether it is new here
   */
  take(record, requestId = null) {
    const known = this.find(record.id);
    /** @type {Partial<Entry>} */
    const fields = { record, requestId, phase: record.status, trouble: null, problem: null };
    // Files of this tab are sent in parallel, but keep the order in which they were chosen.
    if (!known?.file) fields.added = time(record.created_at);
    if (known === null) this.#add({ id: record.id, ...fields });
    else if (!known.finished || known.phase !== record.status) this.change(known, fields);
    return known === null;
  }

  /**
   * @param {Entry} entry
   * @param {Partial<Entry>} fields
   */
  change(entry, fields) {
    if (!this.#entries.has(entry)) return; // removed during a request for it
    if ("id" in fields && entry.id !== null) this.#byId.delete(entry.id);
    if (fields.phase !== undefined && fields.phase !== entry.phase) entry.since = Date.now();
    Object.assign(entry, fields);
    if (entry.id !== null) {
      const other = this.find(entry.id);
      if (other !== entry && other !== null) this.remove(other); // listed before the answer to its upload
      this.#byId.set(entry.id, entry);
    }
    this.#notify(entry);
  }

  /** @param {Entry} entry */
  remove(entry) {
    this.#entries.delete(entry);
    if (entry.id !== null) this.#byId.delete(entry.id);
    this.#notify(entry);
  }

  /** @param {Partial<Entry>} fields */
  #add(fields) {
    const entry = Object.assign(new Entry(), fields);
    this.#newest = Math.max(this.#newest, entry.added);
    this.#entries.add(entry);
    if (entry.id !== null) this.#byId.set(entry.id, entry);
    this.#notify(entry);
    return entry;
  }

  /** @param {Entry} entry */
  #notify(entry) {
    this.dispatchEvent(new CustomEvent("change", { detail: entry }));
  }
}

/**
 * ms since the epoch, with the microseconds that Date.parse drops: a batch may arrive within one ms.
 * @param {string} iso
 */
export function time(iso) {
  return Date.parse(iso) + Number(`0.${/\.\d{3}(\d+)/.exec(iso)?.[1] ?? 0}`);
}
