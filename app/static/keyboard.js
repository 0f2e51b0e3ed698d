/** Single keys that do things, where nothing else wants them; they can be switched off. */

import { element } from "./dom.js";

const OFF = "gamma-shortcuts-off"; // a preference, so it outlives the tab

/** Selector of what text is typed into. */
export const TYPED_INTO = "input:not([type=radio], [type=checkbox], [type=range], [type=file]), select, textarea";

/**
 * @param {{keys: string[], label: string, act: () => void}[]} shortcuts
 */
export function listen(shortcuts) {
  const byKey = new Map(shortcuts.flatMap(({ keys, act }) => keys.map((key) => [key, act])));
  const dialog = document.getElementById("help-dialog");
  const toggle = document.getElementById("shortcuts");
  toggle.checked = localStorage.getItem(OFF) === null;
  toggle.addEventListener("change", () => {
    if (toggle.checked) localStorage.removeItem(OFF);
    else localStorage.setItem(OFF, "true");
  });
  document.getElementById("help-keys").append(...shortcuts.map(helpRow));
  document.getElementById("open-help").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    const { target, altKey, ctrlKey, metaKey, defaultPrevented } = event;
    if (!toggle.checked || altKey || ctrlKey || metaKey || defaultPrevented) return;
    if (target.matches(TYPED_INTO) || document.querySelector("dialog[open]") !== null) return;
    const act = byKey.get(name(event));
    if (act === undefined) return;
    event.preventDefault();
    act();
  });
}

/** The key as shortcuts name it: where another script is typed, the Latin letter of its place. */
function name({ key, code }) {
  if (key.length > 1) return key;
  const isLatin = /[\p{ASCII}\p{Script=Latin}]/u.test(key);
  const place = isLatin ? null : /^Key([A-Z])$/.exec(code);
  return (place === null ? key : place[1]).toLowerCase();
}

function helpRow({ keys, label }) {
  const named = keys.map((key) => element("kbd", {}, key.length === 1 ? key.toUpperCase() : key));
  return element("div", {}, element("dt", {}, label), element("dd", {}, ...named));
}
