/** How pictures come in: chosen, dropped anywhere on the page, or pasted. */

import { say } from "./dom.js";

/**
 * @param {(file: File) => void} onPicture called with each picture that comes in
 */
export function takePictures(onPicture) {
  const chooser = document.getElementById("file");
  const note = document.getElementById("intake-note");
  const hint = document.getElementById("drop-hint");
  let depth = 0; // elements that the dragged file is over, from the window inwards

  const take = (files, otherwise) => {
    if (files.length === 0) {
      say(note, otherwise);
      return;
    }
    say(note, files.length === 1 ? null : `Only the first of ${files.length} files was taken.`);
    onPicture(files[0]);
  };

  chooser.addEventListener("change", () => {
    const files = [...chooser.files];
    chooser.value = ""; // so that the same file can be chosen again
    if (files.length > 0) take(files);
  });

  document.addEventListener("paste", (event) => {
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
