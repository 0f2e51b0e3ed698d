/** The queue of the team: what this person has open, and what comes next. */

/** @import { Decisions } from "./decisions.js" */
/** @import { Entry, Library } from "./library.js" */

import { Problem } from "./problem.js";
import { deleteAssignment, putAssignment, takeNext } from "./reviews.js";

const SETTLED = 1000; // ms after which a picture counts as open, so that leafing costs nothing
const SOONEST = 2000; // ms until an assignment is renewed; the shortest ones last 10 s
const LATEST = 60000; // ms

/** Keeps the open picture assigned to this person while it is undecided. */
export class Holding {
  #library;
  #decisions;
  /** @type {Entry?} */ #entry = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /**
   * @param {Library} library
   * @param {Decisions} decisions
   */
  constructor(library, decisions) {
    this.#library = library;
    this.#decisions = decisions;
    window.addEventListener("pagehide", () => this.open(null));
  }

  /**
   * Open an entry, and close the one before it.
   * @param {Entry?} entry
   */
  open(entry) {
    if (entry === this.#entry) return;
    const before = this.#entry;
    this.#entry = entry;
    clearTimeout(this.#timer);
    if (before !== null) this.release(before);
    if (entry !== null) this.#timer = setTimeout(() => this.#take(entry), SETTLED);
  }

  /** Give the open picture back under the name that took it, and take it under the new one. */
  async renew() {
    const entry = this.#entry;
    clearTimeout(this.#timer);
    if (entry === null) return;
    await this.release(entry);
    if (entry === this.#entry) this.#take(entry);
  }

  /** @param {Entry} entry */
  async #take(entry) {
    let pause = LATEST;
    if (entry.id !== null && entry.undecided) {
      try {
        const { assignment, lifetime } = await putAssignment(entry.id, this.#decisions.reviewer);
        pause = lifetime / 2;
        this.#library.change(entry, { holder: assignment, mine: true });
        if (entry !== this.#entry) this.release(entry); // closed meanwhile
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        if (problem.code === "assignment_taken") await this.#decisions.load(entry);
        else pause = (problem.retryAfter ?? 0) * 1000;
      }
    }
    if (entry !== this.#entry) return;
    this.#timer = setTimeout(() => this.#take(entry), Math.min(Math.max(pause, SOONEST), LATEST));
  }

  /**
   * Give a picture back under the name that took it.
   * @param {Entry} entry
   */
  async release(entry) {
    const { holder } = entry;
    if (entry.id === null || !entry.mine || !this.#library.has(entry)) return;
    this.#library.change(entry, { holder: null, mine: false });
    if (!entry.undecided) return; // the decision ended it
    try {
      await deleteAssignment(entry.id, holder?.reviewer ?? "");
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem; // it ends by itself
    }
  }
}

/**
 * Assign the next picture of the queue to this person.
 * @param {Library} library
 * @param {string} reviewer display name
 * @param {string?} after skip this detection and older ones
 * @returns {Promise<Entry?>} null if nothing is left
 * @throws {Problem}
 */
export async function nextInQueue(library, reviewer, after) {
  const { detection, assignment } = await takeNext(reviewer, after);
  if (detection === null) return null;
  library.take(detection);
  const entry = library.find(detection.id);
  if (entry !== null) library.change(entry, { holder: assignment, mine: true });
  return entry;
}
