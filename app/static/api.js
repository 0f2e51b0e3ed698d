/** The service's HTTP API, as far as this page uses it. */

const DETECTIONS = "/v1/detections";
const TEMPORARY = new Set([0, 429, 502, 503, 504]);

/** A request that gave no result; all fields are fit to be shown. */
export class Problem extends Error {
  /**
   * @param {object} facts
   * @param {string} facts.title
   * @param {string} facts.detail
   * @param {string} facts.code stable code of the service, or one of `unreachable`, `unreadable`
   * @param {number} facts.status HTTP status; 0 if there was no answer
   * @param {string?} [facts.requestId]
   * @param {number?} [facts.retryAfter] seconds after which the service wants to be asked again
   */
  constructor({ title, detail, code, status, requestId = null, retryAfter = null }) {
    super(detail);
    Object.assign(this, { title, detail, code, status, requestId, retryAfter });
  }

  /** Whether the same request may succeed later. */
  get temporary() {
    return TEMPORARY.has(this.status);
  }
}

/**
 * Send a picture.
 * @param {File} file
 * @param {object} options
 * @param {AbortSignal} options.signal
 * @param {(fraction: number) => void} options.onProgress called with the share that is sent
 * @returns {Promise<{record: object, requestId: string?}>}
 * @throws {Problem}
 */
export function submit(file, { signal, onProgress }) {
  // XMLHttpRequest, because fetch does not tell how much of a body is sent.
  const request = new XMLHttpRequest();
  const form = new FormData();
  form.append("file", file);
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("abort", () => reject(signal.reason));
    request.addEventListener("error", () =>
      reject(
        unreachable(
          "The connection ended while the picture was being sent: the service is down, or it " +
            "refused the file unread because of its size.",
        ),
      ),
    );
    request.addEventListener("load", () => {
      const header = (name) => request.getResponseHeader(name);
      if (request.status >= 400) {
        reject(problemOf(request.status, header, request.response));
      } else if (request.response === null) {
        reject(unreadable(request.status, header));
      } else {
        resolve({ record: request.response, requestId: header("X-Request-ID") });
      }
    });
    request.open("POST", DETECTIONS);
    request.responseType = "json";
    request.send(form);
  });
}

/**
 * The record of a detection.
 * @param {string} id
 * @param {AbortSignal} signal
 * @returns {Promise<{record: object, requestId: string?}>}
 * @throws {Problem}
 */
export async function getDetection(id, signal) {
  const response = await get(detectionPath(id), signal);
  return { record: await json(response), requestId: response.headers.get("X-Request-ID") };
}

/**
 * What a live worker says of its model.
 * @returns {Promise<object>}
 * @throws {Problem}
 */
export async function getModel() {
  return json(await get("/v1/model"));
}

/**
 * A picture, mask or overlay.
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>}
 * @throws {Problem}
 */
export async function getPicture(path, signal) {
  const response = await get(path, signal, "default");
  return response.blob();
}

/**
 * Path of the picture as it was uploaded.
 * @param {string} id
 */
export function picturePath(id) {
  return `${detectionPath(id)}/image`;
}

function detectionPath(id) {
  return `${DETECTIONS}/${encodeURIComponent(id)}`;
}

async function get(path, signal, cache = "no-store") {
  let response;
  try {
    response = await fetch(path, { signal, cache });
  } catch (error) {
    signal?.throwIfAborted();
    throw unreachable("There is no answer. The service is down, or the network is.");
  }
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    signal?.throwIfAborted();
    throw problemOf(response.status, (name) => response.headers.get(name), body);
  }
  return response;
}

async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreadable(response.status, (name) => response.headers.get(name));
  }
}

function problemOf(status, header, body) {
  return new Problem({
    title: body?.title ?? `The service answered with HTTP status ${status}`,
    detail: body?.detail ?? "It gave no reason.",
    code: body?.code ?? `http_${status}`,
    status,
    requestId: body?.request_id ?? header("X-Request-ID"),
    retryAfter: Number.parseInt(header("Retry-After"), 10) || null,
  });
}

function unreachable(detail) {
  const title = "The service cannot be reached";
  return new Problem({ title, detail, code: "unreachable", status: 0 });
}

function unreadable(status, header) {
  return new Problem({
    title: "The answer cannot be read",
    detail: "Something that is not this service answered.",
    code: "unreadable",
    status,
    requestId: header("X-Request-ID"),
  });
}
