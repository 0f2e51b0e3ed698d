/** The result: score and verdict, then details. */

/** @import { Layer } from "./api.js" */
/** @import { FactRow } from "./dom.js" */
/** @import { MaskedResult, Result } from "./library.js" */

import { byId, element, factRows } from "./dom.js";
import { frameList } from "./frames.js";
import { hasMasks } from "./library.js";
import { panel } from "./provenance.js";
import { searchLinks } from "./search.js";
import * as words from "./words.js";

const UNTRAINED = "The model that gave this score is untrained, so score and verdict mean nothing.";

/**
 * @typedef {object} Options
 * @property {boolean} untrained whether the score means nothing
 * @property {(layer: Layer, place: number) => void} point shows a region in the picture
 * @property {{label: string, save: () => void}[]} savables
 * @property {boolean} searches whether there are links to reverse image searches
 * @property {() => void} openCard shows the model's own card
 */

/**
 * Show a finished record.
 * @param {Result} record
 * @param {Options} options
 */
export function renderResult(record, options) {
  byId("headline").replaceChildren(...headline(record, options.untrained));
  byId("summary").replaceChildren(...summary(record, options.untrained));
  byId("details").replaceChildren(...details(record, options));
}

/**
 * Verdict and score, which stay in sight.
 * @param {Result} record
 * @param {boolean} untrained
 */
function headline(record, untrained) {
  const { manipulated } = record;
  return [
    element("h3", { className: `verdict ${tone(record, untrained)}` }, words.verdict(record)),
    element(
      "p",
      { className: "score" },
      element("span", { className: "number" }, words.percent(record.ai_probability)),
      element("span", { className: "unit" }, "AI score"),
      ...label(untrained),
    ),
    ...(hasMasks(record)
      ? [
          element(
            "h3",
            { className: `manipulated ${manipulated && !untrained ? "yes" : "no"}` },
            `Manipulated: ${manipulated ? "yes" : "no"}`,
          ),
        ]
      : []),
  ];
}

/**
 * What the headline means.
 * @param {Result} record
 * @param {boolean} untrained
 */
function summary(record, untrained) {
  const { ai_probability: score, thresholds } = record;
  return [
    meter(score, thresholds, tone(record, untrained)),
    element("p", {}, untrained ? UNTRAINED : words.verdictMeaning(record)),
    ...weakness(record, untrained),
    ...(hasMasks(record) ? changes(record, untrained) : []),
  ];
}

/**
 * @param {Result} record
 * @param {boolean} untrained
 */
function weakness(record, untrained) {
  const text = untrained ? null : words.weakness(record);
  return text === null ? [] : [element("p", { className: "note" }, text)];
}

/**
 * @param {MaskedResult} record
 * @param {boolean} untrained
 */
function changes(record, untrained) {
  return [
    ...(untrained ? [] : [marks(record)]),
    element("p", {}, words.manipulationMeaning(record)),
  ];
}

/** @param {MaskedResult} record */
function marks(record) {
  const className = words.contradicted(record) ? "note" : "";
  return element("p", { className }, words.marksMeaning(record));
}

/**
 * Name of the colour of verdict and score.
 * @param {Result} record
 * @param {boolean} untrained
 */
function tone(record, untrained) {
  return untrained ? "none" : words.state(record);
}

/** @param {boolean} untrained */
function label(untrained) {
  return untrained ? [element("span", { className: "badge" }, "untrained")] : [];
}

/**
 * The score on a scale; decorative, as the text says the same.
 * @param {number} score
 * @param {Result["thresholds"]} thresholds
 * @param {string} tone
 */
function meter(score, thresholds, tone) {
  const properties = { className: `meter ${tone}`, ariaHidden: "true" };
  const made = element("div", properties, element("span"));
  made.style.setProperty("--score", String(score));
  made.style.setProperty("--from-uncertain", String(thresholds.uncertain));
  made.style.setProperty("--from-generated", String(thresholds.ai_generated));
  return made;
}

/**
 * @param {Result} record
 * @param {Options} options
 */
function details(record, { untrained, point, savables, searches, openCard }) {
  const { image, view, model, masks, timings } = record;
  const limits = words.coverageMeaning(record);
  return [
    ...facts(
      "Coverage",
      ["Examined", words.coverage(record)],
      ["Scale", words.scale(view.scale)],
      ["Marked as AI", masks && words.percent(masks.ai.area_fraction)],
      ["Marked as changed", masks && words.percent(masks.manipulation.area_fraction)],
    ),
    ...(limits === null ? [] : [element("p", { className: "fine" }, limits)]),
    ...frameList(record),
    ...(hasMasks(record)
      ? [
          ...regions("Regions marked as AI", "ai", record, point),
          ...regions("Regions marked as changed", "manipulation", record, point),
        ]
      : []),
    ...facts(
      "Model",
      ["Name", model.name],
      ["Version", untrained ? element("span", { className: "badge" }, model.version) : model.version],
    ),
    button("About the model and its limits", openCard),
    ...panel(record, untrained),
    element("h3", {}, "Save"),
    element(
      "div",
      { className: "actions saves" },
      ...savables.map(({ label: text, save }) => button(text, save)),
    ),
    ...(searches ? searchLinks(record.ref_id) : []),
    ...facts(
      "Picture",
      ["Reference", record.ref_id && element("bdi", {}, record.ref_id)],
      ["Id", element("code", {}, record.id)],
      ["Size", `${image.width} × ${image.height} pixels`],
      ["File", `${image.format}, ${words.bytes(image.bytes)}`],
      ["SHA-256", element("code", {}, image.sha256)],
      ["Uploaded", time(record.created_at)],
      ["Finished", record.finished_at && time(record.finished_at)],
      ["Kept until", time(record.expires_at)],
    ),
    ...facts(
      "Time",
      ["Result", record.cached ? "from an earlier detection of the same file" : null],
      ["Queued", words.seconds(timings.queued)],
      ["Decoding", words.seconds(timings.decode)],
      ["Network", words.seconds(timings.forward)],
      ["Masks", words.seconds(timings.encode)],
      ["Total", words.seconds(timings.total)],
    ),
  ];
}

/**
 * @param {string} title
 * @param {Layer} layer
 * @param {MaskedResult} record
 * @param {Options["point"]} point
 */
function regions(title, layer, { masks, image }, point) {
  const found = masks[layer].regions;
  if (found.length === 0) return [];
  const items = found.map(({ box: [x, y, width, height], area, score }, place) =>
    element(
      "li",
      {},
      button(`${words.percent(area)} of the picture`, () => point(layer, place)),
      element(
        "span",
        { className: "fine" },
        `mean ${words.percent(score)}, ${width} × ${height} pixels, ${where(
          (x + width / 2) / image.width,
          (y + height / 2) / image.height,
        )}`,
      ),
    ),
  );
  return [element("h3", {}, title), element("ol", { className: "regions" }, ...items)];
}

/**
 * The part of the picture a point is in: one of nine.
 * @param {number} x share of the width
 * @param {number} y share of the height
 */
function where(x, y) {
  /** @type {(share: number, names: string[]) => string} */
  const third = (share, names) => names[Math.min(2, Math.floor(share * 3))];
  const row = third(y, ["top", "middle", "bottom"]);
  const column = third(x, ["left", "centre", "right"]);
  return row === "middle" && column === "centre" ? "centre" : `${row} ${column}`;
}

/** @param {string} iso */
function time(iso) {
  return element("time", { dateTime: iso }, words.date(iso));
}

/**
 * @param {string} title
 * @param {...FactRow} rows
 */
function facts(title, ...rows) {
  return [
    element("h3", {}, title),
    element("dl", { className: "facts" }, ...factRows(...rows)),
  ];
}

/**
 * @param {string} text
 * @param {() => void} onClick
 */
function button(text, onClick) {
  const made = element("button", { type: "button", className: "plain" }, text);
  made.addEventListener("click", onClick);
  return made;
}
