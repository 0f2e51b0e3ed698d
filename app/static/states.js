/** Texts about unfinished and failed pictures. */

/** @import { Detection } from "./api.js" */
/** @import { Entry, Phase } from "./library.js" */
/** @import { Problem } from "./problem.js" */

import { GLUE, counted, date, percent, readable, state, verdict } from "./words.js";

const LONG = 3; // seconds after which the page says how long a state lasts

const SHORT_VERDICTS = {
  contradicted: "Low, but marked",
  authentic: "No sign of AI",
  uncertain: "Uncertain",
  ai_generated: "Signs of AI",
};

/** @type {Record<import("./provenance.js").Says, string>} */
const BADGES = {
  generated: "file: AI",
  composite: "file: partly AI",
  captured: "file: camera",
  edited: "file: edited",
};

/** @type {Partial<Record<Phase, string>>} */
const SHORT = {
  waiting: "Waiting to be sent",
  opening: "Opening",
  queued: "Queued",
  processing: "Being examined",
  failed: "Could not be examined",
  expired: "Expired",
  cancelled: "Cancelled",
  gone: "Not found",
};

/** @type {Partial<Record<Phase, string>>} */
const PHASES = {
  waiting: "Waiting in this tab to be sent.",
  opening: "Opening the detection …",
  queued: "Queued: waiting for a worker.",
  processing: "Processing: a worker is examining the picture.",
};

/** @type {Record<string, (record: Detection) => string>} */
const EXPIRED = {
  detection_expired: (record) =>
    `Picture, masks and score were kept until ${date(record.expires_at)} and are deleted now.`,
  queue_timeout: () =>
    "No worker took the picture in time, so it was not examined. Send it again.",
};

/**
 * A short title. If a key is needed, the service's own title is meant for programs.
 * @param {Problem} problem
 */
export function title(problem) {
  return problem.wantsKey ? "This service needs an API key" : problem.title;
}

/**
 * Why an entry makes no progress.
 * @param {Problem} problem
 */
export function trouble(problem) {
  if (problem.wantsKey) return `${title(problem)}. Enter one to continue.`;
  return `${problem.title}. ${problem.detail} Trying again.`;
}

/**
 * Short text about an entry, for its row.
 * @param {Entry} entry
 * @param {boolean} untrained whether its score means nothing
 */
export function short(entry, untrained) {
  const { phase, result, problem, trouble, sent } = entry;
  if (result !== null) {
    if (untrained) return "Untrained model";
    return SHORT_VERDICTS[state(result)];
  }
  if (entry.unjudged) return failure(entry).title;
  if (phase === "refused") return problem?.title ?? "";
  if (trouble !== null) return trouble.wantsKey ? "Waiting for a key" : "Delayed; trying again";
  const place = position(entry);
  if (place !== null) return `Queued, position ${place.toLocaleString("en")}`;
  if (phase !== "sending") return SHORT[phase] ?? "";
  return sent < 1 ? `Uploading: ${share(sent)}` : "Being checked";
}

/** @type {Record<import("./reviews.js").Opinion, string>} */
const DECIDED = { genuine: "genuine", ai: "AI", manipulated: "manipulated", unsure: "unsure" };

/**
 * The decision about an entry, for its row.
 * @param {Entry} entry
 */
export function decided({ decision, unsaved, holder, mine }) {
  if (unsaved?.conflict) return "! conflict";
  const unconfirmed = unsaved === null ? "" : "…";
  if (decision !== null) return `${unsaved === null ? "✓" : ""} ${DECIDED[decision]}${unconfirmed}`.trim();
  if (holder !== null && !mine) return `open: ${holder.reviewer ?? holder.key}`;
  return unconfirmed;
}

/**
 * A few characters for the list; empty if the file does not tell.
 * @param {Detection?} record
 */
export function badge(record) {
  const says = record?.provenance?.summary.says;
  return says ? BADGES[says] : "";
}

/**
 * The progress of an unfinished entry.
 * @param {Entry} entry
 */
export function phase(entry) {
  if (entry.phase !== "sending") return PHASES[entry.phase] ?? "";
  if (entry.sent < 1) return `Uploading: ${share(entry.sent)} sent`;
  return "Uploaded: the service is checking the file.";
}

/**
 * How long an entry takes; nothing while that is short.
 * @param {Entry} entry
 * @param {number} elapsed seconds since its state changed
 * @param {number?} left seconds that it will probably take
 * @returns {string?}
 */
export function duration(entry, elapsed, left) {
  const place = position(entry);
  const parts = [
    ...(place === null ? [] : [`Position ${place.toLocaleString("en")} in the queue`]),
    ...(elapsed < LONG ? [] : [`for ${time(elapsed)} so far`]),
    ...(left === null || elapsed < LONG ? [] : [`about ${time(left)} left`]),
  ];
  if (parts.length === 0) return null;
  const text = parts.join(", ");
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

/**
 * Place in the queue, 1: the next.
 * @param {Entry} entry
 * @returns {number?} null if it is not queued, or the service does not say
 */
export function position({ phase, record }) {
  return phase === "queued" ? (record?.queue_position ?? null) : null;
}

/**
 * Why an entry has no result: `title`, `detail`, `code`, and whether sending the file again may
 * help.
 * @param {Entry} entry
 * @returns {{title: string, detail: string, code: string?, again: boolean}}
 */
export function failure(entry) {
  switch (entry.phase) {
    case "refused": {
      const { title, detail, code, temporary } = /** @type {Problem} */ (entry.problem);
      return { title, detail, code, again: temporary };
    }
    case "cancelled":
      return { title: "Cancelled", detail: "The picture was not sent.", code: null, again: true };
    case "gone":
      return {
        title: "Detection not found",
        detail:
          "It was deleted, it expired long ago, it belongs to another API key, or it never existed.",
        code: "not_found",
        again: true,
      };
    case "expired": {
      const record = /** @type {Detection} */ (entry.record);
      const { code, detail } = reason(record);
      const explanation = EXPIRED[code]?.(record) ?? detail;
      return { title: "This detection has expired", detail: explanation, code, again: true };
    }
    case "succeeded": {
      const { not_judged: code, image } = /** @type {Detection} */ (entry.record);
      const detail =
        `It has ${image.width} × ${image.height} pixels. The model's scores of such small ` +
        "pictures are guesses, so it gets no score. If you have a larger version, send that.";
      const small = code === "too_small";
      return {
        title: small ? "Too small to judge" : "Not judged",
        detail: small ? detail : "The model gives pictures like this one no score.",
        code,
        again: false,
      };
    }
    default: {
      const { code, detail } = reason(/** @type {Detection} */ (entry.record));
      return { title: "The picture could not be examined", detail, code, again: false };
    }
  }
}

/**
 * Text for when facts about the model are not available.
 * @param {Problem} problem
 */
export function unavailable({ code, detail, wantsKey }) {
  if (wantsKey) return "Enter a key to continue.";
  const wait = "You can send pictures; they wait in the queue until a worker is ready.";
  return code === "no_worker" ? `${detail} ${wait}` : detail;
}

/**
 * Why uploads are paused.
 * @param {Problem} problem
 * @param {number} pending pictures
 */
export function paused({ wantsKey, detail, retryAfter }, pending) {
  const wait = `${counted(pending, "picture")} ${pending === 1 ? "waits" : "wait"} in this tab`;
  if (wantsKey) return `Enter a key. ${wait} for it.`;
  const when = retryAfter === null ? "soon" : `in ${counted(retryAfter, "second")}`;
  return `${detail} ${wait}; the page tries again ${when}.`;
}

/**
 * Progress of the pictures in the list.
 * @param {{all: number, pending: number, batch: number}} counts `batch`: those that are unfinished,
 *     and those that were when the others began
 * @param {boolean} more whether there are older ones that are not listed
 */
export function tally({ all, pending, batch }, more) {
  const formatted = (/** @type {number} */ number) => number.toLocaleString("en");
  if (pending > 0) return `${formatted(batch - pending)} of ${formatted(batch)} done`;
  return more ? `the newest ${formatted(all)}` : formatted(all);
}

/**
 * @param {Entry[]} entries that are all finished
 */
export function allDone(entries) {
  const failed = entries.filter(({ result }) => result === null).length;
  const without = failed === 0 ? "" : `, ${failed.toLocaleString("en")} of them without a result`;
  return `All ${counted(entries.length, "picture")} are done${without}.`;
}

/**
 * A sentence for screen readers about the state of an entry; unchanged while the state is.
 * @param {Entry} entry
 * @param {boolean} untrained whether the score means nothing
 */
export function announcement(entry, untrained) {
  const { phase: now, result, trouble, finished, name } = entry;
  if (now === "sending") return `Uploading ${name}.`;
  if (!finished) return trouble === null ? phase(entry) : title(trouble);
  if (result === null) {
    const { title, detail } = failure(entry);
    return `${title}. ${detail}`;
  }
  return [
    `${name}: finished. AI score ${percent(result.ai_probability)}: ${verdict(result)}.`,
    ...(result.masks === null ? [] : [`Manipulated: ${result.manipulated ? "yes" : "no"}.`]),
    ...(untrained ? ["The model is untrained: these results mean nothing."] : []),
  ].join(" ");
}

/** @param {Detection} record that has failed or expired */
function reason({ error }) {
  const { code, detail } = /** @type {NonNullable<typeof error>} */ (error);
  return { code, detail: readable(detail) };
}

/** @param {number} seconds */
function time(seconds) {
  if (seconds < 90) return counted(Math.max(1, Math.round(seconds)), "second");
  return counted(Math.round(seconds / 60), "minute");
}

/** @param {number} sent */
function share(sent) {
  return `${Math.floor(sent * 100)}${GLUE}%`;
}
