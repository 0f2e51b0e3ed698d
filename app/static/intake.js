/** How pictures come in: chosen, dropped anywhere on the page, or pasted. */

import { say } from "./dom.js";
import { TYPED_INTO } from "./keyboard.js";

// Browsers do not know the types of all that the service takes.
const PICTURE = /^image\/|\.(heic|heif|avif|tiff?)$/i;

/**
 * @param {(files: File[]) => void} onPictures called with the files of each choice, drop or paste
 */
export function takePictures(onPictures) {
  const chooser = document.getElementById("file");
  const note = document.getElementById("intake-note");
  const hint = document.getElementById("drop-hint");
  let depth = 0; // elements that the dragged files are over, from the window inwards

  const take = (files, otherwise) => {
    say(note, files.length === 0 ? otherwise : null);
    if (files.length > 0) onPictures(files);
  };

  chooser.addEventListener("change", () => {
    const files = [...chooser.files];
    chooser.value = ""; // so that the same file can be chosen again
    if (files.length > 0) take(files);
  });

  document.addEventListener("paste", (event) => {
    const { files, types } = event.clipboardData;
    if (event.target.matches(TYPED_INTO) && types.includes("text/plain")) return; // for the field
    take([...files], "The clipboard holds no picture.");
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
    const files = await filesOf(event.dataTransfer.items);
    take(files, "That was no picture file. Save the picture first, then drop it.");
  });
}

function holdsFiles(event) {
  return event.dataTransfer.types.includes("Files");
}

/** What was dropped: files as they are, and the pictures in folders. */
async function filesOf(items) {
  const found = [...items].map((item) => {
    const entry = item.webkitGetAsEntry();
    return entry?.isDirectory ? picturesIn(entry) : item.getAsFile();
  });
  return (await Promise.all(found)).flat().filter((file) => file !== null);
}

async function picturesIn(folder) {
  const reader = folder.createReader();
  const read = () => new Promise((resolve, reject) => reader.readEntries(resolve, reject));
  const found = [];
  for (let some = await read(); some.length > 0; some = await read()) {
    found.push(...some.map((entry) => (entry.isDirectory ? picturesIn(entry) : fileOf(entry))));
  }
  const files = (await Promise.all(found)).flat();
  return files.filter(({ type, name }) => PICTURE.test(type) || PICTURE.test(name));
}

function fileOf(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}
