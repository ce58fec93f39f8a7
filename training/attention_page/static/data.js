// The record of the page, as training/attention_page/packing.py packs it: maps, queries, keys, values and measures.
import { find } from "./dom.js";

async function unpack(name) {
  const text = atob(find(`#${name}`).textContent);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < bytes.length; place++) bytes[place] = text.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const ABSENT = 65535;
const same = ([layer, head]) => (other) => other[0] === layer && other[1] === head;
const cells = (tokens) => (tokens * (tokens + 1)) / 2;

// A probability as it is stored: 255 * sqrt(p).
export const probability = (stored) => (stored / 255) ** 2;

// The place of the item that is nearest to a number.
export const nearest = (items, number) =>
  items.reduce((best, item, place) => (Math.abs(item - number) < Math.abs(items[best] - number) ? place : best), 0);

class RecordOfRun {
  constructor(figures, scores, maps, vectors, scales) {
    Object.assign(this, figures); // layers, heads, steps, probes, ..., see packing.py
    this.names = Object.keys(this.measures);
    this.scores = new Uint16Array(scores.buffer);
    this.maps = maps;
    this.vectors = new Int8Array(vectors.buffer);
    this.scales = new Float32Array(scales.buffer);
    this.vector_heads = []; // those of `vector_moments`, each once
    for (const { head } of this.vector_moments) if (!this.vector_heads.some(same(head))) this.vector_heads.push(head);
    this.starts = [0]; // of each probe in `maps`
    for (const { tokens } of this.probes) {
      const length = cells(tokens.length);
      const last = this.starts.at(-1);
      this.starts.push(last + this.map_heads.length * this.map_steps.length * length);
      for (let place = last; place < this.starts.at(-1); place++) {
        const step = Math.floor((place - last) / length) % this.map_steps.length;
        if (step) maps[place] += maps[place - length]; // differences from step to step, modulo 256
      }
    }
  }

  // The lower triangle of a head's map, row by row, as it is stored; null if the page does not hold it.
  triangle(frame, probe, head) {
    const place = this.map_heads.findIndex(same(head));
    if (place < 0) return null;
    const length = cells(this.probes[probe].tokens.length);
    const start = this.starts[probe] + (place * this.map_steps.length + frame) * length;
    return this.maps.subarray(start, start + length);
  }

  // Queries, keys and values of one of `vector_heads`, at the step nearest to a frame: each (tokens * head_dim).
  vectorsOf(frame, probe, head) {
    const moments = this.vector_moments.filter((moment) => same(head)(moment.head));
    const moment = moments[nearest(moments.map(({ step }) => step), this.map_steps[frame])];
    const all = this.probes.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const before = this.probes.slice(0, probe).reduce((sum, { tokens }) => sum + tokens.length, 0);
    const tokens = this.probes[probe].tokens.length;
    const start = 3 * (this.vector_moments.indexOf(moment) * all + before);
    const [q, k, v] = [0, 1, 2].map((matrix) => {
      const first = start + matrix * tokens;
      const values = new Float32Array(tokens * this.head_dim);
      for (let place = 0; place < values.length; place++) {
        const scale = this.scales[first + Math.floor(place / this.head_dim)];
        values[place] = this.vectors[first * this.head_dim + place] * scale;
      }
      return values;
    });
    return { step: moment.step, q, k, v };
  }

  // A measure of a head at a step (its place in `steps`); null if there is none.
  score(name, kind, step, [layer, head]) {
    const measure = this.names.indexOf(name);
    const place = ((measure * this.kinds.length + kind) * this.steps.length + step) * this.layers + layer;
    const stored = this.scores[place * this.heads + head];
    const [low, high] = this.ranges[name];
    return stored === ABSENT ? null : low + (stored / (ABSENT - 1)) * (high - low);
  }

  // The place in `steps` of the step of a frame.
  placeOf(frame) {
    return this.steps.indexOf(this.map_steps[frame]);
  }

  everyHead() {
    const length = this.layers * this.heads;
    return Array.from({ length }, (_, place) => [Math.floor(place / this.heads), place % this.heads]);
  }
}

export async function openRecord() {
  const blocks = await Promise.all(["scores", "maps", "vectors", "scales"].map(unpack));
  return new RecordOfRun(JSON.parse(find("#figures").textContent), ...blocks);
}
