/** Decisions about pictures: loads those of the team, and sends those of this person until they are saved. */

/** @import { Emitter } from "./dom.js" */
/** @import { Entry, Library, Unsaved } from "./library.js" */
/** @import { Opinion, Review } from "./reviews.js" */

import { PAGE } from "./api.js";
import { recall, remember } from "./preferences.js";
import { Problem } from "./problem.js";
import * as reviews from "./reviews.js";

const SOON = 50; // ms, to ask for many at once
const REFRESH = 10000; // ms between two looks for decisions of colleagues
const OVERLAP = 60000; // ms; entries get their time shortly before they are stored
const FIRST_RETRY = 1000; // ms
const SLOWEST_RETRY = 30000; // ms
const STORED = "gamma-unsaved"; // in this tab: what is not saved survives a reload
const NAME = "reviewer";

/** Labels of decisions. */
export const OPINIONS = /** @type {Record<Opinion, string>} */ ({
  genuine: "Genuine",
  ai: "AI-generated",
  manipulated: "Manipulated",
  unsure: "Unsure",
});

/**
 * Dispatches `change` when something is saved, or cannot be, and `refused` (detail: entry and
 * problem) when the service will not take a decision.
 */
export class Decisions extends /** @type {new () => Emitter<{entry: Entry, problem: Problem}>} */ (EventTarget) {
  #library;
  /** @type {Map<string, Entry>} entries with unsaved decisions, by id */ #unsaved = new Map();
  /** @type {Set<string>} ids of decisions that are being sent */ #sending = new Set();
  /** @type {Map<string, {version: number, tag: string?}>} newest state known, by id */ #seen = new Map();
  /** @type {string?} time of the newest review known */ #since = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #loading;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retrying;
  #delay = FIRST_RETRY;
  /** @type {Problem?} why decisions are not saved */ trouble = null;
  /** @type {Problem?} why decisions of the team are not known */ problem = null;

  /** @param {Library} library */
  constructor(library) {
    super();
    this.#library = library;
    library.addEventListener("change", ({ detail: entry }) => this.#notice(entry));
    for (const entry of library.entries) this.#notice(entry);
    this.#restore();
    setInterval(() => document.hidden || this.refresh(), REFRESH);
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    window.addEventListener("online", () => this.retry());
    window.addEventListener("beforeunload", (event) => {
      if (this.pending > 0) event.preventDefault();
    });
  }

  /** The display name of this person; may be empty. */
  get reviewer() {
    return recall(NAME) ?? "";
  }

  set reviewer(name) {
    remember(NAME, name.trim() || null);
  }

  /** How many decisions are on their way or wait for the network. */
  get pending() {
    return [...this.#unsaved.values()].filter(({ unsaved }) => !unsaved?.conflict).length;
  }

  /** Entries about which a colleague was faster. */
  get conflicts() {
    return [...this.#unsaved.values()].filter(({ unsaved }) => unsaved?.conflict);
  }

  /**
   * Decide about an entry; `withdrawn` takes the decision back.
   * @param {Entry} entry
   * @param {Opinion | "withdrawn"} decision
   * @param {string} [note]
   * @returns {Promise<void>} settled after the first attempt to save it
   */
  async decide(entry, decision, note = "") {
    if (entry.id === null) return;
    const { reviewer } = this;
    const seen = entry.unsaved?.seen ?? this.#version(entry);
    this.#put(entry, { decision, note: note.trim(), reviewer, seen, conflict: false });
    await this.#send(entry.id);
  }

  /**
   * End a conflict.
   * @param {Entry} entry
   * @param {boolean} insist whether this person's decision replaces the colleague's
   */
  resolve(entry, insist) {
    const { unsaved, id } = entry;
    if (unsaved === null || id === null) return;
    if (!insist) this.#drop(id);
    else {
      this.#put(entry, { ...unsaved, seen: this.#version(entry), conflict: false });
      this.#send(id);
    }
  }

  /** Send again what is not saved. */
  async retry() {
    clearTimeout(this.#retrying);
    this.#retrying = undefined;
    for (const id of [...this.#unsaved.keys()]) {
      await this.#send(id);
      if (this.#retrying !== undefined) break; // it failed; all are sent again later
    }
  }

  /** Drop what belongs to the former key. */
  forget() {
    for (const id of [...this.#unsaved.keys()]) this.#drop(id);
    this.#seen.clear();
    this.#since = null;
  }

  /**
   * Load the history of an entry.
   * @param {Entry} entry
   */
  async load(entry) {
    if (entry.id === null) return;
    try {
      const { state, tag } = await reviews.getState(entry.id);
      this.#know(entry, state.review, state.history, tag);
      this.#library.change(entry, { holder: state.assignment });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
    }
  }

  /** Load decisions of colleagues, and what this person has open. */
  async refresh() {
    try {
      const since = this.#since && new Date(Date.parse(this.#since) - OVERLAP).toISOString();
      const newest = new Map();
      for (const review of await reviews.getReviewsSince(since)) {
        this.#since = this.#since === null || review.created_at > this.#since ? review.created_at : this.#since;
        if (!newest.has(review.detection_id)) newest.set(review.detection_id, review);
      }
      for (const [id, review] of newest) this.#hear(id, review);
      await this.#refreshHolders();
      this.#settle(null);
    } catch (problem) {
      this.#settle(problem);
    }
  }

  /** Load who has what open. */
  async #refreshHolders() {
    const { mine, all } = await reviews.getAssigned(this.reviewer);
    const own = new Set(mine.map(({ detection_id: id }) => id));
    const holders = new Map(all.map((assignment) => [assignment.detection_id, assignment]));
    for (const id of own) this.#library.open(id);
    for (const entry of this.#library.entries) {
      if (entry.id === null) continue;
      const held = { mine: own.has(entry.id), holder: holders.get(entry.id) ?? null };
      const isSame = held.mine === entry.mine && name(held.holder) === name(entry.holder);
      if (!isSame) this.#library.change(entry, held);
    }
  }

  /** @param {Entry} entry */
  #notice(entry) {
    for (const [id, one] of this.#unsaved) if (one.id !== id) this.#drop(id); // its file is sent again
    if (entry.decidable && entry.review === undefined) this.#loading ??= setTimeout(() => this.#load(), SOON);
  }

  /** Load the decisions about new entries. */
  async #load() {
    const entries = [...this.#library.entries].filter((entry) => entry.decidable && entry.review === undefined);
    try {
      for (let start = 0; start < entries.length; start += PAGE) {
        const ids = entries.slice(start, start + PAGE).flatMap(({ id }) => id ?? []);
        const found = await reviews.getReviews(ids);
        for (const review of found.reviews) this.#hear(review.detection_id, review);
        for (const id of ids) {
          const entry = this.#library.find(id);
          const holder = found.assignments.find(({ detection_id: held }) => held === id) ?? null;
          if (entry !== null) this.#library.change(entry, { holder, review: entry.review ?? null });
        }
      }
      if (entries.length > 0) await this.refresh();
      this.#settle(null);
    } catch (problem) {
      this.#settle(problem);
    } finally {
      this.#loading = undefined;
      const again = this.problem === null ? SOON : SLOWEST_RETRY;
      const left = [...this.#library.entries].some((entry) => entry.decidable && entry.review === undefined);
      if (left) this.#loading = setTimeout(() => this.#load(), again);
    }
  }

  /** @param {unknown} problem null: none */
  #settle(problem) {
    if (problem !== null && !(problem instanceof Problem)) throw problem;
    const before = this.problem;
    this.problem = problem;
    if (before !== problem) this.dispatchEvent(new CustomEvent("change"));
  }

  /**
   * Take the newest review of a detection from a list.
   * @param {string} id
   * @param {Review} review
   */
  #hear(id, review) {
    const entry = this.#library.find(id);
    if (entry === null) return;
    if (entry.review !== undefined && review.version <= (this.#seen.get(id)?.version ?? 0)) return;
    this.#know(entry, review.decision === "withdrawn" ? null : review, null, null, review.version);
  }

  /**
   * @param {Entry} entry
   * @param {Review?} review
   * @param {Review[]?} history null: not known
   * @param {string?} tag
   * @param {number} [version] of the newest entry of the history
   */
  #know(entry, review, history, tag, version = history?.[0]?.version ?? 0) {
    const { id } = entry;
    if (id === null || version < (this.#seen.get(id)?.version ?? 0)) return; // an answer that was overtaken
    this.#seen.set(id, { version, tag });
    this.#library.change(entry, { review, history });
  }

  /** @param {Entry} entry */
  #version({ id, review }) {
    return (id === null ? undefined : this.#seen.get(id)?.version) ?? review?.version ?? 0;
  }

  /**
   * @param {Entry} entry
   * @param {Unsaved} unsaved
   */
  #put(entry, unsaved) {
    this.#unsaved.set(/** @type {string} */ (entry.id), entry);
    this.#library.change(entry, { unsaved });
    this.#store();
    this.dispatchEvent(new CustomEvent("change"));
  }

  /** @param {string} id */
  #drop(id) {
    const entry = this.#unsaved.get(id);
    this.#unsaved.delete(id);
    if (entry !== undefined) this.#library.change(entry, { unsaved: null });
    this.#store();
  }

  /** @param {string} id */
  async #send(id) {
    const entry = this.#unsaved.get(id);
    const unsaved = entry?.unsaved;
    if (!entry || !unsaved || unsaved.conflict || this.#sending.has(id)) return;
    this.#sending.add(id);
    try {
      await this.#save(id, entry, unsaved);
      this.trouble = null;
      this.#delay = FIRST_RETRY;
      if (entry.unsaved === unsaved) this.#drop(id);
      // Decided again meanwhile, in sight of the first decision.
      else if (entry.unsaved !== null) this.#put(entry, { ...entry.unsaved, seen: this.#version(entry) });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.code === "review_conflict") await this.#collide(id, entry);
      else if (problem.temporary) this.#postpone(problem);
      else this.#refuse(id, entry, problem);
    } finally {
      this.#sending.delete(id);
    }
    this.dispatchEvent(new CustomEvent("change"));
    if (this.trouble === null) this.#send(id);
  }

  /**
   * @param {string} id
   * @param {Entry} entry
   * @param {Unsaved} unsaved
   */
  async #save(id, entry, { decision, note, reviewer, seen }) {
    let known = this.#seen.get(id);
    if (seen > 0 && (known?.version !== seen || known.tag === null)) {
      await this.#reload(id, entry);
      known = this.#seen.get(id);
    }
    // An outdated version has no tag: the service then refuses if there is any decision.
    const tag = known?.version === seen ? known.tag : null;
    if (decision === "withdrawn") {
      const answer = await reviews.deleteReview(id, reviewer, tag);
      this.#know(entry, answer.state.review, answer.state.history, answer.tag);
      return;
    }
    const { review, tag: newTag } = await reviews.postReview(id, { decision, note, reviewer }, tag);
    const before = review.version === 1 ? [] : entry.history;
    this.#know(entry, review, before && [review, ...before], newTag, review.version);
  }

  /**
   * @param {string} id
   * @param {Entry} entry
   */
  async #reload(id, entry) {
    const { state, tag } = await reviews.getState(id);
    this.#know(entry, state.review, state.history, tag);
  }

  /**
   * A colleague was faster: the reviewer must choose, unless both decided the same.
   * @param {string} id
   * @param {Entry} entry
   */
  async #collide(id, entry) {
    try {
      await this.#reload(id, entry);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#postpone(problem);
      return;
    }
    const { unsaved, review } = entry;
    if (unsaved === null) return;
    const theirs = review?.decision ?? "withdrawn";
    if (theirs === unsaved.decision && unsaved.note === "") this.#drop(id);
    else this.#put(entry, { ...unsaved, conflict: true });
  }

  /** @param {Problem} problem */
  #postpone(problem) {
    this.trouble = problem;
    this.#retrying ??= setTimeout(() => this.retry(), Math.max(this.#delay, (problem.retryAfter ?? 0) * 1000));
    this.#delay = Math.min(2 * this.#delay, SLOWEST_RETRY);
  }

  /**
   * @param {string} id
   * @param {Entry} entry
   * @param {Problem} problem
   */
  #refuse(id, entry, problem) {
    this.#drop(id);
    this.dispatchEvent(new CustomEvent("refused", { detail: { entry, problem } }));
  }

  #store() {
    const unsaved = [...this.#unsaved].map(([id, entry]) => [id, entry.unsaved]);
    if (unsaved.length === 0) sessionStorage.removeItem(STORED);
    else sessionStorage.setItem(STORED, JSON.stringify(unsaved));
  }

  #restore() {
    /** @type {[string, Unsaved][]} */
    const unsaved = JSON.parse(sessionStorage.getItem(STORED) ?? "[]");
    for (const [id, one] of unsaved) this.#put(this.#library.open(id), one);
    this.retry();
  }
}

/**
 * Who has a detection open.
 * @param {Entry["holder"]} assignment
 */
function name(assignment) {
  return assignment && `${assignment.key} ${assignment.reviewer}`;
}
