// wllama with the model of this page. Its files lie beside the page, or, named as #ID, inside it: base64 of gzip.
import { find } from "./dom.js";

const inside = (place) => place.startsWith("#");
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

async function unpack(id) {
  const block = find(id);
  const packed = await fetch(`data:application/octet-stream;base64,${block.textContent}`);
  block.remove(); // frees its memory
  return new Response(packed.body.pipeThrough(new DecompressionStream("gzip"))).blob();
}

// A file of the page as a blob; `report` gets the number of bytes received so far.
async function open(place, report = () => {}) {
  if (inside(place)) return unpack(place);
  const response = await fetch(place);
  if (!response.ok) throw new Error(`${place} is not there (the server answered ${response.status}).`);
  let received = 0;
  const counted = new TransformStream({
    transform(chunk, out) {
      report((received += chunk.length));
      out.enqueue(chunk);
    },
  });
  return new Response(response.body.pipeThrough(counted)).blob();
}

// A worker at file:// may read data: addresses, and no others.
async function address(place, type) {
  if (!inside(place)) return new URL(place, document.baseURI).href;
  const reader = new FileReader();
  const blob = new Blob([await unpack(place)], { type });
  return new Promise((resolve, reject) => {
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

const OPTIONS = {
  suppressNativeLog: true,
  logger: { debug() {}, log() {}, warn() {}, error: console.error },
  cacheManager: {}, // keeps nothing: wllama's own ends at once where a browser gives a page no storage
};

// Whether this browser lacks what wllama's fast build needs. wllama says so once it knows of a compatible build.
function needsCompat(Wllama) {
  const probe = new Wllama({ default: "unused" }, OPTIONS);
  probe.setCompat({ worker: "unused", wasm: "unused" });
  return probe.getWorkerResources().compat;
}

// Load the engine and the model. `about.load` are wllama's settings; `report` shows a line of progress.
export async function openEngine({ files, load, bytes }, report) {
  report("Loading the engine …");
  const { Wllama } = await import(await address(files.module, "text/javascript"));
  const compat = needsCompat(Wllama);
  const wasm = await address(compat ? files.compat_wasm : files.wasm, "application/wasm");
  const wllama = new Wllama({ default: wasm }, OPTIONS);
  // Always set: else wllama takes its compatible build from another host.
  const worker = compat && { code: await (await open(files.compat_worker)).text() };
  wllama.setCompat(compat ? { worker, wasm } : null);
  report("Loading the model …");
  const model = await open(files.model,
    (received) => report(`Loading the model: ${megabytes(received)} of ${megabytes(bytes)} MB`));
  await wllama.loadModel([model], load);
  report("");
  return wllama;
}
