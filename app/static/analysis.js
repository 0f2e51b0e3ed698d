/**
 * Worker that computes views of a picture's pixels: error level, noise residual, JPEG grid.
 * Answers `{kind, file}` by `{image, reduced}`, or `{failed: true}` if the file cannot be decoded.
 */

const MOST = 24e6; // pixels; larger pictures are shrunk
const QUALITY = 0.9; // of the JPEG that the error level compares with
const ERROR_GAIN = 15;
const NOISE_GAIN = 8;
const BLOCK = 8; // pixels, side of a block of JPEG
const PATCH = 64; // pixels, side of the squares that the grid is found in
const LARGEST_STEP = 30; // larger ones are edges of things, and count as this one
const CLEAR = 1.35; // how much more one place of the grid differs than the mean, to count as a grid

/** @type {Record<string, (picture: ImageData, canvas: OffscreenCanvas) => ImageData | Promise<ImageData>>} */
const VIEWS = { error: errorLevel, noise: noiseResidual, grid: jpegGrid };

self.addEventListener("message", async ({ data: { kind, file } }) => {
  try {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, Math.sqrt(MOST / (bitmap.width * bitmap.height)));
    const canvas = new OffscreenCanvas(Math.round(bitmap.width * scale), Math.round(bitmap.height * scale));
    const context = contextOf(canvas);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const picture = context.getImageData(0, 0, canvas.width, canvas.height);
    context.putImageData(await VIEWS[kind](picture, canvas), 0, 0);
    self.postMessage({ image: await canvas.convertToBlob(), reduced: scale < 1 });
  } catch {
    self.postMessage({ failed: true });
  }
});

/** @param {OffscreenCanvas} canvas */
function contextOf(canvas) {
  return /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
}

/**
 * Difference from the same picture saved as a JPEG.
 * @param {ImageData} picture
 * @param {OffscreenCanvas} canvas that shows it
 */
async function errorLevel(picture, canvas) {
  const { width, height, data } = picture;
  const saved = await createImageBitmap(await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY }));
  const context = contextOf(new OffscreenCanvas(width, height));
  context.drawImage(saved, 0, 0);
  const made = context.getImageData(0, 0, width, height);
  for (let at = 0; at < data.length; at += 1) {
    made.data[at] = at % 4 === 3 ? 255 : Math.abs(made.data[at] - data[at]) * ERROR_GAIN;
  }
  return made;
}

/**
 * Difference from the median of 3 × 3 pixels; grey is none.
 * @param {ImageData} picture
 */
function noiseResidual(picture) {
  const { width, height } = picture;
  const grey = luma(picture);
  const made = new ImageData(width, height);
  const nine = new Uint8Array(9);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      let count = 0;
      for (let dy = -1; dy <= 1; dy += 1) {
        const row = Math.min(height - 1, Math.max(0, y + dy)) * width;
        for (let dx = -1; dx <= 1; dx += 1) {
          const value = grey[row + Math.min(width - 1, Math.max(0, x + dx))];
          let place = count;
          for (; place > 0 && nine[place - 1] > value; place -= 1) nine[place] = nine[place - 1];
          nine[place] = value;
          count += 1;
        }
      }
      const at = y * width + x;
      paint(made.data, at, 128 + (grey[at] - nine[4]) * NOISE_GAIN);
    }
  }
  return made;
}

/**
 * Where the edges of 8 × 8 blocks lie: grey as in most of the picture, red elsewhere, black without.
 * @param {ImageData} picture
 */
function jpegGrid(picture) {
  const { width, height } = picture;
  const grey = luma(picture);
  const columns = Math.ceil(width / PATCH);
  const found = Array.from({ length: columns * Math.ceil(height / PATCH) }, (_, patch) =>
    gridOf(grey, width, height, (patch % columns) * PATCH, Math.floor(patch / columns) * PATCH),
  );
  const counts = new Map();
  for (const place of found) if (place !== null) counts.set(place, (counts.get(place) ?? 0) + 1);
  const usual = [...counts].sort(([, one], [, other]) => other - one)[0]?.[0];
  const made = new ImageData(width, height);
  for (let at = 0; at < width * height; at += 1) {
    const place = found[Math.floor(Math.floor(at / width) / PATCH) * columns + Math.floor((at % width) / PATCH)];
    const dim = grey[at] / 4;
    if (place === null) paint(made.data, at, dim);
    else if (place === usual) paint(made.data, at, dim + 110);
    else paint(made.data, at, dim + 170, dim, dim);
  }
  return made;
}

/**
 * Place of the grid within a patch, 0 to 63, or null if none stands out.
 * @param {Uint8Array} grey
 * @param {number} width
 * @param {number} height
 * @param {number} left
 * @param {number} top
 */
function gridOf(grey, width, height, left, top) {
  const across = new Float64Array(BLOCK);
  const down = new Float64Array(BLOCK);
  const right = Math.min(left + PATCH, width - 2);
  const bottom = Math.min(top + PATCH, height - 2);
  for (let y = Math.max(top, 1); y < bottom; y += 1) {
    for (let x = Math.max(left, 1); x < right; x += 1) {
      const at = y * width + x;
      // A step that is not the continuation of the slopes on both sides.
      const sideways = 3 * (grey[at] - grey[at + 1]) - grey[at - 1] + grey[at + 2];
      const upwards = 3 * (grey[at] - grey[at + width]) - grey[at - width] + grey[at + 2 * width];
      across[x % BLOCK] += Math.min(Math.abs(sideways), LARGEST_STEP);
      down[y % BLOCK] += Math.min(Math.abs(upwards), LARGEST_STEP);
    }
  }
  const [column, row] = [strongest(across), strongest(down)];
  return column === null || row === null ? null : row * BLOCK + column;
}

/** @param {Float64Array} sums */
function strongest(sums) {
  const most = Math.max(...sums);
  const others = (sums.reduce((sum, value) => sum + value, 0) - most) / (sums.length - 1);
  return most > CLEAR * others ? sums.indexOf(most) : null;
}

/** @param {ImageData} picture */
function luma({ width, height, data }) {
  const grey = new Uint8Array(width * height);
  for (let at = 0; at < grey.length; at += 1) {
    grey[at] = 0.299 * data[4 * at] + 0.587 * data[4 * at + 1] + 0.114 * data[4 * at + 2];
  }
  return grey;
}

/**
 * @param {Uint8ClampedArray} data
 * @param {number} at pixel
 * @param {number} red
 * @param {number} [green]
 * @param {number} [blue]
 */
function paint(data, at, red, green = red, blue = red) {
  data[4 * at] = red;
  data[4 * at + 1] = green;
  data[4 * at + 2] = blue;
  data[4 * at + 3] = 255;
}
