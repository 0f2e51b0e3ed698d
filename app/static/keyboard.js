/** Single-key shortcuts, which the user can switch off; some have a key of the user's choice. */

import { byId, element, say } from "./dom.js";
import { recall, remember } from "./preferences.js";

const OFF = "shortcuts-off";
const OWN = "key-"; // before the name of an action

const TYPED_INTO = "input:not([type=radio], [type=checkbox], [type=range], [type=file]), select, textarea";

/**
 * `own`: name under which the user's own key is remembered, if there may be one.
 * @typedef {{keys: string[], label: string, act: () => void, own?: string}} Shortcut
 */

/** @type {Shortcut[]} */
const shortcuts = [];
const dialog = byId("help-dialog", HTMLDialogElement);
const toggle = byId("shortcuts", HTMLInputElement);
const note = byId("help-note");

toggle.checked = recall(OFF) === null;
toggle.addEventListener("change", () => remember(OFF, toggle.checked ? null : "true"));
byId("open-help").addEventListener("click", () => {
  say(note, null);
  dialog.showModal();
});
document.addEventListener("keydown", (event) => {
  const { target, altKey, ctrlKey, metaKey, defaultPrevented } = event;
  if (altKey || ctrlKey || metaKey || defaultPrevented) return;
  if (!toggle.checked && event.key !== "Escape") return; // which nobody types by accident
  if (isTypedInto(target) || document.querySelector("dialog[open]") !== null) return;
  const shortcut = find(name(event)) ?? find(digit(event));
  if (shortcut === undefined) return;
  event.preventDefault();
  shortcut.act();
});

/**
 * Add shortcuts.
 * @param {Shortcut[]} added
 */
export function listen(added) {
  shortcuts.push(...added);
  byId("help-keys").append(...added.map(helpRow));
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

/** @param {string} key */
function find(key) {
  return shortcuts.find((shortcut) => keysOf(shortcut).includes(key));
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

/**
 * The digit on the key, also where it needs Shift.
 * @param {KeyboardEvent} event
 */
function digit({ code }) {
  return /^(?:Digit|Numpad)(\d)$/.exec(code)?.[1] ?? "";
}

/** @param {Shortcut} shortcut */
function helpRow(shortcut) {
  const keys = shortcut.own === undefined ? shortcut.keys.map(keyCap) : [ownKey(shortcut, shortcut.own)];
  return element("div", {}, element("dt", {}, shortcut.label), element("dd", {}, ...keys));
}

/** @param {string} key */
function keyCap(key) {
  return element("kbd", {}, shown(key));
}

/**
 * A field that takes the next key that is pressed in it.
 * @param {Shortcut} shortcut
 * @param {string} own
 */
function ownKey(shortcut, own) {
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
  return field;
}

/** @param {string} key */
function shown(key) {
  return key.length === 1 ? key.toUpperCase() : key;
}
