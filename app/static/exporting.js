/** Export of detections with their decisions, from what the page has loaded. */

/** @import { Entry } from "./library.js" */

/** @type {[string, (entry: Entry) => unknown][]} name and value of each column */
const COLUMNS = [
  ["id", ({ id }) => id],
  ["name", ({ name }) => name],
  ["uploaded_at", ({ record }) => record?.created_at],
  ["status", ({ phase }) => phase],
  ["ai_probability", ({ record }) => record?.ai_probability],
  ["verdict", ({ record }) => record?.verdict],
  ["manipulated", ({ record }) => record?.manipulated],
  ["decision", ({ review }) => review?.decision],
  ["note", ({ review }) => review?.note],
  ["reviewer", ({ review }) => review?.reviewer],
  ["key", ({ review }) => review?.key],
  ["decided_at", ({ review }) => review?.created_at],
  ["sha256", ({ record }) => record?.image.sha256],
  ["model", ({ record }) => record?.model?.name],
  ["model_version", ({ record }) => record?.model?.version],
];

/** @typedef {"csv" | "json"} Format */

/**
 * A file with these entries.
 * @param {Entry[]} entries
 * @param {Format} format
 */
export function exported(entries, format) {
  const sent = entries.filter(({ record }) => record !== null);
  if (format === "csv") return new Blob(["\ufeff", asCsv(sent)], { type: "text/csv" }); // with its mark, spreadsheets read UTF-8
  const body = sent.map(({ record, review }) => ({ detection: record, review: review ?? null }));
  return new Blob([`${JSON.stringify(body, null, 2)}\n`], { type: "application/json" });
}

/** @param {Entry[]} entries */
function asCsv(entries) {
  const lines = [COLUMNS.map(([name]) => name), ...entries.map((entry) => COLUMNS.map(([, value]) => value(entry)))];
  return lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

/**
 * A value as RFC 4180 wants it; a text that a spreadsheet would take for a formula begins with '.
 * @param {unknown} value
 */
function cell(value) {
  const text = String(value ?? "");
  const harmless = typeof value === "string" && /^ *[=+\-@\t\r\n＝＋－＠]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}
