/** Texts about results: numbers, verdicts and coverage. Nothing here touches the DOM. */

/** @import { Detection, Layer } from "./api.js" */
/** @import { MaskedResult, Result } from "./library.js" */

/** Non-breaking space. */
export const GLUE = "\u00a0";

const VERDICTS = {
  contradicted: "Low score, but parts are marked as AI",
  authentic: "No sign of AI generation found",
  uncertain: "Uncertain",
  ai_generated: "Signs of AI generation found",
};

const WORTH_MENTIONING = 0.001; // share of a picture from which its marks are mentioned

const MOSTLY_TEXT =
  "The picture is mostly text. The model gives too many pages of text a high score, so this one " +
  "means little.";

const LAYERS = { ai: "AI", manipulation: "manipulation" };

/**
 * A share as a percentage with one decimal; only 0 and 1 themselves read as 0 % and 100 %.
 * @param {number} share
 */
export function percent(share) {
  const glued = (/** @type {string} */ number) => `${number}${GLUE}%`;
  if (share > 0 && share < 0.001) return `< ${glued("0.1")}`;
  if (share < 1 && share > 0.999) return `> ${glued("99.9")}`;
  return glued((share * 100).toFixed(share > 0 && share < 1 ? 1 : 0));
}

/** @param {number} count */
export function bytes(count) {
  if (count < 1000) return `${count}${GLUE}bytes`;
  const [size, unit] = count < 1e6 ? [count / 1e3, "kB"] : [count / 1e6, "MB"];
  return `${size.toLocaleString("en", { maximumSignificantDigits: 3 })}${GLUE}${unit}`;
}

/** @param {number} value seconds */
export function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)}${GLUE}ms` : `${value.toFixed(2)}${GLUE}s`;
}

/**
 * Date and time with its zone.
 * @param {string} iso time as the service writes it
 */
export function date(iso) {
  return new Date(iso).toLocaleString("en", {
    dateStyle: "medium",
    timeStyle: "long",
    hourCycle: "h23",
  });
}

/**
 * A text of the service with readable numbers of bytes.
 * @param {string} text
 */
export function readable(text) {
  return text.replace(/\b(\d{4,})( more)? bytes\b/g, (_, count, more = "") => bytes(Number(count)) + more);
}

/**
 * @param {number} number
 * @param {string} noun that takes an s
 */
export function counted(number, noun) {
  return `${number.toLocaleString("en")}${GLUE}${noun}${number === 1 ? "" : "s"}`;
}

/** @param {Layer} name */
export function layer(name) {
  return LAYERS[name];
}

/** @param {Layer} name */
export function legend(name) {
  return `Probability of ${name === "ai" ? "being AI-made" : "being changed"}`;
}

/**
 * Whether the score is low although parts are marked as AI.
 * @param {Result} record
 */
export function contradicted({ notes }) {
  return notes.includes("marks_contradict_score");
}

/**
 * What a result is called, filtered by and coloured as: its verdict, unless the marks contradict it.
 * @param {Result} record
 * @returns {Result["verdict"] | "contradicted"}
 */
export function state(record) {
  return contradicted(record) ? "contradicted" : record.verdict;
}

/**
 * Why the score means little, if it does.
 * @param {Result} record
 * @returns {string?}
 */
export function weakness({ notes }) {
  return notes.includes("mostly_text") ? MOSTLY_TEXT : null;
}

/**
 * The verdict in words.
 * @param {Result} record
 */
export function verdict(record) {
  return VERDICTS[state(record)];
}

/** @param {Result["verdict"]} name */
export function verdictName(name) {
  return VERDICTS[name];
}

/**
 * What the verdict means, and what it does not.
 * @param {Result} record
 */
export function verdictMeaning({ verdict: name, thresholds }) {
  const uncertain = percent(thresholds.uncertain);
  const generated = percent(thresholds.ai_generated);
  return {
    authentic:
      `The score is below ${uncertain}, the model's threshold for “uncertain”. ` +
      "The model misses some generated pictures, so this does not prove that the picture is " +
      "genuine.",
    uncertain:
      `The score is between ${uncertain} and ${generated}, so the model does not decide. ` +
      "Check the picture by other means.",
    ai_generated:
      `The score is ${generated} or more, the model's threshold for “AI-generated”. ` +
      "The model can be wrong about genuine pictures: check this one by other means too.",
  }[name];
}

/**
 * Whether the marks of the AI layer agree with the score.
 * @param {MaskedResult} record
 */
export function marksMeaning(record) {
  const { area_fraction: area, regions } = record.masks.ai;
  const found = regions.length === 0 ? "" : `${counted(regions.length, "region")}, `;
  if (contradicted(record)) {
    return (
      "The score of the whole picture is below the threshold, but parts of it are marked as AI: " +
      `${found}${percent(area)} of the picture. Either the score or the marks are wrong: look at ` +
      "the marked parts."
    );
  }
  if (area < WORTH_MENTIONING) return "No part of the picture is marked as AI.";
  return `Marked as AI: ${found}${percent(area)} of the picture.`;
}

/**
 * Why `manipulated` is what it is.
 * @param {MaskedResult} record
 */
export function manipulationMeaning({ masks, thresholds }) {
  const area = percent(masks.manipulation.area_fraction);
  const from = percent(thresholds.manipulated_area);
  return `${area} of the picture is marked as changed; ${from} or more counts as manipulated.`;
}

/**
 * Which part of the picture the model saw.
 * @param {Detection} record
 */
export function coverage({ view, image, frames }) {
  const { mode, tiles } = view;
  const one = several(image) ? frame(image, view) : "The whole picture";
  const whole = frames === null ? one : `${counted(frames.length, unit(image))} of ${image.frames}`;
  const part = mode === "center" ? "The centre of the picture only" : whole;
  if (mode === "glance") return `${part}, at a glance`;
  return tiles === null ? part : `${part}, in ${counted(tiles, "tile")}`;
}

/** @param {number?} value crops' scale / picture's scale */
export function scale(value) {
  if (value === null) return "unknown";
  if (value === 1) return "native resolution";
  return `${value < 1 ? "shrunk" : "enlarged"} to ${ratio(value)} of its size`;
}

/**
 * Limits of the result due to the coverage, if any.
 * @param {Detection} record
 * @returns {string?}
 */
export function coverageMeaning({ view, image, frames }) {
  const { mode, scale: value } = view;
  const limits = [];
  if (frames !== null) {
    const others = frames.length === image.frames ? "" : " The file's other pictures were not examined.";
    limits.push(`Score, verdict, layers and regions are those of ${unit(image)} ${view.frame ?? 1} of ${image.frames}, which has the highest score.${others}`);
  } else if (several(image)) {
    limits.push(`${frame(image, view)} was examined; the file's other pictures were not.`);
  }
  if (mode === "center") limits.push("Only the centre was examined.");
  if (value !== null && value < 1) {
    limits.push(
      `The picture was examined at ${ratio(value)} of its resolution, so finer traces were not ` +
        "visible.",
    );
  }
  if (mode === "glance") {
    limits.push("A glance gives no masks: it does not show which parts are AI-made or changed.");
  }
  return limits.length === 0 ? null : limits.join(" ");
}

/**
 * Whether a file is an animation or has several pages.
 * @param {Detection["image"]} image
 */
function several({ frames }) {
  return frames !== null && frames > 1;
}

/**
 * Which picture of an animation or of several pages was examined.
 * @param {Detection["image"]} image
 * @param {Detection["view"]} view
 */
function frame(image, { frame: number }) {
  return `${unit(image) === "page" ? "Page" : "Frame"} ${number ?? 1} of ${image.frames}`;
}

/**
 * What the pictures of a file with several are called.
 * @param {Detection["image"]} image
 */
export function unit({ format }) {
  return format === "TIFF" ? "page" : "frame";
}

/** @param {number} value */
function ratio(value) {
  return `${Math.max(1, Math.round(value * 100))}${GLUE}%`;
}
