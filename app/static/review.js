/** Which entries the list shows, and in which order. Nothing here touches the DOM. */

const verdictIs = (verdict) => (entry) => entry.phase === "succeeded" && entry.record.verdict === verdict;

/** Filters by name: their label, and whether they let an entry through. */
export const FILTERS = {
  all: { label: "All", passes: () => true },
  ai_generated: { label: "Signs of AI", passes: verdictIs("ai_generated") },
  uncertain: { label: "Uncertain", passes: verdictIs("uncertain") },
  authentic: { label: "No sign of AI", passes: verdictIs("authentic") },
  manipulated: {
    label: "Manipulated",
    passes: (entry) => entry.phase === "succeeded" && entry.record.manipulated,
  },
  pending: { label: "In progress", passes: (entry) => !entry.finished },
  unresolved: {
    label: "No result",
    passes: (entry) => entry.finished && entry.phase !== "succeeded",
  },
};

const newestFirst = (one, other) => other.added - one.added;
const byScore = (sign) => (one, other) => {
  const [a, b] = [score(one), score(other)];
  if (a === null || b === null) return (a === null) - (b === null) || newestFirst(one, other);
  return sign * (a - b) || newestFirst(one, other);
};

/** Orders by name: their label, and how they compare two entries. */
export const ORDERS = {
  arrival: { label: "By arrival", compare: (one, other) => newestFirst(other, one) },
  newest: { label: "Newest first", compare: newestFirst },
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
 * @param {Iterable<import("./library.js").Entry>} entries
 * @param {{filter: string, order: string, text: string}} view `text`: part of a name or an id
 * @returns {import("./library.js").Entry[]}
 */
export function arrange(entries, { filter, order, text }) {
  const { passes } = FILTERS[filter];
  const part = text.trim().toLowerCase();
  return [...entries]
    .filter((entry) => passes(entry) && (part === "" || holds(entry, part)))
    .sort(ORDERS[order].compare);
}

/**
 * How many entries each filter lets through.
 * @param {Iterable<import("./library.js").Entry>} entries
 * @returns {Object<string, number>}
 */
export function count(entries) {
  const counts = Object.fromEntries(Object.keys(FILTERS).map((name) => [name, 0]));
  for (const entry of entries) {
    for (const [name, { passes }] of Object.entries(FILTERS)) if (passes(entry)) counts[name] += 1;
  }
  return counts;
}

function score(entry) {
  return entry.record?.ai_probability ?? null;
}

function byArea(one, other) {
  const area = (entry) => entry.record?.masks?.manipulation.area_fraction ?? -1;
  return area(other) - area(one) || newestFirst(one, other);
}

function holds(entry, part) {
  return entry.name.toLowerCase().includes(part) || entry.id?.startsWith(part);
}
