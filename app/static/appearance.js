/** Settings of how pictures are shown: the list as a grid, and blurred until the user asks. */

import { byId } from "./dom.js";
import { recall, remember } from "./preferences.js";

const SETTINGS = ["grid", "blur"]; // ids of the checkboxes; preferences; with "as-", classes of the body
const viewer = byId("viewer");

/** Follow the checkboxes, and begin as the user left them. */
export function followSettings() {
  for (const name of SETTINGS) {
    const box = byId(name, HTMLInputElement);
    const apply = () => document.body.classList.toggle(`as-${name}`, box.checked);
    box.checked = recall(name) !== null;
    box.addEventListener("change", () => {
      remember(name, box.checked ? "true" : null);
      apply();
    });
    apply();
  }
  byId("reveal").addEventListener("click", reveal);
}

/** Show the open picture although pictures are blurred. */
export function reveal() {
  viewer.classList.add("revealed");
}

/** Blur again, for the next picture. */
export function conceal() {
  viewer.classList.remove("revealed");
}
