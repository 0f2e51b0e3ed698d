/** Shows whatever the service tells of its model: facts as rows, groups and tables below them. */

import { element, factRows } from "./dom.js";

const DEEPEST = 6; // heading level
const SPELT = { ai: "AI", auc: "AUC", f1: "F1", iou: "IoU" };

/**
 * @param {object} facts answer of `GET /v1/model`
 * @returns {Node[]}
 */
export function renderCard({ notice, ...facts }) {
  const said = typeof notice === "string" ? [element("p", { className: "note" }, notice)] : [];
  return [...said, ...group(facts, 3)];
}

function group(facts, level) {
  const known = Object.entries(facts).filter(([, value]) => !isEmpty(value));
  const rows = known.filter(([, value]) => isShort(value));
  const rest = known.filter(([, value]) => !isShort(value));
  const made = [];
  if (rows.length > 0) {
    const terms = rows.map(([name, value]) => [heading(name), plain(value)]);
    made.push(element("dl", { className: "facts" }, ...factRows(...terms)));
  }
  for (const [name, value] of rest) {
    made.push(element(`h${level}`, {}, heading(name)), ...block(value, Math.min(level + 1, DEEPEST)));
  }
  return made;
}

function block(value, level) {
  if (typeof value === "string") {
    return value.split(/\n{2,}/).map((text) => element("p", { className: "prose" }, text));
  }
  if (!Array.isArray(value)) return group(value, level);
  if (value.every((item) => isObject(item))) return [table(value)];
  return [element("ul", {}, ...value.map((item) => element("li", {}, plain(item))))];
}

function table(items) {
  const columns = [...new Set(items.flatMap((item) => Object.keys(item)))];
  const head = columns.map((name) => element("th", { scope: "col" }, heading(name)));
  const rows = items.map((item) =>
    element("tr", {}, ...columns.map((name) => element("td", {}, plain(item[name] ?? "")))),
  );
  return element(
    "div",
    { className: "wide-table", tabIndex: 0 }, // it scrolls, and keys must reach it
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)),
  );
}

/** `ai_generated` → `Ai generated`, as far as a name that is not known yet can be read. */
function heading(name) {
  const text = name.replaceAll("_", " ").replace(/\b(ai|auc|f1|iou)\b/gi, (word) => SPELT[word.toLowerCase()]);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function plain(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (typeof value === "number") return value.toLocaleString("en", { maximumSignificantDigits: 4 });
  if (isObject(value) || Array.isArray(value)) return JSON.stringify(value);
  return String(value);
}

function isShort(value) {
  return typeof value !== "object" && !(typeof value === "string" && (value.length > 80 || value.includes("\n")));
}

function isEmpty(value) {
  return value === null || value === "" || (typeof value === "object" && Object.keys(value).length === 0);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
