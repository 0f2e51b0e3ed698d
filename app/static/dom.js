/** Find and create elements. Data is inserted only as text. */

/**
 * An event target whose events carry a detail.
 * @template T
 * @typedef {Omit<EventTarget, "addEventListener"> & {
 *   addEventListener(type: string, listener: (event: CustomEvent<T>) => void): void,
 * }} Emitter
 */

/**
 * An element of the page.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [type]
 * @returns {T}
 */
export function byId(id, type) {
  return checked(document.getElementById(id), type);
}

/**
 * The first element within another that a selector matches.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} [type]
 * @returns {T}
 */
export function within(root, selector, type) {
  return checked(root.querySelector(selector), type);
}

/**
 * All elements within another that a selector matches.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} [type]
 * @returns {T[]}
 */
export function all(root, selector, type) {
  return [...root.querySelectorAll(selector)].map((found) => checked(found, type));
}

/**
 * @template {HTMLElement} T
 * @param {Element?} found
 * @param {new () => T} [type]
 * @returns {T}
 */
function checked(found, type) {
  if (!(found instanceof (type ?? HTMLElement))) throw new TypeError("The page lacks an element");
  return /** @type {T} */ (found);
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Partial<HTMLElementTagNameMap[K]>} [properties] of the element, such as `className`
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/**
 * Set the text of an element; hide it without a text.
 * @param {HTMLElement} target
 * @param {string?} text
 */
export function say(target, text) {
  target.hidden = text === null;
  target.textContent = text ?? "";
}

/** @typedef {[string, Node | string | null]} FactRow term and value */

/**
 * Rows of a description list; rows without a value are left out.
 * @param {...FactRow} rows
 */
export function factRows(...rows) {
  return rows.flatMap(([term, value]) =>
    value === null
      ? []
      : [element("div", {}, element("dt", {}, term), element("dd", {}, value))],
  );
}

/**
 * Announce a text to screen readers.
 * @param {string} text
 */
export function announce(text) {
  const announcer = byId("announcer");
  if (announcer.textContent !== text) announcer.textContent = text;
}
