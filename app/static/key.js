/** The caller's API key: requested when the service needs one, stored for this tab only. */

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

/** Return whether the service needs a key and the user has entered none. */
export function keyIsMissing() {
  return declined && currentKey() === null;
}

/**
 * Ask for another key after a refusal; all requests share one dialog.
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

/** Ask even if the user declined before. */
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
