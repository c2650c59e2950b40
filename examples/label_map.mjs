// A picture to its label map in JavaScript, with a file that `pixelwise export MODEL --bake --out model.onnx` wrote.
//
//     npm install onnxruntime-web
//     node label_map.mjs model.onnx picture.ppm labels.pgm
//
// The graph resizes, normalises and decides: what goes in is the picture as it is, what comes out are the ids of the
// classes. In a browser (label_map.html) the same function takes the pixels of a canvas. A binary PPM is the simplest of
// pictures; any decoder's RGB will do.

/** ort: onnxruntime-web or onnxruntime-node. session: of a baked file. rgb: Uint8Array of height * width * 3.
 * Returns the ids, height * width of them, row by row. */
export async function labelMap(ort, session, rgb, height, width) {
  const picture = new ort.Tensor("uint8", rgb, [1, height, width, 3]);
  const { labels } = await session.run({ picture });
  return labels.data;
}

/** Of the RGBA pixels of a canvas, those of a picture without transparency. */
export function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return rgb;
}

async function main([model, from, to]) {
  if (to === undefined) throw new Error("usage: node label_map.mjs MODEL.onnx PICTURE.ppm LABELS.pgm");
  const { readFile, writeFile } = await import("node:fs/promises");
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  const file = await readFile(from);
  const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(file.toString("latin1", 0, 100));
  if (header === null) throw new Error(`${from} is no binary PPM`);
  const [width, height] = [Number(header[1]), Number(header[2])];
  const rgb = new Uint8Array(file.subarray(header[0].length));
  const session = await ort.InferenceSession.create(await readFile(model));
  if (!session.inputNames.includes("picture")) throw new Error(`${model} was not exported with --bake`);
  if (rgb.length < 3 * width * height) throw new Error(`${from} is broken off`);
  const labels = await labelMap(ort, session, rgb, height, width);
  await writeFile(to, Buffer.concat([Buffer.from(`P5\n${width} ${height}\n255\n`), Buffer.from(labels)]));
  const counts = new Map();
  for (const id of labels) counts.set(id, (counts.get(id) ?? 0) + 1);
  const sorted = [...counts].sort((one, other) => other[1] - one[1]);
  for (const [id, count] of sorted) console.log(`class ${id}: ${((100 * count) / labels.length).toFixed(1)} %`);
}

if (typeof process !== "undefined" && process.argv[1]?.endsWith("label_map.mjs")) await main(process.argv.slice(2));
