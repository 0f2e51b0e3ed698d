/** The model's card: accuracy, how it was measured, limits, technical facts. */

/** @import { ModelFacts } from "./api.js" */
/** @import { FactRow } from "./dom.js" */
/** @typedef {NonNullable<ModelFacts["measured"]>} Measured */

import { element, factRows } from "./dom.js";
import { percent } from "./words.js";

const STRONG = 0.9; // AUC below which the card says that the model is weak

const UNMEASURED =
  "The accuracy of this model was not measured. It is unknown how many AI-generated pictures it " +
  "finds, and how many photographs it wrongly suspects.";

const READING =
  "n: number of pictures. AUC: how often a generated picture gets a higher score than a " +
  "photograph; 1 is perfect, 0.5 is guessing. In brackets: the 95 % confidence interval; fewer " +
  "pictures make it wider. Found at 5 %: the share of generated pictures that it finds while " +
  "calling 5 of 100 photographs AI-generated.";

const LIMITS = [
  "A score is not a proof. Do not judge a person or remove a picture on a score alone.",
  "Heavy compression, resizing, screenshots, noise and filters change scores and verdicts.",
  "Pictures of other generators may be missed. Drawings, renderings, scans and other pictures that " +
    "are not photographs may get a high score without reason.",
  "The masks are hints. Their outlines are vague, they miss some changes, and they mark some " +
    "unchanged places.",
  "A score says how a picture was made, not whether what it shows is true.",
];

/**
 * @param {ModelFacts} facts
 * @returns {Node[]}
 */
export function renderCard({ notice, measured = null, ...model }) {
  return [
    heading("How reliable a score is"),
    ...reliability(model.trained, notice, measured),
    ...(measured === null ? [] : measurements(measured)),
    heading("Limits"),
    element("ul", {}, ...LIMITS.map((limit) => element("li", {}, limit))),
    heading("Technical facts"),
    facts(
      ["Name", model.name],
      ["Version", model.version],
      ["Trained", model.trained ? "yes" : "no"],
      ["Backbone", model.backbone],
      ["Parameters", model.parameters.toLocaleString("en")],
      ["Crops", `${model.crop_size} × ${model.crop_size} pixels`],
      ["Uncertain from a score of", percent(model.thresholds.uncertain)],
      ["AI-generated from a score of", percent(model.thresholds.ai_generated)],
      ["Pixels are marked from", percent(model.thresholds.mask)],
      ["Manipulated from an area of", percent(model.thresholds.manipulated_area)],
    ),
  ];
}

/**
 * @param {boolean} trained
 * @param {string?} notice
 * @param {Measured?} measured
 */
function reliability(trained, notice, measured) {
  if (!trained) return [paragraph(notice ?? "", "note")];
  if (measured === null) return [paragraph(UNMEASURED, "note")];
  const { auc, auc_interval: interval, tpr_at_fpr_1: strict, tpr_at_fpr_5: usual } = measured.rows[0];
  const weak = auc < STRONG ? [paragraph("This model is weak: its scores are hints at best.", "note")] : [];
  return [
    ...weak,
    paragraph(
      `Of 100 AI-generated pictures it finds ${hundredths(usual)} while calling 5 of 100 ` +
        `photographs AI-generated; ${hundredths(strict)} while calling 1 of 100.`,
    ),
    paragraph(`AUC ${figure(auc)} (95 % confidence: ${figure(interval[0])} to ${figure(interval[1])}).`),
  ];
}

/** @param {Measured} measured */
function measurements({ rows, conditions, photographs, false_alarms: alarms, false_alarms_interval: range }) {
  return [
    heading("By generator"),
    table(rows),
    paragraph(READING, "fine"),
    heading("How this was measured"),
    paragraph(
      "On pictures that the model never saw in training. With its own threshold it called " +
        `${percent(alarms)} of the photographs AI-generated (95 % confidence: ` +
        `${percent(range[0])} to ${percent(range[1])}).`,
    ),
    facts(
      ["AI-generated pictures", rows[0].n.toLocaleString("en")],
      ["Photographs", photographs.toLocaleString("en")],
      ["Conditions", conditions.replaceAll("`", "")],
    ),
  ];
}

/** @param {Measured["rows"]} rows */
function table(rows) {
  const head = ["Pictures of", "n", "AUC", "Found at 1 %", "Found at 5 %"];
  const columns = head.map((name) => element("th", { scope: "col" }, name));
  return element(
    "table",
    { className: "generators" },
    element("thead", {}, element("tr", {}, ...columns)),
    element("tbody", {}, ...rows.map(tableRow)),
  );
}

/** @param {Measured["rows"][number]} row */
function tableRow({ pictures, n, auc, auc_interval: [low, high], tpr_at_fpr_1: strict, tpr_at_fpr_5: usual }) {
  const interval = element("span", { className: "interval" }, `(${figure(low)}–${figure(high)})`);
  const cells = [[n.toLocaleString("en")], [`${figure(auc)} `, interval], [percent(strict)], [percent(usual)]];
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, pictures.replaceAll("_", " ")),
    ...cells.map((parts) => element("td", {}, ...parts)),
  );
}

/** @param {string} text */
function heading(text) {
  return element("h3", {}, text);
}

/**
 * @param {string} text
 * @param {string} [className]
 */
function paragraph(text, className = "") {
  return element("p", { className }, text);
}

/** @param {...FactRow} rows */
function facts(...rows) {
  return element("dl", { className: "facts" }, ...factRows(...rows));
}

/** @param {number} share */
function hundredths(share) {
  return String(Math.round(share * 100));
}

/** @param {number} value */
function figure(value) {
  return value.toFixed(2);
}
