/** Files that the user can save of a detection. */

/** @import { Layer } from "./api.js" */
/** @import { Result } from "./library.js" */

import { getPicture, maskPath, originalPath, overlayPath, reportPath } from "./api.js";
import { element } from "./dom.js";

/** @type {Record<string, string>} */
const SUFFIXES = { JPEG: "jpg", TIFF: "tif", HEIF: "heic" };
const REVOKE_AFTER = 60000; // ms; a browser may ask before it saves

/**
 * @typedef {object} Shown
 * @property {Result} record
 * @property {Layer} layer
 * @property {number} opacity 0 to 1
 *
 * @typedef {Shown & {stem: string}} Source `stem`: the picture's name without suffix
 *
 * @typedef {object} Savable
 * @property {string} label
 * @property {boolean} [ofMask] whether there must be masks
 * @property {(source: Source) => string} name of the file
 * @property {(source: Source) => Promise<Blob>} get
 */

/** @type {Savable[]} */
const SAVABLES = [
  {
    label: "Picture with layer",
    ofMask: true,
    name: ({ stem, layer }) => `${stem}-with-${layer}.png`,
    get: ({ record, layer, opacity }) =>
      getPicture(overlayPath(record.id, layer, `composite=true&opacity=${opacity}`)),
  },
  {
    label: "Layer alone",
    ofMask: true,
    name: ({ stem, layer }) => `${stem}-${layer}-layer.png`,
    get: ({ record, layer, opacity }) =>
      getPicture(overlayPath(record.id, layer, `opacity=${opacity}`)),
  },
  {
    label: "Mask",
    ofMask: true,
    name: ({ stem, layer }) => `${stem}-${layer}-mask.png`,
    get: ({ record, layer }) => getPicture(maskPath(record.id, layer)),
  },
  {
    label: "Report",
    name: ({ stem }) => `${stem}-report.html`,
    get: ({ record }) => getPicture(reportPath(record.id)),
  },
  {
    label: "Record",
    name: ({ stem }) => `${stem}-record.json`,
    get: async ({ record }) =>
      new Blob([`${JSON.stringify(record, null, 2)}\n`], { type: "application/json" }),
  },
  {
    label: "Original",
    name: ({ stem, record: { image } }) =>
      `${stem}.${SUFFIXES[image.format] ?? image.format.toLowerCase()}`,
    get: ({ record }) => getPicture(originalPath(record.id)),
  },
];

/**
 * What can be saved of a detection.
 * @param {Result} record
 */
export function savables({ masks }) {
  return SAVABLES.filter(({ ofMask }) => masks !== null || !ofMask);
}

/**
 * Let the browser save one of them.
 * @param {Savable} savable
 * @param {Shown & {name: string}} detection `name`: of the picture
 * @throws {import("./problem.js").Problem}
 */
export async function save(savable, { name, ...shown }) {
  const detection = { ...shown, stem: name.replace(/\.[A-Za-z0-9]{1,5}$/, "") };
  offer(await savable.get(detection), savable.name(detection));
}

/**
 * Let the browser save a file.
 * @param {Blob} file
 * @param {string} name
 */
export function offer(file, name) {
  const href = URL.createObjectURL(file);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), REVOKE_AFTER);
}
