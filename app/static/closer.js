/** A magnifier, and views of the picture's own pixels that this browser computes. */

/** @import { Entry, Result } from "./library.js" */

import { getPicture, originalPath, renditionPath } from "./api.js";
import { byId, element, say } from "./dom.js";
import { Lens } from "./lens.js";
import { load } from "./pictures.js";
import { Problem } from "./problem.js";
import { exactPath } from "./viewer.js";

const LARGEST = 8192; // pixels, longest side, of what the service renders

/** @type {Record<string, {label: string, limits: string}>} */
const VIEWS = {
  error: {
    label: "Error level",
    limits:
      "Bright: differs when it is saved as a JPEG once more. Edges and texture are bright in genuine " +
      "pictures too, and a picture that was saved again as a whole shows nothing.",
  },
  noise: {
    label: "Noise residual",
    limits:
      "What is left when the picture is smoothed. Smooth, dark and strongly compressed parts have " +
      "little noise whether they are genuine or not, and generators can imitate noise.",
  },
  grid: {
    label: "JPEG grid",
    limits:
      "Grey: blocks of JPEG lie as in most of the picture; red: elsewhere; dark: none found. Single " +
      "red squares mean little. Nothing is seen after resizing, at high quality, or where a part was " +
      "pasted in line with the blocks.",
  },
};

const LENS = {
  label: "Magnifier",
  limits: "Point at the picture: it is shown without a layer, at four times its size.",
};
const REDUCED = "The picture was shrunk for this, so fine traces are lost.";
const RENDERED = "This browser cannot read the file or the frame, so a JPEG made by the service was used.";
const FAILED = "This view could not be computed.";

/** Shows one view of one entry. */
export class Closer {
  /** @type {Entry?} */ #entry = null;
  /** @type {Worker?} */ #worker = null;
  /** @type {Lens?} */ #lens = null;
  #choice = byId("closer", HTMLSelectElement);
  #note = byId("closer-note");
  #image = byId("closer-image", HTMLImageElement);

  constructor() {
    const options = Object.entries(VIEWS).map(([value, { label }]) => element("option", { value }, label));
    this.#choice.append(element("option", { value: "lens" }, LENS.label), ...options);
    this.#choice.addEventListener("change", () => this.#show());
    this.#choice.disabled = false; // there are choices from now on
  }

  /** @param {Entry?} entry */
  render(entry) {
    if (entry === this.#entry) return;
    this.#entry = entry;
    this.#choice.value = "";
    this.#clear();
  }

  #clear() {
    this.#lens?.close();
    this.#lens = null;
    this.#worker?.terminate();
    this.#worker = null;
    URL.revokeObjectURL(this.#image.src);
    this.#image.removeAttribute("src");
    this.#image.hidden = true;
    say(this.#note, null);
  }

  async #show() {
    this.#clear();
    const kind = this.#choice.value;
    const entry = this.#entry;
    if (kind === "" || entry === null) return;
    const { label, limits } = kind === "lens" ? LENS : VIEWS[kind];
    say(this.#note, `${label}: being prepared …`);
    const isCurrent = () => this.#entry === entry && this.#choice.value === kind;
    try {
      if (kind === "lens") {
        const record = /** @type {Result} */ (entry.result);
        const url = await load(exactPath(record));
        if (!isCurrent()) return;
        this.#lens = new Lens(byId("stage"), url, record.image);
        say(this.#note, limits);
        return;
      }
      const { image, notes } = await this.#compute(kind, entry, isCurrent);
      if (!isCurrent()) return;
      this.#image.src = URL.createObjectURL(image);
      this.#image.alt = label;
      this.#image.hidden = false;
      say(this.#note, [limits, ...notes].join(" "));
    } catch (problem) {
      if (!isCurrent()) return;
      const { title, detail } = problem instanceof Problem ? problem : { title: FAILED, detail: "" };
      say(this.#note, `${title} ${detail}`.trim());
    }
  }

  /**
   * @param {string} kind
   * @param {Entry} entry
   * @param {() => boolean} isCurrent whether the view is still wanted
   * @returns {Promise<{image: Blob, notes: string[]}>}
   */
  async #compute(kind, entry, isCurrent) {
    const record = /** @type {Result} */ (entry.result);
    if (record.frames === null) {
      const file = entry.file ?? (await getPicture(originalPath(record.id)));
      const made = await this.#ask(kind, file, isCurrent);
      if (made !== null) return { image: made.image, notes: made.reduced ? [REDUCED] : [] };
    }
    const rendered = await this.#ask(kind, await getPicture(renditionPath(record, LARGEST)), isCurrent);
    if (rendered === null) throw new Error(FAILED);
    return { image: rendered.image, notes: [RENDERED] };
  }

  /**
   * @param {string} kind
   * @param {Blob} file
   * @param {() => boolean} isCurrent
   * @returns {Promise<{image: Blob, reduced: boolean}?>} null if the browser cannot read the file
   */
  #ask(kind, file, isCurrent) {
    if (!isCurrent()) throw new Error(FAILED); // its answer would be taken for that of the next view
    this.#worker ??= new Worker(new URL("analysis.js", import.meta.url), { type: "module" });
    const worker = this.#worker;
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data.failed ? null : data);
      worker.onerror = () => reject(new Error(FAILED));
      worker.postMessage({ kind, file });
    });
  }
}
