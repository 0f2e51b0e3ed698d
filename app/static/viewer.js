/** The picture with its heat maps, one layer at a time, and the original beside it. */

import { overlayPath, renditionPath } from "./api.js";
import { element, say } from "./dom.js";
import { load } from "./pictures.js";
import { Problem } from "./problem.js";
import * as words from "./words.js";
import { Zoom } from "./zoom.js";

const SCREEN = 2048; // pixels, longest side; enough while the whole picture is shown
const LARGEST = 8192; // pixels, longest side; when single pixels matter
const PATIENCE = 3000; // ms until what could not be loaded is asked for again
const PICTURE = "the picture"; // in notes
const NO_PICTURE = "This browser cannot show its format; the service will.";
const LAYERS = ["ai", "manipulation"];

/** Shows the picture of one entry; what belongs to a former entry is dropped first. */
export class Viewer {
  #entry = null;
  #generation = 0; // grows with each entry, so that what comes too late is known
  #source = null; // file or path that the picture is shown from
  #withOverlays = false;
  #fileUrl = null;
  #missing = new Map(); // what is not shown → why
  #preferred = "ai"; // layer that the user chose last
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
    this.#tools.addEventListener("input", ({ target }) => {
      if (LAYERS.includes(target.value)) this.#preferred = target.value;
      this.#arrange();
    });
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
    this.#tools.hidden = this.#reading.hidden = !succeeded || record.masks === null;
    if (this.#root.hidden) return;
    if (id !== null && record !== null) this.#show(renditionPath(id, SCREEN));
    else if (file !== null) this.#showFile(file);
    if (succeeded && record.masks !== null && !this.#withOverlays) this.#overlay(record);
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
    const { record } = entry;
    const paths = record.masks === null ? [] : LAYERS.map((layer) => heatMapPath(record, layer));
    for (const path of [...paths, renditionPath(entry.id, SCREEN)]) {
      load(path).catch((problem) => {
        if (!(problem instanceof Problem)) throw problem; // it is told when the entry is opened
      });
    }
  }

  /** Show a layer; if it is shown already, and `orElse` is given, show that instead. */
  choose(layer, orElse = null) {
    const wanted = this.layer === layer && orElse !== null ? orElse : layer;
    if (LAYERS.includes(wanted)) this.#preferred = wanted;
    this.#check(wanted);
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
    this.#marks.children[place]?.classList.add("pointed"); // there are none without a picture
    this.#marks.closest(".pane").scrollIntoView({ block: "nearest" });
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
    this.#missing.clear();
    this.#tell();
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
      if (generation === this.#generation && this.#source === file) this.#miss(PICTURE, NO_PICTURE);
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

  async #replace(path, what = PICTURE) {
    this.#source = path;
    const url = await this.#load(path, what, () => this.#source === path);
    if (url === null) return;
    for (const picture of this.#pictures) picture.src = url;
  }

  /**
   * Load something, again and again while that may help; null once it helps no more, or once the
   * entry is left or what was wanted is something else.
   */
  async #load(path, what, isWanted = () => true) {
    const generation = this.#generation;
    const isCurrent = () => generation === this.#generation && isWanted();
    while (isCurrent()) {
      try {
        const url = await load(path);
        if (!isCurrent()) return null;
        this.#missing.delete(what);
        this.#tell();
        return url;
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        if (!isCurrent()) return null;
        const { title, detail, temporary } = problem;
        this.#miss(what, `${title}. ${detail}${temporary ? " Trying again." : ""}`);
        if (!temporary) return null;
        await new Promise((resolve) => setTimeout(resolve, PATIENCE));
      }
    }
    return null;
  }

  /** Load all pixels once they can be told apart. */
  #sharpen() {
    const image = this.#entry?.record?.image;
    if (!this.zoom.magnified || image === undefined || this.#entry.phase !== "succeeded") return;
    const path = renditionPath(this.#entry.id, LARGEST);
    if (Math.max(image.width, image.height) > SCREEN && this.#source !== path) {
      this.#replace(path, "the picture's finest detail");
    }
  }

  #overlay(record) {
    this.#withOverlays = true;
    this.#offer(record);
    this.#arrange();
    for (const overlay of this.#overlays) this.#loadOverlay(overlay, record);
  }

  /** Say how many regions each layer has, and begin with the preferred one unless it has none. */
  #offer({ masks }) {
    const count = (layer) => masks[layer].regions.length;
    for (const layer of LAYERS) {
      this.#input(layer).nextElementSibling.dataset.count = count(layer);
      this.#input(layer).parentElement.title = words.counted(count(layer), "region");
    }
    if (this.layer === "none") return;
    const other = LAYERS.find((layer) => layer !== this.#preferred);
    const begin = count(this.#preferred) === 0 && count(other) > 0 ? other : this.#preferred;
    this.#check(begin);
  }

  #input(layer) {
    return this.#tools.querySelector(`input[value=${layer}]`);
  }

  #check(layer) {
    this.#input(layer).checked = true;
  }

  async #loadOverlay(overlay, record) {
    const { layer } = overlay.dataset;
    const url = await this.#load(heatMapPath(record, layer), `the ${words.layer(layer)} layer`);
    if (url !== null) overlay.src = url;
  }

  #onPicture(picture) {
    picture.hidden = false;
    this.#arrange(); // the boxes were waiting for it
    if (this.#entry?.record) return; // its record has the size already
    this.zoom.reset(picture.naturalWidth, picture.naturalHeight);
  }

  #miss(what, why) {
    this.#missing.set(what, why);
    this.#tell();
  }

  /** Each reason once, and what it keeps from being shown. */
  #tell() {
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
    const beside = this.#beside.checked && isLayer; // two originals would be one too many
    this.#original.hidden = !beside;
    this.#panes.classList.toggle("beside", beside);
    this.zoom.align();
    this.#panes.style.setProperty("--opacity", `${this.#opacity.value}%`);
    this.#opacityValue.value = `${this.#opacity.value}\u00a0%`;
    this.#reading.classList.toggle("idle", !isLayer);
    document.getElementById("legend-title").textContent = words.legend(this.#lastLayer);
    this.#mark(layer);
  }

  #mark(layer) {
    const isPictured = this.#withOverlays && this.#pictures.every(({ hidden }) => !hidden);
    const shown = isPictured && layer !== "none" && this.#boxes.checked;
    this.#marks.replaceChildren(...(shown ? marksOf(this.#entry.record, layer) : []));
  }
}

/**
 * Path of a heat map at full strength; the slider weakens it.
 * @param {object} record
 * @param {string} layer
 */
function heatMapPath({ id }, layer) {
  return overlayPath(id, layer, "opacity=1");
}

function marksOf({ image, masks }, layer) {
  return masks[layer].regions.map(({ box: [x, y, width, height] }, place) => {
    const mark = element("div", { className: "mark" }, element("span", {}, String(place + 1)));
    mark.style.setProperty("--x", x / image.width);
    mark.style.setProperty("--y", y / image.height);
    mark.style.setProperty("--w", width / image.width);
    mark.style.setProperty("--h", height / image.height);
    const isTight = y < image.height * 0.1 && height < image.height * 0.3; // its number would cover it
    mark.classList.toggle("below", isTight);
    return mark;
  });
}
