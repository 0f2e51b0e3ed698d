// Upload a picture, wait for its result, list detections, and read an error.
// GAMMA and GAMMA_KEY are address and key of the service:  node example.mts photo.jpg
import { readFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { paths } from "./gamma.d.ts";

const gamma = createClient<paths>({
  baseUrl: process.env.GAMMA,
  headers: { Authorization: `Bearer ${process.env.GAMMA_KEY}` },
});

async function upload(picture: Uint8Array, refId: string) {
  const { data, error } = await gamma.POST("/v1/detections", {
    // The same key for every attempt, so that a repetition is no second detection.
    params: { header: { "Idempotency-Key": crypto.randomUUID() }, query: { ref_id: refId } },
    // The body is the file alone.
    headers: { "Content-Type": "application/octet-stream" },
    body: picture as never,
    bodySerializer: (bytes) => bytes,
  });
  if (error) throw new Error(`${error.status} ${error.code}: ${error.detail}`);
  return data;
}

async function result(id: string) {
  for (;;) {
    const { data, error } = await gamma.GET("/v1/detections/{detection_id}", {
      params: { path: { detection_id: id }, header: { Prefer: "wait=60" } },
    });
    if (error) throw new Error(`${error.status} ${error.code}: ${error.detail}`);
    if (data.status !== "queued" && data.status !== "processing") return data;
  }
}

const picture = await readFile(process.argv[2] ?? "photo.jpg");
const { id } = await upload(picture, "upload-8812");
const detection = await result(id);
console.log(detection.status, detection.verdict, detection.ai_probability);

const { data: page } = await gamma.GET("/v1/detections", { params: { query: { limit: 10 } } });
console.log(page?.detections.some((one) => one.id === id));

await upload(new TextEncoder().encode("no picture"), "upload-8813").catch((error: Error) =>
  console.log(error.message),
);
