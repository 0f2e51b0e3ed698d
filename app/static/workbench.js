/**
 * The moderators' tools: decisions, queue, selection and export. Loaded when there is a picture to
 * decide about.
 */

/** @import { Format } from "./exporting.js" */
/** @import { Entry, Library } from "./library.js" */
/** @import { List } from "./list.js" */
/** @import { Opinion } from "./reviews.js" */
/** @import { Shortcut } from "./keyboard.js" */

import { DecisionPanel } from "./decide.js";
import { Decisions, OPINIONS } from "./decisions.js";
import { announce, byId, element } from "./dom.js";
import { keyEvents } from "./key.js";
import { listen } from "./keyboard.js";
import { keyField } from "./ownkeys.js";
import { Problem } from "./problem.js";
import { Holding, nextInQueue } from "./queue.js";
import { offer } from "./saving.js";
import { Selection } from "./selection.js";
import { counted } from "./words.js";

const SETTLED = 150; // ms after which the history of an opened picture is loaded

const style = element("link", { rel: "stylesheet", href: "static/css/decide.css" });
// The tools wait for it, or they would push the picture away and back; without it they work too.
await new Promise((resolve) => {
  style.onload = style.onerror = resolve;
  document.head.append(style);
});

/**
 * @typedef {object} Page
 * @property {Library} library
 * @property {List} list
 * @property {() => Entry?} open the open entry
 * @property {(entry: Entry) => void} pick opens an entry
 */

/** @type {(label: string, act: () => void, className?: string) => HTMLButtonElement} */
function button(label, act, className = "secondary small") {
  const made = element("button", { type: "button", className }, label);
  made.addEventListener("click", act);
  return made;
}

/** Connects the tools with the page. */
export class Workbench {
  #page;
  #decisions;
  #panel;
  #holding;
  #selection;
  /** @type {Entry?} */ #shown = null;
  /** @type {Entry[]} decided here, the latest last */ #done = [];
  /** @type {{entry: Entry, problem: Problem}?} */ #refusal = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #dropped = 0; // decisions that were not saved before the key changed
  #queueing = false;
  #queue = button("Queue", () => this.#toggleQueue());
  #select = button("Select", () => this.#togglePicking());
  #selected = element("span", { className: "fine" });
  #bulk = element("span", { className: "actions" });
  #note = element("p", { className: "fine", role: "status" });
  #saving = element("span", { id: "saving", className: "fine" });

  /** @param {Page} page */
  constructor(page) {
    const { library, list } = page;
    this.#page = page;
    this.#decisions = new Decisions(library);
    this.#holding = new Holding(library, this.#decisions);
    this.#selection = new Selection(library, list);
    this.#panel = new DecisionPanel(this.#decisions, {
      decide: (opinion) => this.#decide(opinion),
      undo: () => this.#undo(),
      renamed: () => this.#holding.renew(),
    });
    this.#buildBar();
    this.#listen();
    this.#decisions.addEventListener("change", () => this.render(page.open()));
    this.#decisions.addEventListener("refused", ({ detail }) => {
      this.#refusal = detail;
      this.#renderUnsaved();
    });
    this.#selection.addEventListener("change", () => this.#renderBar());
    keyEvents.addEventListener("change", () => this.#decisions.retry());
    this.#renderBar();
  }

  /** @param {Entry?} entry */
  render(entry) {
    if (entry !== this.#shown) {
      this.#shown = entry;
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#holding.open(entry);
    }
    // Not before the service has shown it, or it may belong to somebody else.
    if (entry?.decidable) this.#timer ??= setTimeout(() => this.#decisions.load(entry), SETTLED);
    this.#panel.render(entry);
    this.#renderUnsaved();
  }

  /** Drop what belongs to the former key. */
  forget() {
    this.#dropped += this.#decisions.pending;
    this.#decisions.forget();
    this.#done = [];
    this.#renderUnsaved();
  }

  #listen() {
    const opinions = /** @type {[Opinion, string][]} */ (Object.entries(OPINIONS));
    /** @type {[Opinion, Shortcut][]} */
    const own = opinions.map(([opinion, label], place) => [
      opinion,
      { keys: [String(place + 1)], label: `Decide: ${label}`, own: opinion, act: () => this.#decide(opinion) },
    ]);
    const shortcuts = [
      ...own.map(([, shortcut]) => shortcut),
      { keys: ["u"], label: "Undo the last decision", act: () => this.#undo() },
      { keys: ["t"], label: "Write a note", act: () => this.#panel.writeNote() },
      { keys: ["d"], label: "Next undecided picture", act: () => this.#goOn(this.#page.open()) },
      { keys: ["q"], label: "Next picture of the queue", act: () => this.#next(this.#page.open()?.id ?? null) },
    ];
    listen(shortcuts, keyField);
    this.#panel.shortcuts = new Map(own);
    this.#panel.nameKeys();
  }

  /** @param {Opinion} opinion */
  async #decide(opinion) {
    const entry = this.#page.open();
    if (entry === null || !entry.decidable) return;
    const next = this.#nextUndecided(entry); // while it is still in the list
    const { note } = this.#panel;
    this.#panel.sent(entry);
    this.#done.push(entry);
    const saved = this.#decisions.decide(entry, opinion, note);
    announce(`${entry.name}: ${OPINIONS[opinion]}.`);
    if (this.#queueing) {
      await saved; // otherwise the queue hands out the same one
      if (this.#page.open() === entry) await this.#next(entry.unsaved === null ? null : entry.id);
    } else this.#open(next);
  }

  #undo() {
    const open = this.#page.open();
    const isThere = (/** @type {Entry} */ entry) => entry.decision !== null && this.#page.library.has(entry);
    const entry = open?.decision ? open : this.#done.findLast(isThere);
    if (entry === undefined) return;
    this.#done = this.#done.filter((one) => one !== entry);
    if (entry !== open) this.#page.pick(entry);
    this.#decisions.decide(entry, "withdrawn");
    announce(`The decision about ${entry.name} is withdrawn.`);
  }

  /** @param {Entry?} from */
  #goOn(from) {
    this.#open(this.#nextUndecided(from));
  }

  /** @param {Entry?} next */
  #open(next) {
    if (next !== null) this.#page.pick(next);
    else announce("Nothing in this list is undecided.");
  }

  /**
   * @param {Entry?} from
   * @returns {Entry?} the next one in the list, from the start again at its end
   */
  #nextUndecided(from) {
    const { shown } = this.#page.list;
    const place = from === null ? -1 : shown.indexOf(from);
    const others = [...shown.slice(place + 1), ...shown.slice(0, Math.max(place, 0))];
    return others.find(({ undecided, mine, holder }) => undecided && (mine || holder === null)) ?? null;
  }

  #toggleQueue() {
    this.#queueing = !this.#queueing;
    this.#note.textContent = "";
    this.#renderBar();
    if (this.#queueing) this.#next(null);
  }

  /** @param {string?} after skip this detection and older ones */
  async #next(after) {
    const queueing = this.#queueing;
    try {
      const entry = await nextInQueue(this.#page.library, this.#decisions.reviewer, after);
      if (queueing && !this.#queueing) {
        // Switched off meanwhile.
        if (entry !== null && entry !== this.#page.open()) this.#holding.release(entry);
        return;
      }
      this.#queueing = entry !== null;
      this.#note.textContent = entry === null ? "The queue is empty." : "";
      if (entry !== null) this.#page.pick(entry);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#note.textContent = `The queue cannot be reached. ${problem.title}.`;
    }
    this.#renderBar();
  }

  #togglePicking() {
    this.#selection.picking = !(this.#selection.picking || this.#selection.entries.length > 0);
  }

  #buildBar() {
    for (const [opinion, label] of /** @type {[Opinion, string][]} */ (Object.entries(OPINIONS))) {
      this.#bulk.append(button(label, () => this.#decideAll(opinion)));
    }
    const files = element("details", {}, element("summary", {}, "Export"));
    for (const format of /** @type {Format[]} */ (["csv", "json"])) {
      files.append(button(format.toUpperCase(), () => this.#export(format)));
    }
    this.#bulk.role = "group";
    this.#bulk.ariaLabel = "Decide about the selection";
    byId("team").replaceChildren(this.#queue, this.#select, files, this.#selected, this.#bulk, this.#note, this.#saving);
  }

  #renderBar() {
    const { picking, entries } = this.#selection;
    this.#queue.ariaPressed = String(this.#queueing);
    this.#select.ariaPressed = String(picking || entries.length > 0);
    this.#selected.textContent = picking || entries.length > 0 ? `${entries.length.toLocaleString("en")} selected` : "";
    this.#bulk.hidden = entries.length === 0;
  }

  /** @param {Opinion} opinion */
  #decideAll(opinion) {
    const entries = this.#selection.entries.filter((entry) => entry.decidable && entry.decision !== opinion);
    for (const entry of entries) {
      this.#done.push(entry);
      this.#decisions.decide(entry, opinion);
    }
    this.#selection.picking = false;
    this.#note.textContent = `${counted(entries.length, "picture")}: ${OPINIONS[opinion]}.`;
  }

  /** @param {Format} format */
  async #export(format) {
    const { entries } = this.#selection;
    const { exported } = await import("./exporting.js");
    offer(exported(entries.length > 0 ? entries : this.#page.list.shown, format), `gamma-detections.${format}`);
  }

  #renderUnsaved() {
    const { trouble, pending, conflicts } = this.#decisions;
    this.#saving.textContent = pending === 0 ? "" : `Saving ${counted(pending, "decision")} …`;
    /** @type {(Node | string)[]} */
    const parts = [];
    if (trouble !== null && pending > 0) {
      parts.push(
        element("strong", {}, `${counted(pending, "decision")} not saved yet`),
        ` ${trouble.title}. The page tries again; keep it open. `,
        button("Try now", () => this.#decisions.retry(), "small"),
      );
    }
    if (conflicts.length > 0) {
      parts.push(
        element("strong", {}, `${counted(conflicts.length, "decision")} in conflict with a colleague’s`),
        button("Show", () => this.#page.pick(conflicts[0]), "small"),
      );
    }
    if (this.#refusal !== null) {
      const { entry, problem } = this.#refusal;
      parts.push(
        element("strong", {}, `The decision about ${entry.name} was refused`),
        ` ${problem.title}: ${problem.detail} `,
        button("Close", () => this.#closeRefusal(), "small"),
      );
    }
    if (this.#dropped > 0) {
      parts.push(
        element("strong", {}, `${counted(this.#dropped, "decision")} not saved`),
        " The key was changed before they were saved. Please decide again. ",
        button("Close", () => this.#closeDropped(), "small"),
      );
    }
    const target = byId("unsaved");
    target.hidden = parts.length === 0;
    const before = target.textContent;
    const made = element("div", {}, ...parts);
    if (made.textContent !== before) target.replaceChildren(...made.childNodes);
  }

  #closeDropped() {
    this.#dropped = 0;
    this.#renderUnsaved();
  }

  #closeRefusal() {
    this.#refusal = null;
    this.#renderUnsaved();
  }
}
