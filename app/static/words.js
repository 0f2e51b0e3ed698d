/** What the page says: numbers, dates, verdicts and states in words. Nothing here touches the DOM. */

/** Space that does not break a line. */
const GLUE = "\u00a0";

const PHASES = {
  opening: "Opening the detection …",
  queued: "Queued: waiting for a worker.",
  processing: "Processing: a worker is examining the picture.",
};

const VERDICTS = {
  authentic: "No sign of AI generation found",
  uncertain: "Uncertain",
  ai_generated: "Signs of AI generation found",
};

const EXPIRED = {
  detection_expired: (record) =>
    `Picture, masks and score were kept until ${date(record.expires_at)} and are deleted now.`,
  queue_timeout: () =>
    "No worker took the picture in time. Nothing was found out about it; send it again.",
};

/**
 * A share as a percentage; only 0 and 1 themselves read as 0 % and 100 %.
 * @param {number} share
 */
export function percent(share) {
  const glued = (number) => `${number}${GLUE}%`;
  if (share > 0 && share < 0.001) return `< ${glued("0.1")}`;
  if (share < 1 && share > 0.999) return `> ${glued("99.9")}`;
  return glued((share * 100).toLocaleString("en", { maximumFractionDigits: 1 }));
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

/** @param {string} iso time as the service writes it */
export function date(iso) {
  return new Date(iso).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

/**
 * What a task without a result is doing.
 * @param {import("./task.js").Task} task
 */
export function phase(task) {
  if (task.phase !== "sending") return PHASES[task.phase];
  if (task.sent < 1) return `Uploading: ${Math.floor(task.sent * 100)}${GLUE}% sent`;
  return "Uploaded: the service is checking the file.";
}

/**
 * Why a task has no result: `title`, `detail`, `code`, and whether sending the file again may help.
 * @param {import("./task.js").Task} task
 */
export function failure(task) {
  if (task.phase === "refused") {
    const { title, detail, code, temporary } = task.problem;
    return { title, detail, code, again: temporary };
  }
  const { code, detail } = task.record.error;
  if (task.phase === "expired") {
    const explanation = EXPIRED[code]?.(task.record) ?? detail;
    return { title: "This detection has expired", detail: explanation, code, again: true };
  }
  return { title: "The picture could not be examined", detail, code, again: false };
}

/**
 * What it means for pictures that the service does not tell of its model.
 * @param {import("./api.js").Problem} problem
 */
export function unavailable({ code, detail }) {
  const wait = "Pictures can be sent already; they wait in the queue until a worker is ready.";
  return code === "no_worker" ? `${detail} ${wait}` : detail;
}

/**
 * The verdict in words.
 * @param {object} record a succeeded one
 */
export function verdict(record) {
  return VERDICTS[record.verdict];
}

/**
 * What the verdict means, and what it does not.
 * @param {object} record a succeeded one
 */
export function verdictMeaning({ verdict: name, thresholds }) {
  const uncertain = percent(thresholds.uncertain);
  const generated = percent(thresholds.ai_generated);
  return {
    authentic:
      `The score is below ${uncertain}, where this model begins to suspect a picture. ` +
      "It can miss generated pictures, so this does not show that the picture is genuine.",
    uncertain:
      `The score lies between ${uncertain} and ${generated}. ` +
      "The model does not decide; look at the picture by other means.",
    ai_generated:
      `The score is ${generated} or more, where this model calls a picture generated. ` +
      "It can be wrong about genuine pictures, so look at what else is known of this one.",
  }[name];
}

/**
 * Why `manipulated` is what it is.
 * @param {object} record a succeeded one
 */
export function manipulationMeaning({ masks, thresholds }) {
  const area = percent(masks.manipulation.area_fraction);
  const from = percent(thresholds.manipulated_area);
  return `${area} of the picture is marked as changed; ${from} or more counts as yes.`;
}

/**
 * Which part of the picture the model saw.
 * @param {object} view of a record
 */
export function coverage({ mode, tiles, scale }) {
  const part = mode === "tiled" ? "The whole picture" : "The centre of the picture only";
  if (tiles === null) return part;
  return `${part}, in ${tiles}${GLUE}${tiles === 1 ? "tile" : "tiles"}`;
}

/** @param {number?} value crops' scale / picture's scale */
export function scale(value) {
  if (value === null) return "unknown";
  if (value === 1) return "native resolution";
  return `${value < 1 ? "shrunk" : "enlarged"} to ${percent(value)} of its size`;
}

/**
 * One sentence for a screen reader about where a task is; the same as long as nothing new is known.
 * @param {import("./task.js").Task} task
 * @param {boolean} untrained whether the score means nothing
 */
export function announcement(task, untrained) {
  if (task.phase === "sending") return "Uploading the picture.";
  if (!task.finished) return task.trouble === null ? phase(task) : task.trouble.title;
  if (task.phase !== "succeeded") {
    const { title, detail } = failure(task);
    return `${title}. ${detail}`;
  }
  const { record } = task;
  return [
    `Finished. AI score ${percent(record.ai_probability)}: ${verdict(record)}.`,
    `Manipulated: ${record.manipulated ? "yes" : "no"}.`,
    ...(untrained ? ["The model is untrained: these results mean nothing."] : []),
  ].join(" ");
}
