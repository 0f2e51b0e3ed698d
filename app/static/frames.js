/** The examined frames of an animation, or pages. */

/** @import { Result } from "./library.js" */

import { renditionPath } from "./api.js";
import { element } from "./dom.js";
import { load } from "./pictures.js";
import { Problem } from "./problem.js";
import * as words from "./words.js";

const SIZE = 256; // pixels, longest side

/**
 * A list of them with their results, if several were examined.
 * @param {Result} record
 * @returns {Node[]}
 */
export function frameList(record) {
  const { frames, view, image } = record;
  if (frames === null) return [];
  const unit = words.unit(image);
  const items = frames.map(({ frame, time_ms: time, ai_probability: score, verdict, manipulated }) => {
    const picture = element("img", { alt: "" });
    show(picture, renditionPath(record, SIZE, frame));
    const at = time === null ? "" : `, at ${(time / 1000).toFixed(1)}${words.GLUE}s`;
    const text = [
      `${unit === "page" ? "Page" : "Frame"} ${frame}${at}: ${words.percent(score)}`,
      words.verdictName(verdict),
      ...(manipulated ? ["manipulated"] : []),
      ...(frame === view.frame ? ["shown above"] : []),
    ];
    return element("li", {}, picture, element("span", {}, text.join(", ")));
  });
  const title = unit === "page" ? "Examined pages" : "Examined frames";
  return [element("h3", {}, title), element("ol", { className: "frames" }, ...items)];
}

/**
 * @param {HTMLImageElement} picture
 * @param {string} path
 */
async function show(picture, path) {
  try {
    picture.src = await load(path);
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem; // then there is the text alone
  }
}
