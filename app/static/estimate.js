/** Estimates how long an unfinished picture takes, from those that finished before it. */

/** @import { Entry, Result } from "./library.js" */

import { time } from "./library.js";
import { position } from "./states.js";

const SAMPLES = 20; // results that count, the latest

/**
 * Seconds until an entry is probably finished.
 * @param {Entry} entry
 * @param {Iterable<Entry>} entries all of them
 * @param {number} elapsed seconds since the entry's state changed
 * @returns {number?} null if nothing is known
 */
export function remaining(entry, entries, elapsed) {
  const wait = entry.phase === "queued" ? (entry.record?.expected_wait ?? null) : null;
  const finished = [...entries]
    .flatMap(({ result }) => (result === null || result.cached ? [] : result))
    .sort((one, other) => finishedAt(other) - finishedAt(one))
    .slice(0, SAMPLES);
  if (finished.length === 0) return wait;
  const work = median(finished.map(({ timings }) => timings.total - timings.queued));
  if (entry.phase === "processing") return Math.max(work - elapsed, 1);
  if (wait !== null) return wait + work;
  const place = position(entry);
  if (place === null || finished.length < 2) return null;
  const span = (finishedAt(finished[0]) - finishedAt(finished[finished.length - 1])) / 1000;
  return work + (place * span) / (finished.length - 1);
}

/** @param {Result} record */
function finishedAt({ finished_at: at, created_at: from }) {
  return time(at ?? from);
}

/** @param {number[]} values at least one */
function median(values) {
  return [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)];
}
