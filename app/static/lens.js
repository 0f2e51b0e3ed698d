/** A magnifier at the pointer, which shows the picture's own pixels. */

import { element } from "./dom.js";

const SCALE = 4; // pixels of the screen for one of the picture

/** Lies in the stage of one pane. */
export class Lens {
  #stage;
  #width;
  #height;
  #glass = element("div", { className: "lens", ariaHidden: "true", hidden: true });
  #closing = new AbortController();

  /**
   * @param {HTMLElement} stage
   * @param {string} url of the picture in full size
   * @param {{width: number, height: number}} size of the picture, pixels
   */
  constructor(stage, url, { width, height }) {
    this.#stage = stage;
    this.#width = (width * SCALE) / devicePixelRatio;
    this.#height = (height * SCALE) / devicePixelRatio;
    this.#glass.style.backgroundImage = `url("${url}")`;
    this.#glass.style.backgroundSize = `${this.#width}px ${this.#height}px`;
    stage.append(this.#glass);
    stage.classList.add("with-lens");
    const { signal } = this.#closing;
    stage.addEventListener("pointermove", (event) => this.#move(event), { signal });
    stage.addEventListener("pointerleave", () => this.#hide(), { signal });
  }

  /** Take it away. */
  close() {
    this.#closing.abort();
    this.#glass.remove();
    this.#stage.classList.remove("with-lens");
  }

  #hide() {
    this.#glass.hidden = true;
  }

  /** @param {PointerEvent} event */
  #move({ clientX, clientY }) {
    const { left, top, width, height } = this.#stage.getBoundingClientRect();
    const [x, y] = [clientX - left, clientY - top];
    this.#glass.hidden = false;
    const radius = this.#glass.offsetWidth / 2;
    this.#glass.style.left = `${x - radius}px`;
    this.#glass.style.top = `${y - radius}px`;
    const at = [radius - (x / width) * this.#width, radius - (y / height) * this.#height];
    this.#glass.style.backgroundPosition = at.map((pixels) => `${pixels}px`).join(" ");
  }
}
