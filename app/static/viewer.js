/** The picture with its heat maps, one layer at a time. */

import { getPicture, picturePath } from "./api.js";
import { say } from "./dom.js";

const NO_PICTURE = "This browser cannot show this picture format; the layers are shown alone.";

/** Shows the picture of one task; what belongs to a former task is dropped first. */
export class Viewer {
  #task = null;
  #loading = new AbortController();
  #urls = [];
  #withOverlays = false;
  #notes = [];
  #root = document.getElementById("viewer");
  #stage = document.getElementById("stage");
  #picture = document.getElementById("picture");
  #overlays = [...this.#stage.querySelectorAll(".overlay")];
  #note = document.getElementById("viewer-note");
  #controls = document.getElementById("controls");
  #opacity = document.getElementById("opacity");
  #opacityValue = document.getElementById("opacity-value");

  constructor() {
    this.#controls.addEventListener("input", () => this.#arrange());
    this.#picture.addEventListener("load", () => {
      this.#picture.hidden = false;
      this.#size(this.#picture.naturalWidth, this.#picture.naturalHeight);
    });
    this.#arrange();
  }

  /** @param {import("./task.js").Task} task */
  render(task) {
    if (task !== this.#task) this.#start(task);
    const { phase, record, file } = task;
    const succeeded = phase === "succeeded";
    this.#root.hidden = !succeeded && (task.finished || file === null);
    this.#controls.hidden = !succeeded;
    if (!succeeded || this.#withOverlays) return;
    this.#withOverlays = true;
    this.#size(record.image.width, record.image.height);
    if (file === null) this.#load(this.#picture, picturePath(record.id), NO_PICTURE);
    for (const overlay of this.#overlays) {
      const { layer } = overlay.dataset;
      this.#load(overlay, record.masks[layer].overlay_url, `The ${layer} layer cannot be shown.`);
    }
  }

  #start(task) {
    this.#loading.abort();
    this.#loading = new AbortController();
    for (const url of this.#urls.splice(0)) URL.revokeObjectURL(url);
    for (const image of [this.#picture, ...this.#overlays]) {
      image.removeAttribute("src");
    }
    this.#picture.hidden = true;
    this.#withOverlays = false;
    this.#notes = [];
    say(this.#note, null);
    this.#task = task;
    if (task.file !== null) this.#put(this.#picture, task.file, NO_PICTURE, this.#loading.signal);
  }

  async #load(image, path, otherwise) {
    const { signal } = this.#loading;
    try {
      const blob = await getPicture(path, signal);
      await this.#put(image, blob, otherwise, signal);
    } catch (problem) {
      if (!signal.aborted) this.#add(`${otherwise} ${problem.title}: ${problem.detail}`);
    }
  }

  async #put(image, blob, otherwise, signal) {
    const url = URL.createObjectURL(blob);
    this.#urls.push(url);
    image.src = url;
    try {
      await image.decode();
    } catch {
      if (!signal.aborted) this.#add(otherwise);
    }
  }

  #add(note) {
    this.#notes.push(note);
    say(this.#note, this.#notes.join(" "));
  }

  #size(width, height) {
    this.#stage.style.setProperty("--width", width);
    this.#stage.style.setProperty("--ratio", width / height);
  }

  #arrange() {
    const chosen = this.#controls.querySelector("input[name=layer]:checked").value;
    for (const overlay of this.#overlays) overlay.hidden = overlay.dataset.layer !== chosen;
    this.#stage.style.setProperty("--opacity", `${this.#opacity.value}%`);
    this.#opacityValue.value = `${this.#opacity.value}\u00a0%`;
    this.#opacity.disabled = chosen === "none";
  }
}
