/** Which entries the list shows, and in which order. Nothing here touches the DOM. */

/** @import { Entry } from "./library.js" */

import { state } from "./words.js";

/** @typedef {(one: Entry, other: Entry) => number} Comparison */

/** @param {string} name */
const stateIs = (name) => (/** @type {Entry} */ { result }) => result !== null && state(result) === name;

/**
 * Filters by name: their label, and whether an entry passes.
 * @type {Record<string, {label: string, passes: (entry: Entry) => boolean}>}
 */
export const FILTERS = {
  all: { label: "All", passes: () => true },
  ai_generated: { label: "Signs of AI", passes: stateIs("ai_generated") },
  uncertain: { label: "Uncertain", passes: stateIs("uncertain") },
  contradicted: { label: "Low, but marked", passes: stateIs("contradicted") },
  authentic: { label: "No sign of AI", passes: stateIs("authentic") },
  manipulated: {
    label: "Manipulated",
    passes: (entry) => entry.result?.manipulated === true,
  },
  pending: { label: "In progress", passes: (entry) => !entry.finished },
  unresolved: {
    label: "No result",
    passes: (entry) => entry.finished && entry.result === null,
  },
};

/** @param {string} name */
const decided = (name) => (/** @type {Entry} */ { decision }) => decision === name;

/**
 * Filters by decision, by name: their label, and whether an entry passes.
 * @type {Record<string, {label: string, passes: (entry: Entry) => boolean}>}
 */
export const DECISIONS = {
  any: { label: "Any decision", passes: () => true },
  undecided: { label: "Undecided", passes: ({ undecided }) => undecided },
  mine: { label: "Assigned to me", passes: ({ mine }) => mine },
  genuine: { label: "Decided: genuine", passes: decided("genuine") },
  ai: { label: "Decided: AI-generated", passes: decided("ai") },
  manipulated: { label: "Decided: manipulated", passes: decided("manipulated") },
  unsure: { label: "Decided: unsure", passes: decided("unsure") },
  unsaved: { label: "Decision not saved", passes: ({ unsaved }) => unsaved !== null },
};

/** @type {Comparison} */
const newestFirst = (one, other) => other.added - one.added;
/** @type {(sign: number) => Comparison} */
const byScore = (sign) => (one, other) => {
  const [a, b] = [score(one), score(other)];
  if (a === null || b === null) return Number(a === null) - Number(b === null) || newestFirst(one, other);
  return sign * (a - b) || newestFirst(one, other);
};

/**
 * Orders by name: their label, and how they compare two entries.
 * @type {Record<string, {label: string, compare: Comparison}>}
 */
export const ORDERS = {
  newest: { label: "Newest first", compare: newestFirst },
  oldest: { label: "Oldest first", compare: (one, other) => newestFirst(other, one) },
  highest: { label: "Highest AI score first", compare: byScore(-1) },
  lowest: { label: "Lowest AI score first", compare: byScore(1) },
  changed: { label: "Most marked as changed", compare: byArea },
  name: {
    label: "Name",
    compare: (one, other) => collator.compare(one.name, other.name) || newestFirst(one, other),
  },
};

const collator = new Intl.Collator("en", { numeric: true });

/**
 * @param {Iterable<Entry>} entries
 * @param {{filter: string, decided: string, order: string, text: string}} view `text`: part of a name or an id
 * @returns {Entry[]}
 */
export function arrange(entries, { filter, decided, order, text }) {
  const { passes } = FILTERS[filter];
  const { passes: alsoPasses } = DECISIONS[decided];
  const part = text.trim().toLowerCase();
  return [...entries]
    .filter((entry) => passes(entry) && alsoPasses(entry) && (part === "" || holds(entry, part)))
    .sort(ORDERS[order].compare);
}

/**
 * How many entries pass each filter.
 * @param {Iterable<Entry>} entries
 * @returns {Object<string, number>}
 */
export function count(entries) {
  const counts = Object.fromEntries(Object.keys(FILTERS).map((name) => [name, 0]));
  for (const entry of entries) {
    for (const [name, { passes }] of Object.entries(FILTERS)) if (passes(entry)) counts[name] += 1;
  }
  return counts;
}

/** @param {Entry} entry */
function score(entry) {
  return entry.record?.ai_probability ?? null;
}

/** @type {Comparison} */
function byArea(one, other) {
  const area = (/** @type {Entry} */ entry) => entry.record?.masks?.manipulation.area_fraction ?? -1;
  return area(other) - area(one) || newestFirst(one, other);
}

/**
 * @param {Entry} entry
 * @param {string} part in lower case
 */
function holds(entry, part) {
  return entry.name.toLowerCase().includes(part) || (entry.id?.startsWith(part) ?? false);
}
