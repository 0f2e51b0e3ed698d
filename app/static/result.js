/** What was found: the verdict and its score, then the facts behind them. */

import { element, factRows } from "./dom.js";
import * as words from "./words.js";

const UNTRAINED = "The model that gave this score is untrained, so score and verdict mean nothing.";

/**
 * Show a finished record.
 * @param {object} record a succeeded one
 * @param {boolean} untrained whether its score means nothing
 */
export function renderResult(record, untrained) {
  document.getElementById("summary").replaceChildren(...summary(record, untrained));
  document.getElementById("details").replaceChildren(...details(record, untrained));
}

function summary(record, untrained) {
  const { ai_probability: score, manipulated, thresholds } = record;
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
    element(
      "p",
      { className: "manipulated" },
      element("strong", {}, `Manipulated: ${manipulated ? "yes" : "no"}`),
      ...label(untrained),
    ),
    element("p", {}, words.manipulationMeaning(record)),
  ];
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

function details(record, untrained) {
  const { image, view, model, masks, timings } = record;
  return [
    ...facts(
      "What was covered",
      ["Examined", words.coverage(view)],
      ["Scale", words.scale(view.scale)],
      ["Marked as AI", words.percent(masks.ai.area_fraction)],
      ["Marked as changed", words.percent(masks.manipulation.area_fraction)],
    ),
    ...facts(
      "Picture",
      ["Size", `${image.width} × ${image.height} pixels`],
      ["File", `${image.format}, ${words.bytes(image.bytes)}`],
      ["Kept until", element("time", { dateTime: record.expires_at }, words.date(record.expires_at))],
    ),
    ...facts(
      "Model",
      ["Name", model.name],
      ["Version", untrained ? element("span", { className: "badge" }, model.version) : model.version],
    ),
    ...facts(
      "Time",
      ["Queued", words.seconds(timings.queued)],
      ["Decoding", words.seconds(timings.decode)],
      ["Network", words.seconds(timings.forward)],
      ["Masks", words.seconds(timings.encode)],
      ["In all", words.seconds(timings.total)],
    ),
  ];
}

function facts(title, ...rows) {
  return [
    element("h3", {}, title),
    element("dl", { className: "facts" }, ...factRows(...rows)),
  ];
}
