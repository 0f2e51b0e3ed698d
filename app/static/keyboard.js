/** Single-key shortcuts, which the user can switch off. */

import { byId, element } from "./dom.js";
import { recall, remember } from "./preferences.js";

const OFF = "shortcuts-off";

const TYPED_INTO = "input:not([type=radio], [type=checkbox], [type=range], [type=file]), select, textarea";

/**
 * @typedef {{keys: string[], label: string, act: () => void}} Shortcut
 * @param {Shortcut[]} shortcuts
 */
export function listen(shortcuts) {
  const byKey = new Map(shortcuts.flatMap(({ keys, act }) => keys.map((key) => [key, act])));
  const dialog = byId("help-dialog", HTMLDialogElement);
  const toggle = byId("shortcuts", HTMLInputElement);
  toggle.checked = recall(OFF) === null;
  toggle.addEventListener("change", () => remember(OFF, toggle.checked ? null : "true"));
  byId("help-keys").append(...shortcuts.map(helpRow));
  byId("open-help").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    const { target, altKey, ctrlKey, metaKey, defaultPrevented } = event;
    if (altKey || ctrlKey || metaKey || defaultPrevented) return;
    if (!toggle.checked && event.key !== "Escape") return; // which nobody types by accident
    if (isTypedInto(target) || document.querySelector("dialog[open]") !== null) return;
    const act = byKey.get(name(event));
    if (act === undefined) return;
    event.preventDefault();
    act();
  });
}

/**
 * Whether text is typed into an element.
 * @param {EventTarget?} target
 */
export function isTypedInto(target) {
  return target instanceof Element && target.matches(TYPED_INTO);
}

/**
 * The name of the key in shortcuts: in other scripts, the Latin letter at the same position.
 * @param {KeyboardEvent} event
 */
function name({ key, code }) {
  if (key.length > 1) return key;
  const isLatin = /[\p{ASCII}\p{Script=Latin}]/u.test(key);
  const place = isLatin ? null : /^Key([A-Z])$/.exec(code);
  return (place === null ? key : place[1]).toLowerCase();
}

/** @param {Shortcut} shortcut */
function helpRow({ keys, label }) {
  const named = keys.map((key) => element("kbd", {}, key.length === 1 ? key.toUpperCase() : key));
  return element("div", {}, element("dt", {}, label), element("dd", {}, ...named));
}
