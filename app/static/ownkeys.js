/** Keys of the user's own choice. */

/** @import { Shortcut } from "./keyboard.js" */

import { byId, element, say } from "./dom.js";
import { OWN, digit, find, keyCaps, keysOf, name, shown } from "./keyboard.js";
import { remember } from "./preferences.js";

const note = byId("help-note");

/**
 * The keys of a shortcut: a field that takes the next key that is pressed in it, if there may be an
 * own one.
 * @param {Shortcut} shortcut
 * @returns {HTMLElement[]}
 */
export function keyField(shortcut) {
  const { own } = shortcut;
  if (own === undefined) return keyCaps(shortcut);
  const value = shown(keysOf(shortcut)[0]);
  const field = element("input", { className: "key", value, autocomplete: "off" });
  field.ariaLabel = `Key for: ${shortcut.label}`;
  field.addEventListener("focus", () => field.select());
  field.addEventListener("keydown", (event) => {
    const { key, altKey, ctrlKey, metaKey } = event;
    if (key.length > 1 || altKey || ctrlKey || metaKey) return;
    event.preventDefault();
    const chosen = find(digit(event)) === shortcut ? digit(event) : name(event);
    const other = find(chosen);
    if (chosen === " ") say(note, "The space bar is needed for buttons.");
    else if (other !== undefined && other !== shortcut) say(note, `${shown(chosen)} is taken: ${other.label}.`);
    else {
      remember(OWN + own, chosen === shortcut.keys[0] ? null : chosen);
      field.value = shown(chosen);
      say(note, null);
      document.dispatchEvent(new Event("keyschange"));
    }
  });
  field.addEventListener("input", () => {
    field.value = shown(keysOf(shortcut)[0]);
  });
  field.addEventListener("blur", () => say(note, null));
  return [field];
}
