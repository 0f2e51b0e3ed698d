/** A detection and the decision about it as plain text, to paste elsewhere. */

/** @import { Entry } from "./library.js" */

import { OPINIONS } from "./decisions.js";
import { coverage, date, percent, verdict } from "./words.js";

/**
 * @param {Entry} entry
 * @param {string} address of its page
 */
export function asText(entry, address) {
  const { record, result, review, name } = entry;
  if (record === null) return name;
  const { image, model, created_at: uploaded, provenance } = record;
  /** @type {[string, string | null | undefined][]} */
  const lines = [
    ["Picture", name],
    ["AI score", result && `${percent(result.ai_probability)}: ${verdict(result)}`],
    ["Signs of AI from", result && percent(result.thresholds.ai_generated)],
    ["Manipulated", result?.masks && (result.manipulated ? "yes" : "no")],
    ["Examined", result && coverage(result)],
    ["Model", model && `${model.name} ${model.version}`],
    ["What the file says", provenance?.summary.text],
    ["Decision", review ? decision(review) : "none"],
    ["Note", review?.note],
    ["Size", `${image.width} × ${image.height} pixels`],
    ["SHA-256", image.sha256],
    ["Uploaded", date(uploaded)],
    ["Detection", entry.id],
    ["Link", address],
  ];
  const text = lines.flatMap(([term, value]) => (value ? [`${term}: ${value}`] : [])).join("\n");
  return `${text}\nA score is a model's estimate. It does not prove that a picture is genuine or generated.\n`;
}

/** @param {NonNullable<Entry["review"]>} review */
function decision({ decision: name, reviewer, key, created_at: when }) {
  const label = name === "withdrawn" ? "none" : OPINIONS[name];
  return `${label}, by ${[reviewer, key].filter(Boolean).join(", ") || "a person"}, ${date(when)}`;
}
