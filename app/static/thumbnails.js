/** Thumbnails for visible rows only: from the service, or else from the file. */

/** @import { Entry } from "./library.js" */

import { renditionPath } from "./api.js";
import { within } from "./dom.js";
import { load } from "./pictures.js";
import { Problem } from "./problem.js";

const SIZE = 256; // pixels, longest side: sharp on dense screens too
const RETRY_DELAY = 10000; // ms until a failed download is retried
const MARGIN = "400px"; // beyond the visible part of the list

/** One for each list. */
export class Thumbnails {
  /** @type {WeakMap<Element, string | File>} by row: id of the detection, or file, to show */
  #sources = new WeakMap();
  #observer;

  constructor() {
    this.#observer = new IntersectionObserver(
      (changes) => this.#onSight(changes),
      /** @type {IntersectionObserverInit} */ ({
        rootMargin: MARGIN, // where the page scrolls
        scrollMargin: MARGIN, // where the list scrolls by itself
      }),
    );
  }

  /**
   * @param {HTMLElement} row holds an `img`
   * @param {Entry} entry what it is to show
   */
  update(row, { id, phase, record, file }) {
    const kept = record !== null && phase !== "gone" && phase !== "expired";
    const source = kept ? id : file;
    if (source === null || this.#sources.get(row) === source) return;
    this.#sources.set(row, source);
    this.#observer.observe(row);
  }

  /** @param {IntersectionObserverEntry[]} changes */
  #onSight(changes) {
    for (const { target, isIntersecting } of changes) {
      if (!isIntersecting) continue;
      this.#observer.unobserve(target);
      const source = this.#sources.get(target);
      if (source instanceof File) showFile(imageOf(target), source);
      else if (source !== undefined) this.#load(target, source);
    }
  }

  /**
   * @param {Element} row
   * @param {string} id
   */
  async #load(row, id) {
    try {
      const url = await load(renditionPath({ id }, SIZE));
      if (this.#sources.get(row) === id) imageOf(row).src = url;
    } catch (problem) {
      // The row has no picture then; the error is shown when the entry is opened.
      if (!(problem instanceof Problem)) throw problem;
      if (!problem.temporary) return;
      setTimeout(() => {
        if (this.#sources.get(row) === id) this.#observer.observe(row); // again, once it is visible
      }, RETRY_DELAY);
    }
  }
}

/** @param {Element} row */
function imageOf(row) {
  return within(row, "img", HTMLImageElement);
}

/**
 * @param {HTMLImageElement} image
 * @param {File} file
 */
function showFile(image, file) {
  const url = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(url);
  image.onerror = () => {
    URL.revokeObjectURL(url);
    image.removeAttribute("src"); // this browser cannot show it
  };
  image.src = url;
}
