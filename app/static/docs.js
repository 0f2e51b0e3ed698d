/* Shows the OpenAPI document with Swagger UI, which its bundle puts into the global scope, and below
   it the problems: the `type` of each leads there. */

const dark = matchMedia("(prefers-color-scheme: dark)");

function followScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

dark.addEventListener("change", followScheme);
followScheme();

/** @typedef {Record<string, {value: {status: number, title: string, detail: string}}>} Examples */

const openapi = await (await fetch("openapi.json")).json();
openapi.servers = [{ url: new URL(".", location.href).pathname }]; // the API has the same path as this page
/** @type {Map<string, Examples[string]["value"]>} */
const problems = new Map();
for (const operations of Object.values(openapi.paths)) {
  for (const { responses } of Object.values(operations)) {
    for (const { content } of Object.values(responses)) {
      const examples = content?.["application/problem+json"]?.examples ?? {};
      for (const [code, { value }] of Object.entries(examples)) problems.set(code, value);
    }
  }
}

const list = /** @type {HTMLElement} */ (document.querySelector("dl"));
for (const [code, { status, title, detail }] of [...problems].sort()) {
  const term = document.createElement("dt");
  term.id = code;
  term.textContent = `${code}: ${status}, ${title}`;
  const description = document.createElement("dd");
  description.textContent = detail;
  list.append(term, description);
}

const asked = location.hash.slice(1);
/** @type {any} */ (window).SwaggerUIBundle({
  spec: openapi,
  dom_id: "#swagger-ui",
  deepLinking: !problems.has(asked),
  validatorUrl: null, // send nothing to another host
  onComplete: () => document.getElementById(asked)?.scrollIntoView(),
});
