"""Constant details of errors, by code."""

from __future__ import annotations

from app.contract.schemas import DetectionError, ErrorCode

DETAILS = {
    ErrorCode.ORIGIN_REFUSED: (
        "Without keys, the API accepts only requests from this machine to a loopback host name."
    ),
    ErrorCode.KEY_MISSING: "Send your key in the header `Authorization: Bearer …`.",
    ErrorCode.KEY_INVALID: "This key is unknown or has expired.",
    ErrorCode.FILE_EMPTY: "The file part is empty.",
    ErrorCode.PROCESSING_FAILED: "Processing failed, and no attempt is left.",
    ErrorCode.MODEL_OUTPUT_INVALID: "The model's output was invalid, and no attempt is left.",
    # The same for unknown, deleted and foreign detections.
    ErrorCode.NOT_FOUND: "There is no detection with this id.",
    ErrorCode.DETECTION_FAILED: "The detection failed; its record gives the reason.",
    ErrorCode.DETECTION_EXPIRED: "The picture and its masks are no longer stored.",
    ErrorCode.IDEMPOTENCY_MISMATCH: (
        "This Idempotency-Key was used with another picture, view, frames, ref_id or webhook_url."
    ),
    ErrorCode.QUEUE_TIMEOUT: "No worker took the detection in time.",
    ErrorCode.REDIS_UNAVAILABLE: "The queue cannot be reached at the moment.",
    ErrorCode.STORAGE_SHARE_FULL: (
        "Your pictures, expected results and records use your share of the storage (/v1/usage). "
        "Delete detections, or wait until some end or expire."
    ),
    ErrorCode.STORAGE_FULL: (
        "Redis's memory is used, or reserved for the results of waiting pictures."
    ),
    ErrorCode.STORAGE_UNAVAILABLE: "Pictures cannot be stored or read at the moment.",
    ErrorCode.REVIEW_CONFLICT: "Somebody has changed the review since you read it.",
    ErrorCode.REVIEWS_UNAVAILABLE: (
        "The database of reviews cannot be reached at the moment. Detections are not affected."
    ),
    ErrorCode.NO_WORKER: "No warm worker is alive.",
    ErrorCode.INTERNAL_ERROR: "Internal server error.",
}


def detection_error(code: ErrorCode) -> DetectionError:
    """Error of a failed or expired detection, with the constant detail of the code."""
    return DetectionError(code=code, detail=DETAILS[code])
