/** The model: its notice, its line in the footer, and its card. */

/** @import { ModelFacts } from "./api.js" */

import { getModel } from "./api.js";
import { byId, element, say } from "./dom.js";
import { Problem } from "./problem.js";
import { unavailable } from "./states.js";

const RETRY = 5000; // ms

/** Dispatches `change` when facts about the model arrive. */
export class ModelCard extends EventTarget {
  /** @type {ModelFacts?} */ #facts = null;
  /** @type {Problem?} */ #problem = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #notice = byId("notice");
  #more = byId("notice-more", HTMLDetailsElement);
  #title = byId("notice-title");
  #text = byId("notice-text");
  #line = byId("model-line");
  #dialog = byId("card-dialog", HTMLDialogElement);
  #body = byId("card-body");

  constructor() {
    super();
    byId("open-card").addEventListener("click", () => this.open());
  }

  /** Ask the service; retry until a worker answers. */
  async refresh() {
    clearTimeout(this.#timer);
    try {
      this.#facts = await getModel();
      this.#problem = null;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.#problem = problem;
      this.#warn(problem.title, unavailable(problem), true);
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.refresh(), (problem.retryAfter ?? 0) * 1000 || RETRY);
      return;
    }
    this.#show(this.#facts);
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Whether the scores of a model mean nothing.
   * @param {{version: string}} model of a record
   */
  isUntrained({ version }) {
    return version === "untrained" || (this.#facts?.version === version && !this.#facts.trained);
  }

  /** Whether the service fetches pictures by their address. */
  get fetches() {
    return this.#facts?.fetch ?? false;
  }

  /** Whether results link to reverse image searches. */
  get searches() {
    return this.#facts?.search_links ?? false;
  }

  /** Show the card. */
  async open() {
    await this.#fill();
    this.#dialog.showModal();
    this.#body.scrollTop = 0;
  }

  async #fill() {
    if (this.#facts === null) {
      const why = this.#problem === null ? "The service has not answered yet." : this.#problem.detail;
      this.#body.replaceChildren(element("p", {}, `There is no information about the model. ${why}`));
    } else {
      const { renderCard } = await import("./card.js");
      this.#body.replaceChildren(...renderCard(this.#facts));
    }
  }

  /** @param {ModelFacts} facts */
  #show({ name, version, trained, notice }) {
    if (notice === null) this.#notice.hidden = true;
    else this.#warn(trained ? "How reliable a score is" : "Untrained model", notice, false);
    say(this.#line, `Model ${name}, version ${version}`);
  }

  /**
   * A notice that the user folds or unfolds stays so until there is another one.
   * @param {string} title
   * @param {string} text
   * @param {boolean} open
   */
  #warn(title, text, open) {
    if (this.#title.textContent !== title) this.#more.open = open;
    this.#title.textContent = title;
    this.#text.textContent = text;
    this.#notice.hidden = false;
  }
}
