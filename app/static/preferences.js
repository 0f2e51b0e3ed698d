/** Choices of the user that outlive the tab. */

const PREFIX = "gamma-";

/**
 * @param {string} name
 * @returns {string?} what was chosen last
 */
export function recall(name) {
  return localStorage.getItem(PREFIX + name);
}

/**
 * @param {string} name
 * @param {string?} value null: the default again
 */
export function remember(name, value) {
  if (value === null) localStorage.removeItem(PREFIX + name);
  else localStorage.setItem(PREFIX + name, value);
}
