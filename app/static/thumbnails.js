/** Small pictures for the rows that are in sight, and only for those. */

import { renditionPath } from "./api.js";
import { load } from "./pictures.js";
import { Problem } from "./problem.js";

const SIZE = 256; // pixels, longest side: sharp on dense screens too
const MARGIN = "400px"; // beyond the visible part of the list

/** One for each list. */
export class Thumbnails {
  #ids = new WeakMap(); // row → id of the detection that it is to show
  #observer;

  constructor() {
    this.#observer = new IntersectionObserver((changes) => this.#onSight(changes), {
      rootMargin: MARGIN, // where the page scrolls
      scrollMargin: MARGIN, // where the list scrolls by itself
    });
  }

  /**
   * @param {HTMLElement} row holds an `img`
   * @param {import("./library.js").Entry} entry what it is to show
   */
  update(row, { id, phase, record }) {
    const kept = phase !== "gone" && phase !== "expired";
    if (record === null || !kept || this.#ids.get(row) === id) return;
    this.#ids.set(row, id);
    this.#observer.observe(row);
  }

  #onSight(changes) {
    for (const { target, isIntersecting } of changes) {
      if (!isIntersecting) continue;
      this.#observer.unobserve(target);
      this.#show(target, this.#ids.get(target));
    }
  }

  async #show(row, id) {
    try {
      const url = await load(renditionPath(id, SIZE));
      if (this.#ids.get(row) === id) row.querySelector("img").src = url;
    } catch (problem) {
      // The row stays without a picture; what is wrong with it is said where it is opened.
      if (!(problem instanceof Problem)) throw problem;
      this.#ids.delete(row);
    }
  }
}
