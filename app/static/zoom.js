/** Scale and position of the picture, the same in both panes. */

import { all, byId, within } from "./dom.js";

const STEPS = [0.125, 0.25, 0.5, 1, 2, 4, 8]; // pixels of the screen for one of the picture
const PRESETS = [null, 1, 2]; // that the shown value goes through when it is pressed; null: fit
const LARGEST = Math.max(...STEPS);
const TOLERANCE = 1.01;
const PIXELS_FROM = 1; // from here on single pixels are shown as squares

/** Dispatches `change` when the scale has changed. */
export class Zoom extends EventTarget {
  #root;
  /** @type {HTMLElement[]} */ #panes;
  #width = 0; // pixels; 0: not known yet
  #height = 0;
  /** @type {number?} null: the whole picture fits */ #scale = null;
  #fitted = 1; // scale at which it fits, while it is magnified
  #out = byId("zoom-out", HTMLButtonElement);
  #in = byId("zoom-in", HTMLButtonElement);
  #value = byId("zoom-value", HTMLButtonElement);

  /** @param {HTMLElement} root holds the panes, each with one stage */
  constructor(root) {
    super();
    this.#root = root;
    this.#panes = all(root, ".pane");
    this.#out.addEventListener("click", () => this.by(-1));
    this.#in.addEventListener("click", () => this.by(1));
    this.#value.addEventListener("click", () => {
      this.to(PRESETS[(PRESETS.indexOf(this.#scale) + 1) % PRESETS.length]);
    });
    for (const pane of this.#panes) this.#watch(pane);
  }

  /** Whether the picture is shown larger than it fits. */
  get magnified() {
    return this.#scale !== null;
  }

  /** Forget the size of the picture and show the whole of the next one. */
  reset() {
    this.#width = 0;
    this.#height = 0;
    this.#set(null);
  }

  /**
   * Take on the size of the picture; the same size again changes nothing.
   * @param {number} width pixels
   * @param {number} height pixels
   */
  fit(width, height) {
    if (width === this.#width && height === this.#height) return;
    this.#width = width;
    this.#height = height;
    this.#root.style.setProperty("--width", String(width));
    this.#root.style.setProperty("--ratio", String(width / height));
    this.#set(null);
  }

  /**
   * Show the picture at a scale.
   * @param {number?} scale pixels of the screen for one of the picture; null: the whole picture
   */
  to(scale) {
    this.#set(scale);
  }

  /**
   * Zoom in or out by one step.
   * @param {1 | -1} direction 1: closer
   */
  by(direction) {
    const scale = this.#current();
    if (direction > 0) {
      this.#set(STEPS.find((step) => step > scale * TOLERANCE) ?? LARGEST);
      return;
    }
    const smaller = STEPS.findLast((step) => step < scale / TOLERANCE) ?? null;
    this.#set(smaller !== null && smaller > this.#fitting() * TOLERANCE ? smaller : null);
  }

  /**
   * From the whole picture to its own pixels (or closer, if they fit already), and back.
   * @param {[number, number]} [around] shares of width and height: what to bring to the middle
   */
  toggle(around) {
    const fitting = this.#fitting();
    if (this.magnified) this.#set(null);
    else this.#set(fitting < 1 / TOLERANCE ? 1 : (STEPS.find((step) => step > fitting) ?? LARGEST), around);
  }

  /**
   * Scroll to a place.
   * @param {number} x share of the width
   * @param {number} y share of the height
   */
  centre(x, y) {
    for (const pane of this.#panes) {
      pane.scrollLeft = x * pane.scrollWidth - pane.clientWidth / 2;
      pane.scrollTop = y * pane.scrollHeight - pane.clientHeight / 2;
    }
  }

  /** Scroll a pane that was hidden to the place of the layered pane, which is always shown. */
  align() {
    const { scrollLeft, scrollTop } = this.#panes[this.#panes.length - 1];
    for (const pane of this.#panes) pane.scrollTo(scrollLeft, scrollTop);
  }

  #current() {
    return this.#scale ?? this.#fitting();
  }

  #fitting() {
    if (this.magnified) return this.#fitted;
    if (this.#width === 0) return 1;
    return (stageOf(this.#visiblePane()).clientWidth * devicePixelRatio) / this.#width;
  }

  #visiblePane() {
    return this.#panes.find((pane) => !pane.hidden) ?? this.#panes[0];
  }

  /**
   * @param {number?} scale
   * @param {[number, number]} around
   */
  #set(scale, around = this.#middle()) {
    this.#fitted = this.#fitting();
    this.#scale = scale;
    this.#root.classList.toggle("magnified", this.magnified);
    this.#root.classList.toggle("pixels", scale !== null && scale >= PIXELS_FROM);
    this.#root.style.setProperty("--shown", `${(this.#width * (scale ?? 1)) / devicePixelRatio}px`);
    for (const pane of this.#panes) {
      if (this.magnified) pane.tabIndex = 0;
      else pane.removeAttribute("tabindex");
    }
    this.#value.textContent = scale !== null ? `${scale * 100}\u00a0%` : "Fit";
    this.#out.disabled = !this.magnified;
    this.#in.disabled = scale === LARGEST;
    if (this.magnified) this.centre(...around);
    this.dispatchEvent(new Event("change"));
  }

  /**
   * What is in the middle of the pane: shares of width and height.
   * @returns {[number, number]}
   */
  #middle() {
    if (!this.magnified) return [0.5, 0.5];
    const pane = this.#visiblePane();
    return [
      (pane.scrollLeft + pane.clientWidth / 2) / pane.scrollWidth,
      (pane.scrollTop + pane.clientHeight / 2) / pane.scrollHeight,
    ];
  }

  /** @param {HTMLElement} pane */
  #watch(pane) {
    const stage = stageOf(pane);
    /** @type {PointerEvent?} */
    let from = null;
    pane.addEventListener("scroll", () => {
      for (const other of this.#panes) {
        if (other === pane || other.hidden) continue;
        other.scrollLeft = pane.scrollLeft;
        other.scrollTop = pane.scrollTop;
      }
    });
    stage.addEventListener("dblclick", (event) => {
      const { left, top, width, height } = stage.getBoundingClientRect();
      this.toggle([(event.clientX - left) / width, (event.clientY - top) / height]);
    });
    stage.addEventListener("pointerdown", (event) => {
      if (!this.magnified || event.button !== 0 || event.pointerType !== "mouse") return;
      from = event;
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (from === null) return;
      pane.scrollBy(from.clientX - event.clientX, from.clientY - event.clientY);
      from = event;
    });
    for (const end of ["pointerup", "pointercancel"]) {
      stage.addEventListener(end, () => {
        from = null;
      });
    }
  }
}

/** @param {HTMLElement} pane */
function stageOf(pane) {
  return within(pane, ".stage");
}
