/** The model behind the service: its notice, and the line at the foot of the page. */

import { Problem, getModel } from "./api.js";
import { say } from "./dom.js";
import { unavailable } from "./words.js";

const RETRY = 5000; // ms

/** Dispatches `change` once it has learnt something new about the model. */
export class ModelCard extends EventTarget {
  #facts = null;
  #timer = null;
  #notice = document.getElementById("notice");
  #title = document.getElementById("notice-title");
  #text = document.getElementById("notice-text");
  #line = document.getElementById("model-line");

  /** Ask the service, again and again until a worker answers. */
  async refresh() {
    clearTimeout(this.#timer);
    try {
      this.#facts = await getModel();
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#warn(problem.title, unavailable(problem));
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.refresh(), RETRY);
      return;
    }
    this.#show();
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Whether the scores of a model mean nothing.
   * @param {{version: string}} model of a record
   */
  isUntrained({ version }) {
    return version === "untrained" || (this.#facts?.version === version && !this.#facts.trained);
  }

  #show() {
    const { name, version, trained, backbone, parameters, notice } = this.#facts;
    if (notice === null) this.#notice.hidden = true;
    else this.#warn(trained ? "Please note" : "Untrained model", notice);
    const millions = (parameters / 1e6).toLocaleString("en", { maximumFractionDigits: 1 });
    say(this.#line, `Model ${name}, version ${version} (${backbone}, ${millions}\u00a0M parameters)`);
  }

  #warn(title, text) {
    this.#title.textContent = title;
    this.#text.textContent = text;
    this.#notice.hidden = false;
  }
}
