/**
 * The calls of the HTTP API that this page uses. Each sends the key, if there is one. URLs are relative
 * to the page, so that a proxy can serve both at any path.
 */

import { askForKey, currentKey } from "./key.js";
import { Problem, problemOf, unreachable, unreadable } from "./problem.js";

/**
 * Answers contain all fields, also those without a value.
 * @template T
 * @typedef {T extends object ? {[K in keyof T]-?: Complete<Exclude<T[K], undefined>>} : T} Complete
 */

/**
 * @typedef {Complete<import("gamma-api").DetectionOutput>} Detection
 * @typedef {Complete<import("gamma-api").DetectionList>} DetectionList
 * @typedef {Complete<import("gamma-api").ModelFacts>} ModelFacts
 * @typedef {import("gamma-api").Head} Layer
 */

const DETECTIONS = "v1/detections";
const FRAMES = 8; // of an animation, or pages; all that the service examines
const NOT_MODIFIED = 304;
const KEPT_LISTS = 8; // answers, to be used again
const LONGEST_REFERENCE = 200; // characters

/** Maximum number of ids in a request, and of records in an answer. */
export const PAGE = 100;

/**
 * @typedef {object} Sending
 * @property {string} idempotencyKey the same for each try, so that the service takes the picture once
 * @property {AbortSignal} signal
 * @property {(fraction: number) => void} onProgress called with the share that is sent
 *
 * @typedef {{record: Detection, requestId: string?}} Accepted
 */

/**
 * Send a picture with its name as the reference, so that the name survives a reload.
 * @param {File} file
 * @param {Sending} options
 * @returns {Promise<Accepted>}
 * @throws {import("./problem.js").Problem}
 */
export async function submit(file, options) {
  for (;;) {
    const key = currentKey();
    try {
      return await send(file, key, options);
    } catch (error) {
      if (!(error instanceof Problem) || !error.wantsKey || !(await askForKey(key))) throw error;
    }
  }
}

/**
 * @param {File} file
 * @param {string?} key
 * @param {Sending} options
 * @returns {Promise<Accepted>}
 */
function send(file, key, { idempotencyKey, signal, onProgress }) {
  // XMLHttpRequest, because fetch does not report upload progress.
  const request = new XMLHttpRequest();
  const form = new FormData();
  form.append("file", file, file.name.split("/").at(-1)); // the path is in the reference
  if (file.name !== "") form.append("ref_id", reference(file.name));
  form.append("frames", String(FRAMES));
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const stop = () => request.abort();
    signal.addEventListener("abort", stop, { once: true });
    request.addEventListener("loadend", () => signal.removeEventListener("abort", stop));
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("abort", () => reject(signal.reason));
    request.addEventListener("error", () =>
      reject(
        unreachable(
          "The connection ended while the picture was being sent: the file could not be read, " +
            "the service refused it unread because of its size, or the network failed.",
        ),
      ),
    );
    request.addEventListener("load", () => {
      const header = (/** @type {string} */ name) => request.getResponseHeader(name);
      if (request.status >= 400) {
        reject(problemOf(request.status, header, request.response));
      } else if (request.response === null) {
        reject(unreadable(request.status, header));
      } else {
        resolve({ record: request.response, requestId: header("X-Request-ID") });
      }
    });
    request.open("POST", DETECTIONS);
    request.setRequestHeader("Idempotency-Key", idempotencyKey);
    if (key !== null) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.responseType = "json";
    request.send(form);
  });
}

/**
 * Return a page of the caller's detections, newest first.
 * @param {string?} next link that the page before gave; null for the first page
 * @returns {Promise<DetectionList>}
 * @throws {import("./problem.js").Problem}
 */
export async function listDetections(next) {
  const query = next === null ? `?limit=${PAGE}` : new URL(next, location.href).search;
  return (await askList(query)).list;
}

/**
 * Return the records of some detections.
 * @param {string[]} ids at most `PAGE`
 * @returns {Promise<DetectionList & {requestId: string?}>} `missing`: ids that do not exist, or not
 *     for this caller
 * @throws {import("./problem.js").Problem}
 */
export async function getDetections(ids) {
  const { list, requestId } = await askList(`?ids=${ids.map(encodeURIComponent).join(",")}`);
  return { ...list, requestId };
}

/** @type {Map<string, {tag: string, list: DetectionList}>} by key and query; the latest last */
const lists = new Map();

/**
 * Request a list; one that has not changed is not sent again.
 * @param {string} query
 */
async function askList(query) {
  const name = `${currentKey()} ${query}`;
  const known = lists.get(name);
  const response = await ask(`${DETECTIONS}${query}`, {}, known?.tag);
  const requestId = response.headers.get("X-Request-ID");
  if (response.status === NOT_MODIFIED && known !== undefined) return { list: known.list, requestId };
  /** @type {DetectionList} */
  const list = await json(response);
  const tag = response.headers.get("ETag");
  lists.delete(name);
  if (tag !== null) lists.set(name, { tag, list });
  for (const oldest of lists.keys()) if (lists.size > KEPT_LISTS) lists.delete(oldest);
  return { list, requestId };
}

/**
 * Let the service fetch a picture, with its address as the reference.
 * @param {string} url
 * @returns {Promise<Accepted>}
 * @throws {import("./problem.js").Problem}
 */
export async function submitLink(url) {
  const fields = JSON.stringify({ url, ref_id: reference(url), frames: FRAMES });
  const body = new Blob([fields], { type: "application/json" });
  const response = await ask(DETECTIONS, { method: "POST", body });
  return { record: await json(response), requestId: response.headers.get("X-Request-ID") };
}

/**
 * Delete a detection. One that does not exist is not an error.
 * @param {string} id
 * @throws {import("./problem.js").Problem}
 */
export async function deleteDetection(id) {
  try {
    await ask(detectionPath(id), { method: "DELETE" });
  } catch (problem) {
    if (!(problem instanceof Problem) || problem.status !== 404) throw problem;
  }
}

/**
 * Return facts about the model.
 * @returns {Promise<ModelFacts>}
 * @throws {import("./problem.js").Problem}
 */
export async function getModel() {
  return json(await ask("v1/model"));
}

/**
 * Download a picture, mask or overlay.
 * @param {string} path
 * @returns {Promise<Blob>}
 * @throws {import("./problem.js").Problem}
 */
export async function getPicture(path) {
  const response = await ask(path, { cache: "default" });
  try {
    return await response.blob();
  } catch {
    throw unreachable("The connection ended within the picture.");
  }
}

/** Return whether the service answers. */
export async function isAlive() {
  try {
    return (await fetch("livez", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

/**
 * Path of the record.
 * @param {string} id
 */
export function detectionPath(id) {
  return `${DETECTIONS}/${encodeURIComponent(id)}`;
}

/**
 * Path of the picture in a form that any browser can show: upright, as the model saw it; of several
 * frames the one that the masks are of.
 * @param {Pick<Detection, "id"> & Partial<Detection>} record
 * @param {number} size longest side, pixels; pictures are never enlarged
 * @param {number?} [frame] another of the examined frames
 */
export function renditionPath({ id, frames, view }, size, frame = frames ? (view?.frame ?? null) : null) {
  return `${detectionPath(id)}/image?size=${size}${frame === null ? "" : `&frame=${frame}`}`;
}

/**
 * Path of a layer's heat map.
 * @param {string} id
 * @param {string} layer `ai` or `manipulation`
 * @param {string} query how it is drawn
 */
export function overlayPath(id, layer, query) {
  return `${detectionPath(id)}/overlays/${layer}.png?${query}`;
}

/**
 * Path of a layer's probabilities.
 * @param {string} id
 * @param {string} layer `ai` or `manipulation`
 */
export function maskPath(id, layer) {
  return `${detectionPath(id)}/masks/${layer}.png`;
}

/**
 * Path of the picture as it was uploaded.
 * @param {string} id
 */
export function originalPath(id) {
  return `${detectionPath(id)}/image`;
}

/**
 * Path of the report.
 * @param {string} id
 */
export function reportPath(id) {
  return `${detectionPath(id)}/report.html`;
}

/**
 * Return a name that the service accepts: printable characters, limited length.
 * @param {string} name
 */
function reference(name) {
  return [...name.replace(/[\p{C}\p{Z}]/gu, " ")].slice(0, LONGEST_REFERENCE).join("");
}

/**
 * Send a request, with the key if there is one.
 * @param {string} path
 * @param {RequestInit & {headers?: Record<string, string>}} options
 * @param {string} [tag] `ETag` of an earlier answer
 * @returns {Promise<Response>} a success, or status 304
 * @throws {import("./problem.js").Problem}
 */
export async function ask(path, options = {}, tag) {
  for (;;) {
    const key = currentKey();
    /** @type {Record<string, string>} */
    const headers = { ...options.headers };
    if (key !== null) headers.Authorization = `Bearer ${key}`;
    if (tag !== undefined) headers["If-None-Match"] = tag;
    /** @type {Response} */
    let response;
    try {
      response = await fetch(path, { cache: "no-store", ...options, headers });
    } catch {
      throw unreachable();
    }
    if (response.ok || response.status === NOT_MODIFIED) return response;
    const body = await response.json().catch(() => null);
    const problem = problemOf(response.status, (name) => response.headers.get(name), body);
    if (!problem.wantsKey || !(await askForKey(key))) throw problem;
  }
}

/**
 * The body of an answer.
 * @param {Response} response
 * @throws {import("./problem.js").Problem}
 */
export async function json(response) {
  try {
    return await response.json();
  } catch {
    throw unreadable(response.status, (name) => response.headers.get(name));
  }
}
