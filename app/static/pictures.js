/** Pictures of the service as object URLs: few requests at a time, the latest wish first. */

import { getPicture } from "./api.js";
import { Problem } from "./problem.js";

const PARALLEL = 6;
const KEPT = 128 * 2 ** 20; // bytes
const TRIES = 4; // where the service asks for patience
const PATIENCE = 2; // s, where it names no time

const kept = new Map(); // path → { url, bytes }; the least recently used first
const wanted = new Map(); // path → { promise, start }; not started yet, the latest last
const running = new Map(); // path → promise
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
  if (running.has(path)) return running.get(path);
  const before = wanted.get(path);
  wanted.delete(path);
  wanted.set(path, before ?? wish(path));
  startNext();
  return running.get(path) ?? wanted.get(path).promise;
}

/**
 * Drop what is kept below a path.
 * @param {string} prefix
 */
export function forget(prefix) {
  for (const path of [...kept.keys()].filter((path) => path.startsWith(prefix))) drop(path);
}

function wish(path) {
  let start;
  const started = new Promise((resolve) => {
    start = resolve;
  });
  return { start, promise: started.then(() => fetchOne(path)) };
}

function startNext() {
  while (running.size < PARALLEL && wanted.size > 0) {
    const [path, { promise, start }] = [...wanted].at(-1);
    wanted.delete(path);
    running.set(path, promise);
    start();
  }
}

async function fetchOne(path) {
  try {
    const blob = await patiently(path);
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

async function patiently(path) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await getPicture(path);
    } catch (problem) {
      const asked = problem instanceof Problem && [429, 503].includes(problem.status);
      if (!asked || tries === TRIES) throw problem;
      const seconds = problem.retryAfter ?? PATIENCE;
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

function drop(path) {
  const { url, bytes: freed } = kept.get(path);
  URL.revokeObjectURL(url);
  kept.delete(path);
  bytes -= freed;
}
