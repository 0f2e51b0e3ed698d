/** What was found: the verdict and its score, then the facts behind them. */

import { element, factRows } from "./dom.js";
import * as words from "./words.js";

const UNTRAINED = "The model that gave this score is untrained, so score and verdict mean nothing.";

/**
 * Show a finished record.
 * @param {object} record a succeeded one
 * @param {object} options
 * @param {boolean} options.untrained whether its score means nothing
 * @param {(layer: string, place: number) => void} options.point shows a region in the picture
 * @param {{label: string, save: () => void}[]} options.savables
 * @param {() => void} options.openCard shows the model's own card
 */
export function renderResult(record, options) {
  document.getElementById("summary").replaceChildren(...summary(record, options.untrained));
  document.getElementById("details").replaceChildren(...details(record, options));
}

function summary(record, untrained) {
  const { ai_probability: score, thresholds } = record;
  const tone = untrained ? "none" : record.verdict;
  return [
    element("h3", { className: `verdict ${tone}` }, words.verdict(record)),
    element(
      "p",
      { className: "score" },
      element("span", { className: "number" }, words.percent(score)),
      element("span", { className: "unit" }, "AI score"),
      ...label(untrained),
    ),
    meter(score, thresholds, tone),
    element("p", {}, untrained ? UNTRAINED : words.verdictMeaning(record)),
    ...weakness(record, untrained),
    ...(record.masks === null ? [] : changes(record, untrained)),
  ];
}

function weakness(record, untrained) {
  const text = untrained ? null : words.weakness(record);
  return text === null ? [] : [element("p", { className: "note" }, text)];
}

function changes(record, untrained) {
  const { manipulated } = record;
  return [
    ...(untrained ? [] : [marks(record)]),
    element(
      "h3",
      { className: `verdict manipulated ${manipulated && !untrained ? "yes" : "no"}` },
      `Manipulated: ${manipulated ? "yes" : "no"}`,
      ...label(untrained),
    ),
    element("p", {}, words.manipulationMeaning(record)),
  ];
}

function marks(record) {
  const className = words.contradicted(record) ? "note" : "";
  return element("p", { className }, words.marksMeaning(record));
}

function label(untrained) {
  return untrained ? [element("span", { className: "badge" }, "untrained")] : [];
}

/** The score on its scale; a picture of what the text beside it says. */
function meter(score, thresholds, tone) {
  const properties = { className: `meter ${tone}`, ariaHidden: "true" };
  const made = element("div", properties, element("span"));
  made.style.setProperty("--score", score);
  made.style.setProperty("--from-uncertain", thresholds.uncertain);
  made.style.setProperty("--from-generated", thresholds.ai_generated);
  return made;
}

function details(record, { untrained, point, savables, openCard }) {
  const { image, view, model, masks, timings } = record;
  const limits = words.coverageMeaning(view);
  return [
    ...facts(
      "What was covered",
      ["Examined", words.coverage(view)],
      ["Scale", words.scale(view.scale)],
      ["Marked as AI", masks && words.percent(masks.ai.area_fraction)],
      ["Marked as changed", masks && words.percent(masks.manipulation.area_fraction)],
    ),
    ...(limits === null ? [] : [element("p", { className: "fine" }, limits)]),
    ...(masks === null
      ? []
      : [
          ...regions("Regions marked as AI", "ai", record, point),
          ...regions("Regions marked as changed", "manipulation", record, point),
        ]),
    ...facts(
      "Model",
      ["Name", model.name],
      ["Version", untrained ? element("span", { className: "badge" }, model.version) : model.version],
    ),
    button("What this model can do, and cannot", openCard),
    element("h3", {}, "Save"),
    element(
      "div",
      { className: "acts saves" },
      ...savables.map(({ label: text, save }) => button(text, save)),
    ),
    ...facts(
      "Picture",
      ["Reference", record.ref_id],
      ["Size", `${image.width} × ${image.height} pixels`],
      ["File", `${image.format}, ${words.bytes(image.bytes)}`],
      ["SHA-256", element("code", {}, image.sha256)],
      ["Kept until", element("time", { dateTime: record.expires_at }, words.date(record.expires_at))],
    ),
    ...facts(
      "Time",
      ["Result", record.cached ? "known already: the same file was examined before" : null],
      ["Queued", words.seconds(timings.queued)],
      ["Decoding", words.seconds(timings.decode)],
      ["Network", words.seconds(timings.forward)],
      ["Masks", words.seconds(timings.encode)],
      ["In all", words.seconds(timings.total)],
    ),
  ];
}

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

/** Where in the picture a point lies: one of nine fields. */
function where(x, y) {
  const third = (share, names) => names[Math.min(2, Math.floor(share * 3))];
  const row = third(y, ["top", "middle", "bottom"]);
  const column = third(x, ["left", "centre", "right"]);
  return row === "middle" && column === "centre" ? "centre" : `${row} ${column}`;
}

function facts(title, ...rows) {
  return [
    element("h3", {}, title),
    element("dl", { className: "facts" }, ...factRows(...rows)),
  ];
}

function button(text, onClick) {
  const made = element("button", { type: "button", className: "plain" }, text);
  made.addEventListener("click", onClick);
  return made;
}
