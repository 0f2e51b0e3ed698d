/** The picture with one heat map at a time, and the original beside it. */

/** @import { Layer } from "./api.js" */
/** @import { Entry, MaskedResult, Result } from "./library.js" */
/** @typedef {Layer | "none"} Choice */

import { originalPath, overlayPath, renditionPath } from "./api.js";
import { all, byId, element, say, within } from "./dom.js";
import { hasMasks } from "./library.js";
import { load } from "./pictures.js";
import { recall, remember } from "./preferences.js";
import { Problem } from "./problem.js";
import * as words from "./words.js";
import { Zoom } from "./zoom.js";

const SCREEN = 2048; // pixels, longest side; enough while the whole picture is shown
const LARGEST = 8192; // pixels, longest side; when single pixels matter
const SHOWN = new Set(["JPEG", "PNG", "WEBP", "BMP"]); // formats that every browser shows as they are
const RETRY_DELAY = 3000; // ms until a failed download is retried
const BESIDE = "side-by-side";
const PICTURE = "the picture"; // in notes
const NO_PICTURE = "This browser cannot show this format; a preview from the service follows.";
/** @type {Layer[]} */
const LAYERS = ["ai", "manipulation"];

/** Shows the picture of one entry, after removing the previous one. */
export class Viewer {
  /** @type {Entry?} */ #entry = null;
  #generation = 0; // grows with each entry, to recognise late answers
  /** @type {File | string | null} file or path that the picture is shown from */ #source = null;
  #withOverlays = false;
  #frame = ""; // path of the frame that is shown
  /** @type {string?} */ #fileUrl = null;
  /** @type {Map<string, string>} what is not shown, and why */ #missing = new Map();
  /** @type {Layer} that the user chose last */ #preferred = "ai";
  /** @type {Layer} */ #lastLayer = "ai";
  #root = byId("viewer");
  #tools = byId("tools");
  #layerControls = byId("layer-controls");
  #panes = byId("panes");
  #original = within(this.#panes, "[data-pane=original]");
  #pictures = all(this.#panes, ":not([data-pane=other]) > * > .picture", HTMLImageElement);
  #overlays = all(this.#panes, ".overlay", HTMLImageElement);
  #marks = byId("marks");
  #note = byId("viewer-note");
  #opacity = byId("opacity", HTMLInputElement);
  #opacityValue = byId("opacity-value", HTMLOutputElement);
  #beside = byId("beside", HTMLInputElement);
  #boxes = byId("boxes", HTMLInputElement);

  constructor() {
    this.#beside.checked = recall(BESIDE) !== null;
    this.#beside.addEventListener("change", () => this.#rememberBeside());
    this.zoom = new Zoom(this.#panes);
    this.zoom.addEventListener("change", () => this.#sharpen());
    this.#tools.addEventListener("input", ({ target }) => {
      if (target instanceof HTMLInputElement && target.name === "layer") this.#prefer(this.layer);
      this.#arrange();
    });
    this.#layerControls.addEventListener("input", () => this.#arrange());
    for (const picture of this.#pictures) {
      picture.addEventListener("load", () => this.#onPicture(picture));
    }
    this.#arrange();
  }

  get layer() {
    const chosen = within(this.#tools, "input[name=layer]:checked", HTMLInputElement);
    return /** @type {Choice} */ (chosen.value);
  }

  /** The layer that is shown, or was shown last. */
  get shownLayer() {
    return this.#lastLayer;
  }

  /** @returns {number} 0 to 1 */
  get opacity() {
    return this.#opacity.valueAsNumber / 100;
  }

  /** @param {Entry} entry */
  render(entry) {
    if (entry !== this.#entry) this.#start(entry);
    const { result, record, file, id, finished, unjudged } = entry;
    const masked = result !== null && hasMasks(result) ? result : null;
    const isLost = finished && !unjudged;
    this.#root.hidden = result === null && (isLost || (file === null && id === null));
    this.#tools.hidden = this.#layerControls.hidden = masked === null;
    if (this.#root.hidden) return;
    if (record !== null) this.zoom.fit(record.image.width, record.image.height);
    if (id !== null && record !== null) this.#show(renditionPath(record, SCREEN));
    else if (file !== null) this.#showFile(file);
    if (masked !== null && !this.#withOverlays) this.#overlay(masked);
  }

  /** Leave the entry. */
  clear() {
    this.#start(null);
  }

  /**
   * Load the pictures of an entry before it is opened.
   * @param {Entry?} entry
   */
  prepare(entry) {
    const record = entry?.result ?? null;
    if (record === null) return;
    const paths = record.masks === null ? [] : LAYERS.map((layer) => heatMapPath(record, layer));
    for (const path of [...paths, renditionPath(record, SCREEN)]) {
      load(path).catch((problem) => {
        if (!(problem instanceof Problem)) throw problem; // shown when the entry is opened
      });
    }
  }

  /**
   * Show a layer; if it is shown already, and `orElse` is given, show that instead.
   * @param {Choice} layer
   * @param {Choice} orElse
   */
  choose(layer, orElse = layer) {
    const wanted = this.layer === layer ? orElse : layer;
    this.#prefer(wanted);
    this.#check(wanted);
    this.#arrange();
  }

  /** Show the original, or go back to the previous layer. */
  toggleOriginal() {
    this.choose("none", this.#lastLayer);
  }

  toggleBeside() {
    this.#beside.checked = !this.#beside.checked;
    this.#rememberBeside();
    this.#arrange();
  }

  #rememberBeside() {
    remember(BESIDE, this.#beside.checked ? "true" : null);
  }

  toggleBoxes() {
    this.#boxes.checked = !this.#boxes.checked;
    this.#arrange();
  }

  /**
   * Point at a region.
   * @param {Layer} layer
   * @param {number} place in the list of the layer's regions
   */
  point(layer, place) {
    this.choose(layer);
    this.#boxes.checked = true;
    this.#arrange();
    for (const mark of this.#marks.children) mark.classList.remove("pointed");
    this.#marks.children[place]?.classList.add("pointed"); // there are none without a picture
    this.#marks.closest(".pane")?.scrollIntoView({ block: "nearest" });
    const record = this.#masked();
    if (record === null) return;
    const { width, height } = record.image;
    const [x, y, w, h] = record.masks[layer].regions[place].box;
    if (this.zoom.magnified) this.zoom.centre((x + w / 2) / width, (y + h / 2) / height);
  }

  /** The record of the entry, if it has masks. */
  #masked() {
    const record = this.#entry?.result ?? null;
    return record !== null && hasMasks(record) ? record : null;
  }

  /** @param {Choice} layer */
  #prefer(layer) {
    if (layer !== "none") this.#preferred = layer;
  }

  /** @param {Entry?} entry */
  #start(entry) {
    this.#generation += 1;
    this.#entry = entry;
    this.#source = null;
    this.#withOverlays = false;
    for (const image of [...this.#pictures, ...this.#overlays]) {
      image.removeAttribute("src");
    }
    for (const picture of this.#pictures) picture.hidden = true;
    if (this.#fileUrl !== null) URL.revokeObjectURL(this.#fileUrl);
    this.#fileUrl = null;
    this.#marks.replaceChildren();
    this.#missing.clear();
    this.#showMissing();
    this.zoom.reset();
  }

  /** @param {File} file */
  async #showFile(file) {
    if (this.#source !== null) return;
    this.#source = file;
    this.#fileUrl = URL.createObjectURL(file);
    const generation = this.#generation;
    for (const picture of this.#pictures) picture.src = this.#fileUrl;
    try {
      await this.#pictures[0].decode();
    } catch {
      if (generation === this.#generation && this.#source === file) this.#miss(PICTURE, NO_PICTURE);
    }
  }

  /**
   * Show a picture, unless it is shown already, perhaps more sharply.
   * @param {string} path
   */
  async #show(path) {
    if (typeof this.#source === "string" && this.#frame === path) return;
    this.#frame = path;
    await this.#replace(path);
  }

  /**
   * @param {string} path
   * @param {string} [what] is missing if it cannot be loaded
   */
  async #replace(path, what = PICTURE) {
    this.#source = path;
    const url = await this.#load(path, what, () => this.#source === path);
    if (url === null) return;
    for (const picture of this.#pictures) picture.src = url;
  }

  /**
   * Load something, with retries while they may help. Null if they do not, or if another entry or
   * layer was selected.
   * @param {string} path
   * @param {string} what is missing if it cannot be loaded
   * @param {() => boolean} isWanted
   * @returns {Promise<string?>} object URL
   */
  async #load(path, what, isWanted = () => true) {
    const generation = this.#generation;
    const isCurrent = () => generation === this.#generation && isWanted();
    while (isCurrent()) {
      try {
        const url = await load(path);
        if (!isCurrent()) return null;
        this.#missing.delete(what);
        this.#showMissing();
        return url;
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        if (!isCurrent()) return null;
        const { title, detail, temporary } = problem;
        this.#miss(what, `${title}. ${detail}${temporary ? " Trying again." : ""}`);
        if (!temporary) return null;
        await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY));
      }
    }
    return null;
  }

  /** Load the picture's own pixels once they are visible. */
  #sharpen() {
    const record = this.#entry?.result ?? null;
    if (!this.zoom.magnified || record === null) return;
    const path = exactPath(record);
    if (this.#source !== path) this.#replace(path, "the picture's finest detail");
  }

  /** @param {MaskedResult} record */
  #overlay(record) {
    this.#withOverlays = true;
    this.#offer(record);
    this.#arrange();
    for (const overlay of this.#overlays) this.#loadOverlay(overlay, record.id);
  }

  /**
   * Say how many regions each layer has, and begin with the preferred one unless it has none.
   * @param {MaskedResult} record
   */
  #offer({ masks }) {
    const count = (/** @type {Layer} */ layer) => masks[layer].regions.length;
    for (const layer of LAYERS) {
      const label = /** @type {HTMLElement} */ (this.#input(layer).parentElement);
      within(label, "span").dataset.count = String(count(layer));
      label.title = words.counted(count(layer), "region");
    }
    if (this.layer === "none") return;
    const other = this.#preferred === "ai" ? "manipulation" : "ai";
    const begin = count(this.#preferred) === 0 && count(other) > 0 ? other : this.#preferred;
    this.#check(begin);
  }

  /** @param {Choice} layer */
  #input(layer) {
    return within(this.#tools, `input[value=${layer}]`, HTMLInputElement);
  }

  /** @param {Choice} layer */
  #check(layer) {
    this.#input(layer).checked = true;
  }

  /**
   * @param {HTMLImageElement} overlay
   * @param {string} id of the detection
   */
  async #loadOverlay(overlay, id) {
    const layer = /** @type {Layer} */ (overlay.dataset.layer);
    const url = await this.#load(heatMapPath({ id }, layer), `the ${words.layer(layer)} layer`);
    if (url !== null) overlay.src = url;
  }

  /** @param {HTMLImageElement} picture */
  #onPicture(picture) {
    picture.hidden = false;
    this.#arrange(); // the boxes were waiting for it
    // The size in the record counts; a browser may scale what it shows.
    if (!this.#entry?.record) this.zoom.fit(picture.naturalWidth, picture.naturalHeight);
  }

  /**
   * @param {string} what
   * @param {string} why
   */
  #miss(what, why) {
    this.#missing.set(what, why);
    this.#showMissing();
  }

  /** Each reason once, and what it keeps from being shown. */
  #showMissing() {
    const reasons = [...new Set(this.#missing.values())].map((why) => {
      const what = [...this.#missing.keys()].filter((key) => this.#missing.get(key) === why);
      return `Not shown: ${what.join(", ")}. ${why}`;
    });
    say(this.#note, reasons.length === 0 ? null : reasons.join(" "));
  }

  #arrange() {
    const { layer } = this;
    const isLayer = layer !== "none";
    if (isLayer) this.#lastLayer = layer;
    for (const overlay of this.#overlays) overlay.hidden = overlay.dataset.layer !== layer;
    const beside = this.#beside.checked && isLayer; // not beside the original itself
    this.#original.hidden = !beside;
    this.#panes.classList.toggle("beside", beside);
    this.zoom.align();
    this.#panes.style.setProperty("--opacity", `${this.#opacity.value}%`);
    this.#opacityValue.value = `${this.#opacity.value}\u00a0%`;
    this.#layerControls.classList.toggle("idle", !isLayer);
    byId("legend-title").textContent = words.legend(this.#lastLayer);
    this.#mark(layer);
  }

  /** @param {Choice} layer */
  #mark(layer) {
    const isPictured = this.#withOverlays && this.#pictures.every(({ hidden }) => !hidden);
    const record = isPictured && this.#boxes.checked ? this.#masked() : null;
    const marks = record === null || layer === "none" ? [] : marksOf(record, layer);
    this.#marks.replaceChildren(...marks);
  }
}

/**
 * Path of the original, or of a JPEG of it if not every browser shows the format or one frame of it.
 * @param {Result} record
 */
export function exactPath(record) {
  const { format, frames } = record.image;
  const isExact = SHOWN.has(format) && (frames ?? 1) === 1;
  return isExact ? originalPath(record.id) : renditionPath(record, LARGEST);
}

/**
 * Path of a heat map at full strength; the slider weakens it.
 * @param {{id: string}} record
 * @param {Layer} layer
 */
function heatMapPath({ id }, layer) {
  return overlayPath(id, layer, `opacity=1&size=${SCREEN}`);
}

/**
 * @param {MaskedResult} record
 * @param {Layer} layer
 */
function marksOf({ image, masks }, layer) {
  return masks[layer].regions.map(({ box: [x, y, width, height] }, place) => {
    const mark = element("div", { className: "mark" }, element("span", {}, String(place + 1)));
    mark.style.setProperty("--x", String(x / image.width));
    mark.style.setProperty("--y", String(y / image.height));
    mark.style.setProperty("--w", String(width / image.width));
    mark.style.setProperty("--h", String(height / image.height));
    mark.classList.toggle("right", x > image.width / 2);
    const isTight = y < image.height * 0.1 && height < image.height * 0.3; // its number would cover it
    mark.classList.toggle("below", isTight);
    return mark;
  });
}
