/** The open picture: its progress, its error, or its result. */

/** @import { Entry, Library, Result } from "./library.js" */
/** @import { Savable } from "./saving.js" */

import { deleteDetection, detectionPath } from "./api.js";
import { announce, byId, factRows, say } from "./dom.js";
import { forget } from "./pictures.js";
import { Problem } from "./problem.js";
import * as states from "./states.js";

const deleteButton = byId("delete", HTMLButtonElement);
const headline = byId("headline");
const summary = byId("summary");
const details = byId("details");
const bar = byId("bar", HTMLProgressElement);
const permalink = byId("permalink", HTMLAnchorElement);

/** Tells the other tabs of this browser the id of a detection that was deleted. */
const deletions = new BroadcastChannel("gamma-deletions");

/** Shows one entry, or none. */
export class Detection {
  #library;
  #model;
  #viewer;
  /** @type {Entry?} */ #entry = null;
  /** @type {{result: Result, untrained: boolean, searches: boolean}?} what is shown was made from */ #shown = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #announced = ""; // last announcement about the entry
  #lastAction = ""; // action that was not announced yet
  #dialog = byId("delete-dialog", HTMLDialogElement);
  /** @type {Entry?} that the dialog is about; another may be opened behind it */ #asked = null;

  /**
   * @param {Library} library
   * @param {import("./uploads.js").Uploads} uploads
   * @param {import("./model.js").ModelCard} model
   * @param {import("./viewer.js").Viewer} viewer
   */
  constructor(library, uploads, model, viewer) {
    this.#library = library;
    this.#model = model;
    this.#viewer = viewer;
    byId("cancel").addEventListener("click", () => {
      if (this.#entry !== null) uploads.cancel(this.#entry);
    });
    byId("retry").addEventListener("click", () => {
      if (this.#entry !== null) uploads.retry(this.#entry);
    });
    deleteButton.addEventListener("click", () => this.askToDelete());
    byId("delete-yes").addEventListener("click", () => this.#delete());
    byId("delete-no").addEventListener("click", () => this.#dialog.close());
    deletions.addEventListener("message", ({ data: id }) => {
      const entry = library.find(id);
      if (entry === this.#entry && entry !== null) library.change(entry, { phase: "gone" });
      else if (entry !== null) library.remove(entry);
    });
    permalink.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // into another tab or window
      event.preventDefault(); // the link leads to the current page
      const failed = "The link could not be copied; it is in the address bar.";
      this.#copy(permalink.href, "The link is copied.", failed);
    });
  }

  /** @param {Entry?} entry */
  render(entry) {
    if (entry !== this.#entry) say(byId("action-note"), null);
    this.#entry = entry;
    byId("detection").hidden = entry === null;
    if (entry === null) {
      this.#viewer.clear();
      this.#announce("");
      return;
    }
    this.#renderHeading(entry);
    this.#renderProgress(entry);
    this.#renderProblem(entry);
    this.#viewer.render(entry);
    const { result, name } = entry;
    headline.hidden = summary.hidden = details.hidden = result === null;
    const untrained = result !== null && this.#model.isUntrained(result.model);
    if (result !== null) this.#renderResult(result, name, untrained);
    this.#announce(states.announcement(entry, untrained));
  }

  /** Ask for confirmation and delete the open detection; remove a row that is all there is. */
  askToDelete() {
    if (this.#entry === null || deleteButton.hidden) return;
    if (this.#entry.onlyHere) {
      this.#lastAction = `${this.#entry.name} was removed.`;
      this.#library.remove(this.#entry);
      return;
    }
    this.#asked = this.#entry;
    this.#dialog.showModal();
    byId("delete-no").focus();
  }

  /** @param {Entry} entry */
  #renderHeading({ name, id, onlyHere }) {
    byId("detection-title").textContent = name;
    permalink.hidden = id === null;
    permalink.href = `#/${id}`;
    deleteButton.hidden = id === null && !onlyHere;
    deleteButton.textContent = onlyHere ? "Remove" : "Delete";
  }

  /** @param {Entry} entry */
  #renderProgress(entry) {
    const { phase, sent, trouble, finished } = entry;
    byId("progress").hidden = finished;
    say(byId("estimate"), null);
    if (finished) return;
    byId("phase").textContent = states.phase(entry);
    byId("cancel").hidden = phase !== "sending" && phase !== "waiting";
    if (phase === "waiting" || (phase === "sending" && sent < 1)) bar.value = sent;
    else this.#renderEstimate(entry);
    say(byId("trouble"), trouble && states.trouble(trouble));
  }

  /**
   * How long the entry takes, and will take; again every second.
   * @param {Entry} entry
   */
  async #renderEstimate(entry) {
    clearTimeout(this.#timer);
    const elapsed = (Date.now() - entry.since) / 1000;
    const { remaining } = await import("./estimate.js"); // not needed for the list
    if (this.#entry !== entry || entry.finished) return;
    const left = remaining(entry, this.#library.entries, elapsed);
    say(byId("estimate"), states.duration(entry, elapsed, left));
    if (left === null || entry.phase !== "processing") bar.removeAttribute("value");
    else bar.value = elapsed / (elapsed + left);
    this.#timer = setTimeout(() => {
      if (this.#entry === entry && entry.followed) this.#renderEstimate(entry);
    }, 1000);
  }

  /** @param {Entry} entry */
  #renderProblem(entry) {
    const { finished, result, requestId, file } = entry;
    const failed = finished && result === null;
    byId("problem").hidden = !failed;
    if (!failed) return;
    const { title, detail, code, again } = states.failure(entry);
    byId("problem-title").textContent = title;
    byId("problem-detail").textContent = detail;
    byId("problem-facts").replaceChildren(...factRows(["Code", code], ["Request", requestId]));
    byId("retry").hidden = !again || file === null;
  }

  /**
   * @param {Result} result
   * @param {string} name of the picture
   * @param {boolean} untrained whether its score means nothing
   */
  async #renderResult(result, name, untrained) {
    const { searches } = this.#model;
    const before = this.#shown;
    if (before?.result === result && before.untrained === untrained && before.searches === searches) return;
    const shown = { result, untrained, searches };
    this.#shown = shown;
    const [{ renderResult }, { savables }] = await Promise.all([
      import("./result.js"), // not needed for the list
      import("./saving.js"),
    ]);
    if (this.#shown !== shown) return;
    renderResult(result, {
      untrained,
      searches,
      point: (layer, place) => this.#viewer.point(layer, place),
      savables: [
        ...savables(result).map((savable) => ({
          label: savable.label,
          save: () => this.#attempt("It could not be saved.", () => this.#save(savable, result, name)),
        })),
        { label: "Copy as text", save: () => this.#copyText() },
      ],
      openCard: () => this.#model.open(),
    });
  }

  /**
   * @param {Savable} savable
   * @param {Result} record
   * @param {string} name of the picture
   */
  async #save(savable, record, name) {
    const { save } = await import("./saving.js");
    const { shownLayer: layer, opacity } = this.#viewer;
    return save(savable, { record, name, layer, opacity });
  }

  #delete() {
    const entry = this.#asked;
    this.#dialog.close();
    if (entry === null || entry.id === null) return;
    const { id } = entry;
    this.#attempt("It could not be deleted.", async () => {
      await deleteDetection(id);
      forget(detectionPath(id));
      this.#lastAction = `${entry.name} was deleted.`;
      this.#library.remove(entry);
      deletions.postMessage(id);
    });
  }

  /**
   * Announce changes of the entry, after an action on the previous one.
   * @param {string} text
   */
  #announce(text) {
    if (text === this.#announced && this.#lastAction === "") return;
    this.#announced = text;
    announce(`${this.#lastAction} ${text}`.trim());
    this.#lastAction = "";
  }

  async #copyText() {
    if (this.#entry === null) return;
    const { asText } = await import("./report.js");
    this.#copy(asText(this.#entry, permalink.href), "The text is copied.", "The text could not be copied.");
  }

  /**
   * @param {string} text
   * @param {string} done
   * @param {string} failed
   */
  async #copy(text, done, failed) {
    try {
      await navigator.clipboard.writeText(text); // `clipboard` exists in secure contexts only
      say(byId("action-note"), done);
    } catch {
      say(byId("action-note"), failed);
    }
  }

  /**
   * @param {string} otherwise said before the problem
   * @param {() => Promise<void>} action
   */
  async #attempt(otherwise, action) {
    say(byId("action-note"), null);
    try {
      await action();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      say(byId("action-note"), `${otherwise} ${problem.title}: ${problem.detail}`);
    }
  }
}
