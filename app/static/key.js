/** The caller's API key: asked for when the service wants one, kept for this tab alone. */

import { byId, within } from "./dom.js";

const STORED = "gamma-api-key";

const dialog = byId("key-dialog", HTMLDialogElement);
const field = byId("key", HTMLInputElement);
const note = byId("key-note");

/** @type {Promise<boolean>?} */
let asking = null;
let declined = false;

/** Dispatches `change` when a key is entered or declined. */
export const keyEvents = new EventTarget();

/** @returns {string?} */
export function currentKey() {
  return sessionStorage.getItem(STORED);
}

/** Whether the service wants a key and the user has given none. */
export function keyIsMissing() {
  return declined && currentKey() === null;
}

/**
 * Ask for another key than the one that the service did not take; one dialog for all who ask.
 * @param {string?} refused
 * @returns {Promise<boolean>} whether there is another key now
 */
export async function askForKey(refused) {
  if (currentKey() !== refused) return true;
  if (declined) return false;
  asking ??= show(refused).finally(() => {
    asking = null;
  });
  return asking;
}

/** Ask although the user has declined before. */
export function askAgain() {
  declined = false;
  return askForKey(currentKey());
}

/** Drop the key. */
export function forgetKey() {
  sessionStorage.removeItem(STORED);
}

/**
 * @param {string?} refused
 * @returns {Promise<boolean>} whether a key was entered
 */
function show(refused) {
  field.value = "";
  note.hidden = refused === null;
  note.textContent = refused === null ? "" : "The service does not accept this key.";
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const given = dialog.returnValue === "use" ? field.value.trim() : "";
        field.value = "";
        declined = given === "";
        if (!declined) sessionStorage.setItem(STORED, given);
        else if (refused !== null) sessionStorage.removeItem(STORED);
        keyEvents.dispatchEvent(new Event("change"));
        resolve(!declined);
      },
      { once: true },
    );
  });
}

within(dialog, "form").addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close("use");
});
byId("key-later").addEventListener("click", () => dialog.close());
