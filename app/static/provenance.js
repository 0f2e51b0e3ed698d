/** What the file itself says of its origin, beside the score and never part of it. */

/** @import { Detection } from "./api.js" */
/** @import { FactRow } from "./dom.js" */
/** @import { Result } from "./library.js" */

import { element, factRows } from "./dom.js";

/**
 * @typedef {NonNullable<Detection["provenance"]>} Provenance
 * @typedef {Provenance["statements"][number]} Statement
 * @typedef {NonNullable<Statement["says"]>} Says
 */

/** @type {Record<Says, string>} */
const CLAIMS = {
  generated: "as AI-generated",
  composite: "as partly AI-generated",
  captured: "as taken with a camera",
  edited: "as edited",
};

/** @type {Record<Statement["source"], string>} */
const SOURCES = {
  c2pa: "Signed manifest (C2PA)",
  xmp: "Metadata (XMP)",
  iptc: "Metadata (IPTC)",
  exif: "Camera data (EXIF)",
  text: "Text of a generator",
  alpha: "Text hidden in the transparency",
  watermark: "Invisible watermark",
};

/** @type {Record<Statement["confidence"], string>} */
const CONFIDENCES = {
  signed_trusted: "signed by a trusted signer; the signature matches the file",
  signed_untrusted: "signed by someone not on the trust list; the signature matches the file",
  unsigned: "not signed: anyone can write or change this",
};

const MAX_NAME = 60;

const BROKEN = "the signature does not match the file, which was changed after it was signed";

/** @type {[string, string][]} key of the details, and what it is called */
const TERMS = [
  ["generator", "Generator"],
  ["model", "Model"],
  ["make", "Make"],
  ["lens", "Lens"],
  ["software", "Software"],
  ["ai_system", "AI system"],
  ["credit", "Credit"],
  ["creator_tool", "Program"],
  ["program", "Program"],
  ["claim_generator", "Written by"],
  ["signer", "Certificate of"],
  ["signed_at", "Signed at"],
  ["title", "Title"],
  ["taken_at", "Taken at"],
  ["changed_at", "Changed at"],
  ["latitude", "Latitude"],
  ["longitude", "Longitude"],
  ["source_type", "Source type"],
  ["remote_manifest", "Manifest elsewhere, not fetched"],
];

/** @type {[string, string][]} long texts, which are folded */
const FOLDED = [
  ["prompt", "Prompt"],
  ["negative_prompt", "Negative prompt"],
  ["settings", "Settings"],
];

/**
 * How statement and score disagree, if they do.
 * @param {Result} record
 * @returns {string?}
 */
export function conflict({ provenance, verdict }) {
  const summary = provenance?.summary;
  if (!summary?.says || summary.confidence === null) return null;
  const made = summary.says === "generated" || summary.says === "composite";
  const begin = `${claimant(summary.by, summary.confidence)} ${CLAIMS[summary.says]}`;
  if (made && verdict === "authentic") return `${begin}; the model did not see it.`;
  if (summary.says === "captured" && verdict === "ai_generated") {
    return `${begin}; the model calls it generated. One of the two is wrong.`;
  }
  return null;
}

/**
 * @param {string?} by
 * @param {Statement["confidence"]} confidence
 */
function claimant(by, confidence) {
  const name = quoted(by);
  if (confidence === "signed_untrusted") {
    return `Signed in the name of ${name ?? "an unnamed signer"} (not on the trust list)`;
  }
  const begin = confidence === "signed_trusted" ? "Signed" : "Described";
  return name === null ? begin : `${begin} by ${name}`;
}

/**
 * A name of the file in quotes, without quotes and brackets of its own; as in the summary.
 * @param {string?} name
 */
function quoted(name) {
  const shown = (name ?? "")
    .replaceAll(/\s+/gu, " ")
    .replaceAll(/[\p{C}\p{Ps}\p{Pe}\p{Pi}\p{Pf}"`＂″〃]/gu, "")
    .trim();
  const characters = [...shown];
  if (characters.length === 0) return null;
  const cut = characters.length > MAX_NAME;
  return `“${cut ? `${characters.slice(0, MAX_NAME - 1).join("")}…` : shown}”`;
}

/**
 * The panel of a record; nothing in records of older releases.
 * @param {Result} record
 * @param {boolean} untrained whether the score means nothing
 * @returns {HTMLElement[]}
 */
export function panel(record, untrained) {
  const { provenance } = record;
  if (!provenance) return [];
  const disagreement = untrained ? null : conflict(record);
  return [
    element("h3", {}, "What the file says"),
    element("p", {}, provenance.summary.text),
    ...(disagreement === null ? [] : [element("p", { className: "note" }, disagreement)]),
    ...provenance.statements.flatMap(statement),
  ];
}

/** @param {Statement} made */
function statement(made) {
  const { details } = made;
  /** @type {FactRow[]} */
  const rows = [
    ["Says", made.says === null ? null : says(made)],
    ["Worth", details.valid === false ? BROKEN : CONFIDENCES[made.confidence]],
    ...TERMS.map(([key, term]) => /** @type {FactRow} */ ([term, text(details[key])])),
    ["Steps", list(details.actions, step)],
    ["History", list(details.history, step)],
    ["Made from", list(details.ingredients, ingredient)],
    ["Problems", list(details.problems, (problem) => text(problem) ?? "")],
  ];
  return [
    element("h4", {}, SOURCES[made.source]),
    element("dl", { className: "facts" }, ...factRows(...rows)),
    ...FOLDED.flatMap(([key, title]) => folded(title, text(details[key]))),
  ];
}

/** @param {Statement} made */
function says({ says: what, by, confidence }) {
  const words = what === null ? "" : CLAIMS[what].replace(/^as /, "");
  const name = quoted(by);
  if (name === null) return words;
  return confidence === "signed_untrusted"
    ? `${words}, in the name of ${name} (not on the trust list)`
    : `${words}, by ${name}`;
}

/**
 * @param {string} title
 * @param {string?} content
 */
function folded(title, content) {
  if (content === null) return [];
  return [
    element(
      "details",
      { className: "folded" },
      element("summary", {}, title),
      element("p", {}, content),
    ),
  ];
}

/**
 * A list in the panel, or null without entries.
 * @param {unknown} entries
 * @param {(entry: Record<string, unknown>) => string} words
 */
function list(entries, words) {
  if (!Array.isArray(entries) || entries.length === 0) return null;
  return element("ol", {}, ...entries.map((entry) => element("li", {}, words(entry))));
}

/** @param {Record<string, unknown>} action of C2PA, or an event of a history */
function step(action) {
  const name = (text(action.action) ?? "changed").replace(/^c2pa\./, "").replaceAll("_", " ");
  return joined(name, text(action.program), text(action.source_type), text(action.when));
}

/** @param {Record<string, unknown>} part */
function ingredient(part) {
  return joined(
    quoted(text(part.title)) ?? "a picture",
    part.relationship === "componentOf" ? "placed in it" : null,
    text(part.says),
    signature(quoted(text(part.signer)), part),
  );
}

/**
 * @param {string?} signer
 * @param {Record<string, unknown>} part an ingredient; older records lack `valid` and `trusted`
 */
function signature(signer, { valid, trusted }) {
  if (signer === null) return null;
  if (valid === true && trusted === true) return `signed by ${signer}`;
  const unverified = `signed in the name of ${signer}`;
  if (valid === true) return `${unverified} (not on the trust list)`;
  return valid === false
    ? `${unverified} (the signature could not be verified)`
    : `${unverified} (not verified)`;
}

/** @param {...(string | null)} parts */
function joined(...parts) {
  return parts.filter((part) => part !== null).join(", ");
}

/** @param {unknown} value */
function text(value) {
  return typeof value === "string" || typeof value === "number" ? String(value) : null;
}
