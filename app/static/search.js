/** Links to reverse image searches: other services, to which the picture then goes. */

import { element } from "./dom.js";

const LONGEST_ADDRESS = 199; // characters; a longer reference may have been cut

/** Pages to upload a picture to, and beginnings of links that search for the address of a picture. */
const ENGINES = [
  { name: "TinEye", upload: "https://tineye.com/", search: "https://tineye.com/search?url=" },
  {
    name: "Google Lens",
    upload: "https://lens.google.com/",
    search: "https://lens.google.com/uploadbyurl?url=",
  },
];

/**
 * Links for one picture, and what they disclose.
 * @param {string?} reference of the detection; the address of a picture that was fetched
 * @returns {Node[]}
 */
export function searchLinks(reference) {
  const address = reference !== null && isAddress(reference) ? reference : null;
  const links = ENGINES.map(({ name, upload, search }) => {
    const href = address === null ? upload : search + encodeURIComponent(address);
    return element("a", { href, target: "_blank", rel: "noopener noreferrer" }, `${name} ↗`);
  });
  return [
    element("h3", {}, "Search for earlier copies"),
    element(
      "p",
      { className: "fine" },
      ...(address === null
        ? ["Save the original above and upload it there. The picture then leaves your organisation."]
        : ["The link sends this address to another company: ", element("bdi", {}, address), "."]),
      " Ask first whether you may.",
    ),
    element("div", { className: "actions" }, ...links),
  ];
}

/** @param {string} text */
function isAddress(text) {
  return /^https?:\/\//.test(text) && text.length <= LONGEST_ADDRESS && URL.canParse(text);
}
