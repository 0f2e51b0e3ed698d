/** Single-key shortcuts, which the user can switch off. */

import { byId, element } from "./dom.js";
import { recall, remember } from "./preferences.js";

const OFF = "shortcuts-off";
/** Beginning of the name under which a key of the user is remembered. */
export const OWN = "key-";

const TYPED_INTO = "input:not([type=radio], [type=checkbox], [type=range], [type=file]), select, textarea";

/**
 * `own`: name under which the user's own key is remembered, if there may be one; `repeats`: whether it
 * acts again and again while the key is held.
 * @typedef {{keys: string[], label: string, act: () => void, own?: string, repeats?: boolean}} Shortcut
 */

/** @type {Shortcut[]} */
const shortcuts = [];
const dialog = byId("help-dialog", HTMLDialogElement);
const toggle = byId("shortcuts", HTMLInputElement);

toggle.checked = recall(OFF) === null;
toggle.addEventListener("change", () => remember(OFF, toggle.checked ? null : "true"));
byId("open-help").addEventListener("click", () => dialog.showModal());
document.addEventListener("keydown", (event) => {
  const { target, altKey, ctrlKey, metaKey, defaultPrevented } = event;
  if (altKey || ctrlKey || metaKey || defaultPrevented) return;
  if (!toggle.checked && event.key !== "Escape") return; // which nobody types by accident
  if (isTypedInto(target) || document.querySelector("dialog[open]") !== null) return;
  const shortcut = find(name(event)) ?? find(digit(event));
  if (shortcut === undefined) return;
  event.preventDefault();
  if (shortcut.repeats || !event.repeat) shortcut.act();
});

/**
 * Add shortcuts.
 * @param {Shortcut[]} added
 * @param {(shortcut: Shortcut) => HTMLElement[]} keys shows the keys of a shortcut
 */
export function listen(added, keys = keyCaps) {
  shortcuts.push(...added);
  byId("help-keys").append(...added.map((shortcut) => helpRow(shortcut, keys(shortcut))));
}

/**
 * The keys of a shortcut: the user's own, or else those it came with.
 * @param {Shortcut} shortcut
 */
export function keysOf({ keys, own }) {
  const chosen = own === undefined ? null : recall(OWN + own);
  return chosen === null ? keys : [chosen];
}

/**
 * Whether text is typed into an element.
 * @param {EventTarget?} target
 */
export function isTypedInto(target) {
  return target instanceof Element && target.matches(TYPED_INTO);
}

/**
 * The shortcut of a key.
 * @param {string} key
 */
export function find(key) {
  return shortcuts.find((shortcut) => keysOf(shortcut).includes(key));
}

/**
 * The name of the key in shortcuts: in other scripts, the Latin letter at the same position.
 * @param {KeyboardEvent} event
 */
export function name({ key, code }) {
  if (key.length > 1) return key;
  const isLatin = /[\p{ASCII}\p{Script=Latin}]/u.test(key);
  const place = isLatin ? null : /^Key([A-Z])$/.exec(code);
  return (place === null ? key : place[1]).toLowerCase();
}

/**
 * The digit on the key, also where it needs Shift; none on a number pad without Num Lock.
 * @param {KeyboardEvent} event
 */
export function digit({ key, code }) {
  return (key.length === 1 && /^(?:Digit|Numpad)(\d)$/.exec(code)?.[1]) || "";
}

/**
 * @param {Shortcut} shortcut
 * @param {HTMLElement[]} keys
 */
function helpRow({ label }, keys) {
  return element("div", {}, element("dt", {}, label), element("dd", {}, ...keys));
}

/** @param {Shortcut} shortcut */
export function keyCaps({ keys }) {
  return keys.map((key) => element("kbd", {}, shown(key)));
}

/**
 * The name of a key, to be shown.
 * @param {string} key
 */
export function shown(key) {
  return key.length === 1 ? key.toUpperCase() : key;
}
