/** How pictures come in: chosen, dropped anywhere on the page, or pasted. */

import { say } from "./dom.js";

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
    if (event.target.matches("input:not([type=file])")) return; // text for the field
    take([...event.clipboardData.files], "The clipboard holds no picture.");
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
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    hint.hidden = true;
    take([...event.dataTransfer.files], "That was no file. Save the picture first, then drop it.");
  });
}

function holdsFiles(event) {
  return event.dataTransfer.types.includes("Files");
}
