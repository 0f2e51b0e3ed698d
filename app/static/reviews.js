/** The calls of the HTTP API about reviews: decisions, and who has which detection open. */

import { PAGE, ask, detectionPath, json } from "./api.js";

/**
 * @template T
 * @typedef {import("./api.js").Complete<T>} Complete
 */
/**
 * @typedef {Complete<import("gamma-api").Review>} Review
 * @typedef {Complete<import("gamma-api").Assignment>} Assignment
 * @typedef {Complete<import("gamma-api").ReviewState>} ReviewState
 * @typedef {Complete<import("gamma-api").ReviewList>} ReviewList
 * @typedef {Complete<import("gamma-api").NextDetection>} NextDetection
 * @typedef {import("gamma-api").NewReview["decision"]} Opinion
 * @typedef {{decision: Opinion, note: string, reviewer: string}} NewReview
 */

const REVIEWS = "v1/reviews";

/**
 * The current decisions about some detections, and who has which of them open.
 * @param {string[]} ids at most `PAGE`
 * @returns {Promise<ReviewList>}
 * @throws {import("./problem.js").Problem}
 */
export async function getReviews(ids) {
  return json(await ask(`${REVIEWS}?ids=${ids.map(encodeURIComponent).join(",")}`));
}

/**
 * All decisions and withdrawals since a time, newest first.
 * @param {string?} since null: the newest ones
 * @returns {Promise<Review[]>}
 * @throws {import("./problem.js").Problem}
 */
export async function getReviewsSince(since) {
  const query = since === null ? "" : `&since=${encodeURIComponent(since)}`;
  /** @type {Review[]} */
  const found = [];
  /** @type {string?} */
  let next = `?history=true&limit=${PAGE}${query}`;
  while (next !== null) {
    /** @type {ReviewList} */
    const page = await json(await ask(`${REVIEWS}${next}`));
    found.push(...page.reviews);
    next = page.next === null || since === null ? null : new URL(page.next, location.href).search;
  }
  return found;
}

/**
 * The decision about a detection with its history, and the tag that names this state.
 * @param {string} id
 * @returns {Promise<{state: ReviewState, tag: string?}>}
 * @throws {import("./problem.js").Problem}
 */
export async function getState(id) {
  const response = await ask(reviewPath(id));
  return { state: await json(response), tag: response.headers.get("ETag") };
}

/**
 * Decide.
 * @param {string} id
 * @param {NewReview} review
 * @param {string?} tag of the state that the reviewer saw; null: one without a decision
 * @returns {Promise<{review: Review, tag: string?}>}
 * @throws {import("./problem.js").Problem} `review_conflict` if there is another state by now
 */
export async function postReview(id, review, tag) {
  const response = await ask(reviewPath(id), {
    method: "POST",
    headers: { "Content-Type": "application/json", ...condition(tag) },
    body: JSON.stringify(review),
  });
  return { review: await json(response), tag: response.headers.get("ETag") };
}

/**
 * Withdraw the current decision.
 * @param {string} id
 * @param {string} reviewer display name
 * @param {string?} tag of the state that the reviewer saw
 * @returns {Promise<{state: ReviewState, tag: string?}>}
 * @throws {import("./problem.js").Problem} `review_conflict` if there is another state by now
 */
export async function deleteReview(id, reviewer, tag) {
  const response = await ask(`${reviewPath(id)}?${named(reviewer)}`, {
    method: "DELETE",
    headers: condition(tag),
  });
  return { state: await json(response), tag: response.headers.get("ETag") };
}

/**
 * Open the next undecided detection that nobody else has open.
 * @param {string} reviewer display name
 * @param {string?} after skip this detection and older ones
 * @returns {Promise<NextDetection>}
 * @throws {import("./problem.js").Problem}
 */
export async function takeNext(reviewer, after) {
  const skipped = after === null ? "" : `&after=${encodeURIComponent(after)}`;
  return json(await ask(`${REVIEWS}/next?${named(reviewer)}${skipped}`, { method: "POST" }));
}

/**
 * The detections that this person, and those that anybody of the team has open.
 * @param {string} reviewer display name
 * @returns {Promise<{mine: Assignment[], all: Assignment[]}>}
 * @throws {import("./problem.js").Problem}
 */
export async function getAssigned(reviewer) {
  const queries = [named(reviewer), "team=true"];
  const answers = await Promise.all(queries.map(async (query) => json(await ask(`${REVIEWS}/assigned?${query}`))));
  const [mine, all] = answers.map(({ assignments }) => assignments);
  return { mine, all };
}

/**
 * Open a detection, or keep it open.
 * @param {string} id
 * @param {string} reviewer display name
 * @returns {Promise<{assignment: Assignment, lifetime: number}>} `lifetime`: ms until it expires
 * @throws {import("./problem.js").Problem} `assignment_taken` if somebody else has it open
 */
export async function putAssignment(id, reviewer) {
  const response = await ask(`${assignmentPath(id)}?${named(reviewer)}`, { method: "PUT" });
  /** @type {Assignment} */
  const assignment = await json(response);
  const now = Date.parse(response.headers.get("Date") ?? "") || Date.now(); // by the clock of the service
  return { assignment, lifetime: Date.parse(assignment.expires_at) - now };
}

/**
 * Close a detection; also while the page is being left.
 * @param {string} id
 * @param {string} reviewer display name
 * @throws {import("./problem.js").Problem}
 */
export async function deleteAssignment(id, reviewer) {
  await ask(`${assignmentPath(id)}?${named(reviewer)}`, { method: "DELETE", keepalive: true });
}

/** @param {string} id */
function reviewPath(id) {
  return `${detectionPath(id)}/review`;
}

/** @param {string} id */
function assignmentPath(id) {
  return `${detectionPath(id)}/assignment`;
}

/** @param {string} reviewer */
function named(reviewer) {
  return `reviewer=${encodeURIComponent(reviewer)}`;
}

/**
 * @param {string?} tag
 * @returns {Record<string, string>}
 */
function condition(tag) {
  return tag === null ? { "If-None-Match": "*" } : { "If-Match": tag };
}
