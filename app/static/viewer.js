/** The picture with its heat maps, one layer at a time, and the original beside it. */

import { renditionPath } from "./api.js";
import { element, say } from "./dom.js";
import { load } from "./pictures.js";
import { Problem } from "./problem.js";
import * as words from "./words.js";
import { Zoom } from "./zoom.js";

const SCREEN = 2048; // pixels, longest side; enough while the whole picture is shown
const LARGEST = 8192; // pixels, longest side; when single pixels matter
const NO_PICTURE = "This browser cannot show this picture yet; the service will.";
const LAYERS = ["ai", "manipulation"];

/** Shows the picture of one entry; what belongs to a former entry is dropped first. */
export class Viewer {
  #entry = null;
  #generation = 0; // grows with each entry, so that what comes too late is known
  #source = null; // file or path that the picture is shown from
  #withOverlays = false;
  #fileUrl = null;
  #notes = new Set();
  #lastLayer = "ai";
  #root = document.getElementById("viewer");
  #tools = document.getElementById("tools");
  #reading = document.getElementById("reading");
  #panes = document.getElementById("panes");
  #original = this.#panes.querySelector("[data-pane=original]");
  #pictures = [...this.#panes.querySelectorAll(".picture")];
  #overlays = [...this.#panes.querySelectorAll(".overlay")];
  #marks = document.getElementById("marks");
  #note = document.getElementById("viewer-note");
  #opacity = document.getElementById("opacity");
  #opacityValue = document.getElementById("opacity-value");
  #beside = document.getElementById("beside");
  #boxes = document.getElementById("boxes");

  constructor() {
    this.zoom = new Zoom(this.#panes);
    this.zoom.addEventListener("change", () => this.#sharpen());
    this.#tools.addEventListener("input", () => this.#arrange());
    this.#reading.addEventListener("input", () => this.#arrange());
    for (const picture of this.#pictures) {
      picture.addEventListener("load", () => this.#onPicture(picture));
    }
    this.#arrange();
  }

  /** @returns {string} `ai`, `manipulation` or `none` */
  get layer() {
    return this.#tools.querySelector("input[name=layer]:checked").value;
  }

  /** @returns {string} `ai` or `manipulation`: the layer that is shown, or was shown last */
  get shownLayer() {
    return this.#lastLayer;
  }

  /** @returns {number} 0 to 1 */
  get opacity() {
    return this.#opacity.value / 100;
  }

  /** @param {import("./library.js").Entry} entry */
  render(entry) {
    if (entry !== this.#entry) this.#start(entry);
    const { phase, record, file, id, finished } = entry;
    const succeeded = phase === "succeeded";
    this.#root.hidden = !succeeded && (finished || (file === null && id === null));
    this.#tools.hidden = this.#reading.hidden = !succeeded;
    if (this.#root.hidden) return;
    if (id !== null && record !== null) this.#show(renditionPath(id, SCREEN));
    else if (file !== null) this.#showFile(file);
    if (succeeded && !this.#withOverlays) this.#overlay(record);
  }

  /** Leave the entry. */
  clear() {
    this.#start(null);
  }

  /**
   * Have the pictures of an entry at hand before it is opened.
   * @param {import("./library.js").Entry?} entry
   */
  prepare(entry) {
    if (entry?.phase !== "succeeded") return;
    const paths = LAYERS.map((layer) => overlayPath(entry.record, layer));
    for (const path of [...paths, renditionPath(entry.id, SCREEN)]) {
      load(path).catch((problem) => {
        if (!(problem instanceof Problem)) throw problem; // it is told when the entry is opened
      });
    }
  }

  /** Show a layer; if it is shown already, and `orElse` is given, show that instead. */
  choose(layer, orElse = null) {
    const wanted = this.layer === layer && orElse !== null ? orElse : layer;
    this.#tools.querySelector(`input[value=${wanted}]`).checked = true;
    this.#arrange();
  }

  /** The original, or back to the layer that was shown before it. */
  toggleOriginal() {
    this.choose("none", this.#lastLayer);
  }

  toggleBeside() {
    this.#beside.checked = !this.#beside.checked;
    this.#arrange();
  }

  toggleBoxes() {
    this.#boxes.checked = !this.#boxes.checked;
    this.#arrange();
  }

  /**
   * Point at a region.
   * @param {string} layer
   * @param {number} place in the list of the layer's regions
   */
  point(layer, place) {
    this.choose(layer);
    this.#boxes.checked = true;
    this.#arrange();
    for (const mark of this.#marks.children) mark.classList.remove("pointed");
    const mark = this.#marks.children[place];
    mark.classList.add("pointed");
    const { width, height } = this.#entry.record.image;
    const [x, y, w, h] = this.#entry.record.masks[layer].regions[place].box;
    if (this.zoom.magnified) this.zoom.centre((x + w / 2) / width, (y + h / 2) / height);
  }

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
    this.#notes.clear();
    say(this.#note, null);
    const size = entry?.record?.image;
    if (size !== undefined) this.zoom.reset(size.width, size.height);
  }

  async #showFile(file) {
    if (this.#source !== null) return;
    this.#source = file;
    this.#fileUrl = URL.createObjectURL(file);
    const generation = this.#generation;
    for (const picture of this.#pictures) picture.src = this.#fileUrl;
    try {
      await this.#pictures[0].decode();
    } catch {
      if (generation === this.#generation && this.#source === file) this.#add(NO_PICTURE);
    }
  }

  async #show(path) {
    if (typeof this.#source === "string") return;
    if (this.#source === null) {
      const { width, height } = this.#entry.record.image;
      this.zoom.reset(width, height);
    }
    await this.#replace(path);
  }

  async #replace(path) {
    this.#source = path;
    const generation = this.#generation;
    try {
      const url = await load(path);
      if (generation !== this.#generation || this.#source !== path) return;
      this.#notes.delete(NO_PICTURE);
      this.#tell();
      for (const picture of this.#pictures) picture.src = url;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      const title = `The picture cannot be shown. ${problem.title}: ${problem.detail}`;
      if (generation === this.#generation) this.#add(title);
    }
  }

  /** Load all pixels once they can be told apart. */
  #sharpen() {
    const image = this.#entry?.record?.image;
    if (!this.zoom.magnified || image === undefined || this.#entry.phase !== "succeeded") return;
    const path = renditionPath(this.#entry.id, LARGEST);
    if (Math.max(image.width, image.height) > SCREEN && this.#source !== path) this.#replace(path);
  }

  #overlay(record) {
    this.#withOverlays = true;
    this.#arrange();
    for (const overlay of this.#overlays) this.#loadOverlay(overlay, record);
  }

  async #loadOverlay(overlay, record) {
    const generation = this.#generation;
    const { layer } = overlay.dataset;
    try {
      const url = await load(overlayPath(record, layer));
      if (generation === this.#generation) overlay.src = url;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      const note = `The ${words.layer(layer)} layer cannot be shown. ${problem.title}: ${problem.detail}`;
      if (generation === this.#generation) this.#add(note);
    }
  }

  #onPicture(picture) {
    picture.hidden = false;
    if (this.#entry?.record) return; // its record has the size already
    this.zoom.reset(picture.naturalWidth, picture.naturalHeight);
  }

  #add(note) {
    this.#notes.add(note);
    this.#tell();
  }

  #tell() {
    say(this.#note, this.#notes.size === 0 ? null : [...this.#notes].join(" "));
  }

  #arrange() {
    const { layer } = this;
    if (layer !== "none") this.#lastLayer = layer;
    for (const overlay of this.#overlays) overlay.hidden = overlay.dataset.layer !== layer;
    this.#original.hidden = !this.#beside.checked;
    this.#panes.classList.toggle("beside", this.#beside.checked);
    this.#panes.style.setProperty("--opacity", `${this.#opacity.value}%`);
    this.#opacityValue.value = `${this.#opacity.value}\u00a0%`;
    this.#opacity.disabled = layer === "none";
    document.getElementById("legend-title").textContent = words.legend(layer);
    this.#mark(layer);
  }

  #mark(layer) {
    const record = this.#withOverlays ? this.#entry.record : null;
    const shown = record !== null && layer !== "none" && this.#boxes.checked;
    this.#marks.replaceChildren(...(shown ? marksOf(record, layer) : []));
  }
}

/**
 * Path of a heat map at full strength; the slider weakens it.
 * @param {object} record
 * @param {string} layer
 */
export function overlayPath(record, layer) {
  return `${record.masks[layer].overlay_url}?opacity=1`;
}

function marksOf({ image, masks }, layer) {
  return masks[layer].regions.map(({ box: [x, y, width, height] }, place) => {
    const mark = element("div", { className: "mark" }, element("span", {}, String(place + 1)));
    mark.style.setProperty("--x", x / image.width);
    mark.style.setProperty("--y", y / image.height);
    mark.style.setProperty("--w", width / image.width);
    mark.style.setProperty("--h", height / image.height);
    return mark;
  });
}
