/** Takes pictures that are chosen, dropped anywhere on the page, or pasted, and pasted links. */

import { announce, byId, say } from "./dom.js";
import { isTypedInto } from "./keyboard.js";

// Browsers do not know the types of all formats that the service accepts.
const PICTURE = /^image\/|\.(heic|heif|avif|tiff?)$/i;

const LINK = /^https?:\/\/\S+$/i;
const UNNAMED = /^image\.[a-z0-9]+$/i; // what browsers call a pasted screenshot
const NAMED = 3; // skipped files that are named
const collator = new Intl.Collator("en", { numeric: true });

/**
 * @param {(files: File[]) => void} onPictures called with the files of each choice, drop or paste;
 *     files of folders have their path as name
 * @param {(url: string) => void} onLink called with a pasted link
 */
export function takePictures(onPictures, onLink) {
  const chooser = byId("file", HTMLInputElement);
  const note = byId("intake-note");
  const hint = byId("drop-hint");
  let depth = 0; // number of elements under the dragged files

  /** @type {(files: File[], otherwise?: string, skipped?: string[]) => void} */
  const take = (files, otherwise = "", skipped = []) => {
    const text = skipped.length > 0 ? skippedText(skipped) : files.length === 0 ? otherwise : null;
    say(note, text);
    if (text !== null) announce(text);
    if (files.length > 0) onPictures(files);
  };

  chooser.addEventListener("change", () => {
    const files = [...(chooser.files ?? [])];
    chooser.value = ""; // so that the same file can be chosen again
    if (files.length > 0) take(files);
  });

  document.addEventListener("paste", (event) => {
    if (event.clipboardData === null) return;
    const { files, types } = event.clipboardData;
    if (isTypedInto(event.target) && types.includes("text/plain")) return; // for the field
    const text = event.clipboardData.getData("text/plain").trim();
    if (files.length === 0 && LINK.test(text)) onLink(text);
    else take([...files].map(withTime), "There is no picture in the clipboard.");
  });

  window.addEventListener("dragenter", (event) => {
    event.preventDefault();
    if (!holdsFiles(event)) return;
    depth += 1;
    hint.hidden = false;
  });
  window.addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    depth -= 1;
    hint.hidden = depth <= 0;
  });
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    hint.hidden = true;
    const { files, skipped } = await filesOf(event.dataTransfer?.items ?? []);
    take(files, "This is not a picture file. Save the picture first, then drop the file.", skipped);
  });
}

/** @param {DragEvent} event */
function holdsFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

/** @param {string[]} skipped */
function skippedText(skipped) {
  const named = skipped.slice(0, NAMED).join(", ");
  const more = skipped.length > NAMED ? `, and ${skipped.length - NAMED} more` : "";
  return `Skipped, not pictures: ${named}${more}.`;
}

/**
 * A pasted file; a screenshot is named after the time, because all have the same name.
 * @param {File} file
 * @param {number} place among the pasted files
 */
function withTime(file, place) {
  if (!UNNAMED.test(file.name)) return file;
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  const now = new Date();
  const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-");
  const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map(two).join(".");
  const number = place === 0 ? "" : ` (${place + 1})`;
  return renamed(file, `Pasted ${day} ${time}${number}.${file.name.split(".").at(-1)}`);
}

/**
 * @param {File} file
 * @param {string} name
 */
function renamed(file, name) {
  return new File([file], name, { type: file.type, lastModified: file.lastModified });
}

/**
 * The dropped files, and the pictures in dropped folders in the order of their paths.
 * @param {Iterable<DataTransferItem>} items
 * @returns {Promise<{files: File[], skipped: string[]}>} `skipped`: paths of other files in folders
 */
async function filesOf(items) {
  /** @type {string[]} */
  const skipped = [];
  const found = [...items].map((item) => {
    const entry = item.webkitGetAsEntry();
    return isFolder(entry) ? picturesIn(entry, skipped) : item.getAsFile();
  });
  const files = (await Promise.all(found)).flat().filter((file) => file !== null);
  return { files, skipped: skipped.sort(collator.compare) };
}

/**
 * @param {FileSystemEntry?} entry
 * @returns {entry is FileSystemDirectoryEntry}
 */
function isFolder(entry) {
  return entry?.isDirectory ?? false;
}

/**
 * @param {FileSystemDirectoryEntry} folder
 * @param {string[]} skipped gets the paths of what is no picture or cannot be read
 * @returns {Promise<File[]>}
 */
async function picturesIn(folder, skipped) {
  /** @type {File[]} */
  const files = [];
  const inside = async (/** @type {FileSystemEntry} */ entry) => {
    if (isFolder(entry)) {
      files.push(...(await picturesIn(entry, skipped)));
      return;
    }
    const path = entry.fullPath.replace(/^\//, "");
    const file = await fileOf(entry).catch(() => null);
    if (file !== null && (PICTURE.test(file.type) || PICTURE.test(file.name))) files.push(renamed(file, path));
    else if (!entry.name.startsWith(".")) skipped.push(path);
  };
  try {
    const reader = folder.createReader();
    /** @type {() => Promise<FileSystemEntry[]>} */
    const read = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    for (let some = await read(); some.length > 0; some = await read()) await Promise.all(some.map(inside));
  } catch {
    skipped.push(folder.fullPath.replace(/^\//, ""));
  }
  return files.sort((one, other) => collator.compare(one.name, other.name));
}

/**
 * @param {FileSystemEntry} entry no folder
 * @returns {Promise<File>}
 */
function fileOf(entry) {
  const ofFile = /** @type {FileSystemFileEntry} */ (entry);
  return new Promise((resolve, reject) => ofFile.file(resolve, reject));
}
