/** The caller's API key: asked for when the service wants one, kept for this tab alone. */

const STORED = "gamma-api-key";

const dialog = document.getElementById("key-dialog");
const field = document.getElementById("key");
const note = document.getElementById("key-note");

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

function show(refused) {
  field.value = "";
  note.hidden = refused === null;
  note.textContent = refused === null ? "" : "The service does not accept the key it was given.";
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

dialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close("use");
});
document.getElementById("key-later").addEventListener("click", () => dialog.close());
