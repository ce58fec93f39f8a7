// The arithmetic of attention: scores, shares and outputs from Q, K and V; that of a single cell in words.
import { percent, quoted, short } from "./canvas.js";
import { probability } from "./data.js";

// Dot products of all queries with all keys: (tokens * tokens), query by key, before the mask.
export function dotProducts(q, k, tokens, size) {
  const products = new Float32Array(tokens * tokens);
  for (let query = 0, place = 0; query < tokens; query++) {
    for (let key = 0; key < tokens; key++, place++) {
      let sum = 0;
      for (let dim = 0; dim < size; dim++) sum += q[query * size + dim] * k[key * size + dim];
      products[place] = sum;
    }
  }
  return products;
}

// Which scores enter the softmax: keys up to the query. A share that is stored as 0 is below 0.000004, or outside the
// sliding window of the layer; leaving it out gives the same shares in both cases.
export const allowed = (triangle, query, key) => key <= query && triangle[(query * (query + 1)) / 2 + key] > 0;

// Shares: softmax of the scaled scores of each query. (tokens * tokens), and the sum of exponentials of each query.
export function softmax(products, triangle, tokens, factor) {
  const shares = new Float32Array(tokens * tokens);
  const highest = new Float32Array(tokens).fill(-Infinity);
  const sums = new Float32Array(tokens);
  for (let query = 0; query < tokens; query++) {
    const row = query * tokens;
    for (let key = 0; key <= query; key++) {
      if (allowed(triangle, query, key)) highest[query] = Math.max(highest[query], products[row + key] * factor);
    }
    for (let key = 0; key <= query; key++) {
      if (!allowed(triangle, query, key)) continue;
      shares[row + key] = Math.exp(products[row + key] * factor - highest[query]);
      sums[query] += shares[row + key];
    }
    for (let key = 0; key <= query; key++) shares[row + key] /= sums[query];
  }
  return { shares, highest, sums };
}

// The largest difference between these shares and the stored map: large where a model changes its scores after the scale.
export function difference(shares, triangle, tokens) {
  let largest = 0;
  for (let query = 0, place = 0; query < tokens; query++) {
    for (let key = 0; key <= query; key++, place++) {
      largest = Math.max(largest, Math.abs(shares[query * tokens + key] - probability(triangle[place])));
    }
  }
  return largest;
}

// Means of the values, weighted by the shares: (tokens * size).
export function outputs(shares, v, tokens, size) {
  const means = new Float32Array(tokens * size);
  for (let query = 0; query < tokens; query++) {
    for (let key = 0; key <= query; key++) {
      const share = shares[query * tokens + key];
      if (share) for (let dim = 0; dim < size; dim++) means[query * size + dim] += share * v[key * size + dim];
    }
  }
  return means;
}

const SHOWN = 4; // terms of a sum
const low = (number) => String(number).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
const two = (number) => number.toFixed(2).replace("-", "−");

// A sum of products, the largest first, of which only some are shown.
function sumOf(terms, first, second) {
  const ordered = terms.sort((one, other) => Math.abs(other[0] * other[1]) - Math.abs(one[0] * one[1]));
  const shown = ordered.slice(0, SHOWN).map(([one, other]) => `${first(one)}×${second(other)}`);
  return [...shown, ...(terms.length > SHOWN ? ["…"] : [])].join(" + ");
}

// A cell of the map, as [title, line] of each stage.
export function spellCell({ q, k, products, weights, triangle }, tokens, factor, size, query, key) {
  const terms = Array.from({ length: size }, (_, dim) => [q[query * size + dim], k[key * size + dim]]);
  const product = products[query * tokens.length + key];
  const score = product * factor;
  const lines = [
    ["Dot product", `q${low(query)} · k${low(key)} = ${sumOf(terms, two, two)} = ${short(product)}   ` +
      `(${size} terms, the largest first)`],
    ["Scale", `${short(product)} × ${short(factor)} = ${short(score)}`],
  ];
  if (key > query) {
    const mask = `token ${key} comes after token ${query}: the score becomes −∞`;
    return [...lines, ["Mask", mask], ["Softmax", "e^−∞ = 0: 0 %"]];
  }
  if (!allowed(triangle, query, key)) {
    return [...lines, ["Softmax", "below 0.0004 %, or outside the sliding window of this layer"]];
  }
  const most = weights.highest[query];
  const share = weights.shares[query * tokens.length + key];
  const part = Math.exp(score - most);
  return [
    ...lines,
    ["Mask", `token ${key} does not come after token ${query}: the score stays`],
    ["Softmax", `e^(score − largest score of the row) = e^(${short(score)} − ${short(most)}) = ${short(part)}, divided by ` +
      `the sum of these over ${query ? `tokens 0 to ${query}` : "token 0"}, ${short(weights.sums[query])}: ${percent(share)}`],
    ["Meaning", `${percent(share)} of what ${quoted(tokens[query])} (token ${query}) reads is the value of ` +
      `${quoted(tokens[key])} (token ${key})`],
  ];
}

// A number of the output, as [title, line].
export function spellOutput({ v, weights, means }, tokens, size, query, dim) {
  const terms = Array.from({ length: query + 1 }, (_, key) =>
    [weights.shares[query * tokens.length + key], v[key * size + dim]]);
  return [
    ["Weighted mean", `output${low(query)}, number ${dim} = ${sumOf(terms, percent, two)} = ` +
      `${two(means[query * size + dim])}   (${terms.length} terms, the largest first)`],
    ["Meaning", `number ${dim} of what ${quoted(tokens[query])} (token ${query}) receives from the tokens before it`],
  ];
}

const MATRICES = { q: ["Query", "looks for"], k: ["Key", "offers"], v: ["Value", "gives to those who read it"] };

// A number of Q, K or V, as [title, line].
export function spellVector(part, values, tokens, size, token, dim) {
  const [title, does] = MATRICES[part];
  return [[title, `number ${dim} of ${size} that token ${token}, ${quoted(tokens[token])}, ${does}: ` +
    `${two(values[token * size + dim])}`]];
}
