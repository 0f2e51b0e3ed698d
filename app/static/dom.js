/** Making elements; data enters the page as text only. */

/**
 * @param {string} tag
 * @param {object} [properties] of the element, such as `className`
 * @param {...(Node | string)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/**
 * Show a text, or hide the element that has none.
 * @param {HTMLElement} target
 * @param {string?} text
 */
export function say(target, text) {
  target.hidden = text === null;
  target.textContent = text ?? "";
}

/**
 * Rows of a description list; rows without a value are left out.
 * @param {...[string, Node | string | null]} rows
 */
export function factRows(...rows) {
  return rows
    .filter(([, value]) => value !== null)
    .map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value)));
}

/**
 * Have a screen reader say something new.
 * @param {string} text
 */
export function announce(text) {
  const announcer = document.getElementById("announcer");
  if (announcer.textContent !== text) announcer.textContent = text;
}
