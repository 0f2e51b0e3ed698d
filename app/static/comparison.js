/** Another picture beside the open one. */

/** @import { Entry, Library } from "./library.js" */

import { renditionPath } from "./api.js";
import { byId, within } from "./dom.js";
import { load } from "./pictures.js";
import { Problem } from "./problem.js";

const SCREEN = 2048; // pixels, longest side

/** Keeps a picture that the user chose while others are opened. */
export class Comparison {
  /** @type {Entry?} */ #open = null;
  /** @type {Entry?} */ #other = null;
  #library;
  #button = byId("compare", HTMLButtonElement);
  #pane = within(byId("panes"), "[data-pane=other]");
  #picture = within(this.#pane, ".picture", HTMLImageElement);

  /** @param {Library} library */
  constructor(library) {
    this.#library = library;
    this.#button.addEventListener("click", () => this.#toggle());
    this.#button.disabled = false; // clicks are heard from now on
  }

  /** @param {Entry?} entry that is open */
  render(entry) {
    this.#open = entry;
    const other = this.#other !== null && this.#library.has(this.#other) ? this.#other : null;
    this.#other = other;
    this.#pane.hidden = other === null || other === entry;
    this.#button.ariaPressed = String(other !== null);
    this.#button.textContent = other === null ? "Compare" : "Stop comparing";
    this.#button.title = other === null ? "Keep this picture, and open another beside it" : other.name;
  }

  async #toggle() {
    this.#other = this.#other === null ? this.#open : null;
    this.render(this.#open);
    this.#picture.removeAttribute("src");
    const other = this.#other;
    if (other?.id == null || other.record === null) return;
    const { width, height } = other.record.image;
    this.#pane.ariaLabel = other.name;
    this.#pane.style.setProperty("--ratio", String(width / height));
    this.#pane.style.setProperty("--width", String(width));
    try {
      const url = await load(renditionPath(other.record, SCREEN));
      if (this.#other === other) this.#picture.src = url;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#other = null; // nothing to compare with
      this.render(this.#open);
    }
  }
}
