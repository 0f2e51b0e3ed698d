/** Pictures of the service as object URLs: few requests at a time, the latest first. */

import { getPicture } from "./api.js";
import { Problem } from "./problem.js";

const PARALLEL = 6;
const KEPT = 128 * 2 ** 20; // bytes
const TRIES = 4; // when the service answers with Retry-After
const RETRY_DELAY = 2; // s, without Retry-After

/** @type {Map<string, {url: string, bytes: number}>} */
const kept = new Map(); // by path; the least recently used first
/** @type {Map<string, Pending>} */
const waiting = new Map(); // by path; not started yet, the latest last
/** @type {Map<string, Promise<string>>} */
const running = new Map(); // by path
let bytes = 0;

/**
 * @param {string} path
 * @returns {Promise<string>} object URL; to be shown soon, as it is dropped when room is needed
 * @throws {Problem}
 */
export function load(path) {
  const found = kept.get(path);
  if (found !== undefined) {
    kept.delete(path);
    kept.set(path, found);
    return Promise.resolve(found.url);
  }
  const underway = running.get(path);
  if (underway !== undefined) return underway;
  const pending = waiting.get(path) ?? enqueue(path);
  waiting.delete(path);
  waiting.set(path, pending);
  startNext();
  return pending.promise;
}

/**
 * Drop cached pictures below a path.
 * @param {string} prefix
 */
export function forget(prefix) {
  for (const path of [...kept.keys()].filter((path) => path.startsWith(prefix))) drop(path);
}

/**
 * @typedef {{promise: Promise<string>, start: () => void}} Pending
 * @param {string} path
 * @returns {Pending}
 */
function enqueue(path) {
  let start = () => {};
  /** @type {Promise<void>} */
  const started = new Promise((resolve) => {
    start = resolve;
  });
  return { start, promise: started.then(() => fetchOne(path)) };
}

function startNext() {
  while (running.size < PARALLEL) {
    const latest = [...waiting].at(-1);
    if (latest === undefined) return;
    const [path, { promise, start }] = latest;
    waiting.delete(path);
    running.set(path, promise);
    start();
  }
}

/** @param {string} path */
async function fetchOne(path) {
  try {
    const blob = await getWithRetries(path);
    const url = URL.createObjectURL(blob);
    kept.set(path, { url, bytes: blob.size });
    bytes += blob.size;
    for (const oldest of kept.keys()) {
      if (bytes <= KEPT || oldest === path) break;
      drop(oldest);
    }
    return url;
  } finally {
    running.delete(path);
    startNext();
  }
}

/**
 * @param {string} path
 * @returns {Promise<Blob>}
 */
async function getWithRetries(path) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await getPicture(path);
    } catch (problem) {
      if (!(problem instanceof Problem) || ![429, 503].includes(problem.status)) throw problem;
      if (tries === TRIES) throw problem;
      const seconds = problem.retryAfter ?? RETRY_DELAY;
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

/** @param {string} path */
function drop(path) {
  const dropped = kept.get(path);
  if (dropped === undefined) return;
  URL.revokeObjectURL(dropped.url);
  kept.delete(path);
  bytes -= dropped.bytes;
}
