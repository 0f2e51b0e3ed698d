/** The panel beside the open picture: decision, note, history. */

/** @import { Decisions } from "./decisions.js" */
/** @import { Entry } from "./library.js" */
/** @import { Opinion, Review } from "./reviews.js" */

import { OPINIONS } from "./decisions.js";
import { byId, element, say } from "./dom.js";
import { keysOf } from "./keyboard.js";
import { date } from "./words.js";

const LONGEST_NOTE = 2000; // characters
const LONGEST_NAME = 100; // characters

/**
 * @typedef {object} Actions
 * @property {(decision: Opinion) => void} decide
 * @property {() => void} undo
 * @property {() => void} renamed the display name has changed
 */

/** Shows the decision about one entry. */
export class DecisionPanel {
  #decisions;
  /** @type {Entry?} */ #entry = null;
  /** @type {WeakMap<Entry, string>} notes that are not sent */ #drafts = new WeakMap();
  /** @type {import("./library.js").Unsaved?} the conflict that is shown */ #conflict = null;
  /** @type {Map<Opinion, HTMLButtonElement>} */ #buttons = new Map();
  #root = byId("decide");
  #undo = element("button", { type: "button", className: "secondary small" }, "Undo");
  #state = element("p", { className: "fine", id: "decision-state" });
  #alert = element("div", { className: "note", hidden: true });
  #more = element("details", {}, element("summary", {}, "Note, history"));
  #note = element("textarea", { id: "decision-note", rows: 2, maxLength: LONGEST_NOTE });
  #name = element("input", { id: "reviewer", maxLength: LONGEST_NAME, autocomplete: "name" });
  #history = element("ol", { className: "history" });

  /**
   * @param {Decisions} decisions
   * @param {Actions} actions
   */
  constructor(decisions, { decide, undo, renamed }) {
    this.#decisions = decisions;
    this.#alert.role = "alert";
    for (const opinion of /** @type {Opinion[]} */ (Object.keys(OPINIONS))) {
      const button = element("button", { type: "button", className: "secondary small" });
      button.addEventListener("click", () => decide(opinion));
      this.#buttons.set(opinion, button);
    }
    this.#undo.addEventListener("click", undo);
    this.#note.addEventListener("input", () => {
      if (this.#entry !== null) this.#drafts.set(this.#entry, this.#note.value);
      this.#fillState();
    });
    this.#name.value = decisions.reviewer;
    this.#name.addEventListener("change", () => {
      decisions.reviewer = this.#name.value;
      renamed();
    });
    this.#more.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !(event.target instanceof HTMLElement)) return;
      event.preventDefault(); // it closes the picture elsewhere
      event.target.blur();
    });
    const opinions = element("div", { className: "opinions", role: "group" }, ...this.#buttons.values(), this.#undo);
    opinions.ariaLabel = "Decide";
    opinions.addEventListener("keydown", (event) => {
      if (event.repeat && event.key === "Enter") event.preventDefault(); // it would decide about the next ones
    });
    this.#more.append(
      element("label", { htmlFor: "decision-note" }, "Note, sent with the decision"),
      this.#note,
      element("label", { htmlFor: "reviewer" }, "Your name, beside the key’s (optional)"),
      this.#name,
      this.#history,
    );
    this.#root.replaceChildren(opinions, this.#state, this.#more, this.#alert);
    document.addEventListener("keyschange", () => this.nameKeys());
  }

  /** Keys of the decisions; set when the shortcuts exist. @type {Map<Opinion, import("./keyboard.js").Shortcut>} */
  shortcuts = new Map();

  /** Write the keys of the decisions onto their buttons. */
  nameKeys() {
    for (const [opinion, button] of this.#buttons) {
      const shortcut = this.shortcuts.get(opinion);
      const keys = shortcut === undefined ? [] : keysOf(shortcut).map((key) => element("kbd", {}, key.toUpperCase()));
      for (const key of keys) key.ariaHidden = "true";
      button.replaceChildren(OPINIONS[opinion], ...keys);
    }
  }

  /** The note for the open entry, as it is typed. */
  get note() {
    return this.#note.value;
  }

  /** Show the note and type into it. */
  writeNote() {
    if (this.#root.hidden) return;
    this.#more.open = true;
    this.#note.focus();
  }

  /** @param {Entry?} entry */
  render(entry) {
    const changed = entry !== this.#entry;
    this.#entry = entry;
    this.#root.hidden = entry === null || !(entry.decidable || entry.history?.length);
    if (entry === null || this.#root.hidden) return;
    const typing = document.activeElement === this.#note && !changed;
    const note = this.#drafts.get(entry) ?? entry.unsaved?.note ?? entry.review?.note ?? "";
    if (!typing && this.#note.value !== note) this.#note.value = note;
    for (const [opinion, button] of this.#buttons) {
      button.ariaPressed = String(entry.decision === opinion);
      button.disabled = !entry.decidable;
    }
    this.#undo.hidden = entry.decision === null;
    this.#fillState();
    this.#fillConflict(entry);
    this.#history.replaceChildren(...(entry.history ?? []).map(historyItem));
  }

  /** Forget the draft about an entry, which is sent now. @param {Entry} entry */
  sent(entry) {
    this.#drafts.delete(entry);
  }

  #fillState() {
    const entry = this.#entry;
    if (entry === null) return;
    const typed = this.#drafts.has(entry) && this.note.trim() !== (entry.review?.note ?? "");
    say(this.#state, [describe(entry, this.#decisions.problem !== null), typed ? "The note is sent when you decide." : ""].join(" ").trim());
  }

  /** @param {Entry} entry */
  #fillConflict(entry) {
    const { unsaved, review } = entry;
    const conflict = unsaved?.conflict ? unsaved : null;
    if (this.#conflict === conflict) return;
    this.#conflict = conflict;
    this.#alert.hidden = conflict === null;
    if (conflict === null) return;
    const theirs = review ? `${who(review)} decided meanwhile: ${sentence(review)}` : "The decision was withdrawn meanwhile.";
    const mine = conflict.decision === "withdrawn" ? "Your withdrawal" : `Your decision, ${OPINIONS[conflict.decision]},`;
    const keep = element("button", { type: "button", className: "small" }, "Keep theirs");
    const insist = element("button", { type: "button", className: "secondary small" }, "Use mine");
    keep.addEventListener("click", () => this.#decisions.resolve(entry, false));
    insist.addEventListener("click", () => this.#decisions.resolve(entry, true));
    this.#alert.replaceChildren(
      element("p", { dir: "auto" }, `${theirs} ${mine} is not saved.`),
      element("div", { className: "actions" }, keep, insist),
    );
  }
}

/**
 * What is decided, by whom, and whether it is saved.
 * @param {Entry} entry
 * @param {boolean} unknown whether decisions could not be loaded
 */
function describe({ unsaved, review, holder, mine }, unknown) {
  if (unsaved !== null && !unsaved.conflict) {
    return unsaved.decision === "withdrawn" ? "Withdrawing …" : `${OPINIONS[unsaved.decision]}: saving …`;
  }
  if (review) return `${sentence(review)} ${who(review)}, ${date(review.created_at)}.`;
  if (holder !== null && !mine) return `${holder.reviewer ?? holder.key} has it open.`;
  if (review === undefined) return unknown ? "Decisions cannot be loaded; trying again." : "";
  return "No decision yet.";
}

/** @param {Review} review */
export function who({ reviewer, key }) {
  if (reviewer === null) return key ?? "A person whose name was erased";
  return key === null || key === reviewer ? reviewer : `${reviewer} (${key})`;
}

/** @param {Review} review */
function sentence({ decision, note }) {
  const label = decision === "withdrawn" ? "Withdrawn" : OPINIONS[decision];
  if (!note) return `${label}.`;
  return `${label}: “${note}”${/[.!?…]$/.test(note) ? "" : "."}`;
}

/** @param {Review} review */
function historyItem(review) {
  return element("li", { dir: "auto" }, `${date(review.created_at)}, ${who(review)}: ${sentence(review)}`);
}
