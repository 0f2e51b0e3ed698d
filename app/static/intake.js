/** Takes pictures that are chosen, dropped anywhere on the page, or pasted. */

import { byId, say } from "./dom.js";
import { isTypedInto } from "./keyboard.js";

// Browsers do not know the types of all formats that the service accepts.
const PICTURE = /^image\/|\.(heic|heif|avif|tiff?)$/i;

/**
 * @param {(files: File[]) => void} onPictures called with the files of each choice, drop or paste
 */
export function takePictures(onPictures) {
  const chooser = byId("file", HTMLInputElement);
  const note = byId("intake-note");
  const hint = byId("drop-hint");
  let depth = 0; // number of elements under the dragged files

  /** @type {(files: File[], otherwise?: string) => void} */
  const take = (files, otherwise = "") => {
    say(note, files.length === 0 ? otherwise : null);
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
    take([...files], "There is no picture in the clipboard.");
  });

  window.addEventListener("dragenter", (event) => {
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
    const files = await filesOf(event.dataTransfer?.items ?? []);
    take(files, "This is not a picture file. Save the picture first, then drop the file.");
  });
}

/** @param {DragEvent} event */
function holdsFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}

/**
 * The dropped files, and the pictures in dropped folders.
 * @param {Iterable<DataTransferItem>} items
 */
async function filesOf(items) {
  const found = [...items].map((item) => {
    const entry = item.webkitGetAsEntry();
    return isFolder(entry) ? picturesIn(entry) : item.getAsFile();
  });
  return (await Promise.all(found)).flat().filter((file) => file !== null);
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
 * @returns {Promise<File[]>}
 */
async function picturesIn(folder) {
  const reader = folder.createReader();
  /** @type {() => Promise<FileSystemEntry[]>} */
  const read = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  /** @type {Promise<File | File[]>[]} */
  const found = [];
  for (let some = await read(); some.length > 0; some = await read()) {
    found.push(...some.map((entry) => (isFolder(entry) ? picturesIn(entry) : fileOf(entry))));
  }
  const files = (await Promise.all(found)).flat();
  return files.filter(({ type, name }) => PICTURE.test(type) || PICTURE.test(name));
}

/**
 * @param {FileSystemEntry} entry no folder
 * @returns {Promise<File>}
 */
function fileOf(entry) {
  const ofFile = /** @type {FileSystemFileEntry} */ (entry);
  return new Promise((resolve, reject) => ofFile.file(resolve, reject));
}
