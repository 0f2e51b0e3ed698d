/** The open picture: where it is on its way, why it got nowhere, or what was found. */

import { deleteDetection, detectionPath } from "./api.js";
import { announce, factRows, say } from "./dom.js";
import { forget } from "./pictures.js";
import { Problem } from "./problem.js";
import { renderResult } from "./result.js";
import { savables, save } from "./saving.js";
import * as states from "./states.js";

const byId = (id) => document.getElementById(id);

/** Shows one entry, or none. */
export class Detection {
  #library;
  #uploads;
  #model;
  #viewer;
  #entry = null;
  #shown = null; // record and model that the result was made from
  #told = ""; // what was announced last of the entry
  #deed = ""; // what was done and is not announced yet
  #dialog = byId("delete-dialog");

  /**
   * @param {import("./library.js").Library} library
   * @param {import("./uploads.js").Uploads} uploads
   * @param {import("./model.js").ModelCard} model
   * @param {import("./viewer.js").Viewer} viewer
   */
  constructor(library, uploads, model, viewer) {
    this.#library = library;
    this.#uploads = uploads;
    this.#model = model;
    this.#viewer = viewer;
    byId("cancel").addEventListener("click", () => uploads.cancel(this.#entry));
    byId("retry").addEventListener("click", () => uploads.retry(this.#entry));
    byId("delete").addEventListener("click", () => this.askToDelete());
    byId("delete-yes").addEventListener("click", () => this.#delete());
    byId("delete-no").addEventListener("click", () => this.#dialog.close());
    byId("permalink").addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // into another tab or window
      event.preventDefault(); // it leads to where the page is
      this.#copy(event.currentTarget.href);
    });
  }

  /** @param {import("./library.js").Entry?} entry */
  render(entry) {
    if (entry !== this.#entry) say(byId("deed-note"), null);
    this.#entry = entry;
    byId("detection").hidden = entry === null;
    if (entry === null) {
      this.#viewer.clear();
      this.#tell("");
      return;
    }
    this.#renderHeading();
    this.#renderProgress();
    this.#renderProblem();
    this.#viewer.render(entry);
    const succeeded = entry.phase === "succeeded";
    byId("summary").hidden = byId("details").hidden = !succeeded;
    const untrained = succeeded && this.#model.isUntrained(entry.record.model);
    if (succeeded) this.#renderResult(untrained);
    this.#tell(states.announcement(entry, untrained));
  }

  /** Ask whether the open detection is to be deleted. */
  askToDelete() {
    if (this.#entry === null || byId("delete").hidden) return;
    this.#dialog.showModal();
    byId("delete-no").focus();
  }

  #renderHeading() {
    const { name, id, phase } = this.#entry;
    byId("detection-title").textContent = name;
    byId("permalink").hidden = id === null;
    byId("permalink").href = `#/${id}`;
    byId("delete").hidden = id === null || phase === "gone";
  }

  #renderProgress() {
    const { phase, sent, trouble, finished } = this.#entry;
    byId("progress").hidden = finished;
    if (finished) return;
    byId("phase").textContent = states.phase(this.#entry);
    byId("cancel").hidden = phase !== "sending" && phase !== "waiting";
    if (phase === "waiting" || (phase === "sending" && sent < 1)) byId("bar").value = sent;
    else byId("bar").removeAttribute("value");
    say(byId("trouble"), trouble && states.trouble(trouble));
  }

  #renderProblem() {
    const { finished, phase, requestId, file } = this.#entry;
    const failed = finished && phase !== "succeeded";
    byId("problem").hidden = !failed;
    if (!failed) return;
    const { title, detail, code, again } = states.failure(this.#entry);
    byId("problem-title").textContent = title;
    byId("problem-detail").textContent = detail;
    byId("problem-facts").replaceChildren(...factRows(["Code", code], ["Request", requestId]));
    byId("retry").hidden = !again || file === null;
  }

  #renderResult(untrained) {
    const { record } = this.#entry;
    if (this.#shown?.record === record && this.#shown.untrained === untrained) return;
    this.#shown = { record, untrained };
    renderResult(record, {
      untrained,
      point: (layer, place) => this.#viewer.point(layer, place),
      savables: savables(record).map((savable) => ({
        label: savable.label,
        save: () => this.#attempt("It could not be saved.", () => this.#save(savable)),
      })),
      openCard: () => this.#model.open(),
    });
  }

  #save(savable) {
    const { record, name } = this.#entry;
    const { shownLayer: layer, opacity } = this.#viewer;
    return save(savable, { record, name, layer, opacity });
  }

  #delete() {
    const entry = this.#entry;
    this.#dialog.close();
    return this.#attempt("It could not be deleted.", async () => {
      await deleteDetection(entry.id);
      forget(detectionPath(entry.id));
      this.#deed = `${entry.name} was deleted.`;
      this.#library.remove(entry);
    });
  }

  /** Announce what is new of the entry, after what was done to the one before it. */
  #tell(text) {
    if (text === this.#told && this.#deed === "") return;
    this.#told = text;
    announce(`${this.#deed} ${text}`.trim());
    this.#deed = "";
  }

  async #copy(address) {
    try {
      await navigator.clipboard.writeText(address); // `clipboard` exists in secure contexts only
      say(byId("deed-note"), "The link is copied.");
    } catch {
      say(byId("deed-note"), "The link could not be copied; it is in the address bar.");
    }
  }

  async #attempt(otherwise, deed) {
    say(byId("deed-note"), null);
    try {
      await deed();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      say(byId("deed-note"), `${otherwise} ${problem.title}: ${problem.detail}`);
    }
  }
}
