// Tokens of an answer: each shows its probability, and the most likely others, when it is pointed at.
import { element, find } from "./dom.js";

const visible = (text) => text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "␣") || "(part of a character)";
const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

const BYTES = "bytes:"; // how plain completions name a token that is a part of a character, as in bytes:\\xe2\\x98

function named(token, logprob) {
  if (!token.startsWith(BYTES)) return { token, logprob, bytes: [...new TextEncoder().encode(token)] };
  return { token: "", logprob, bytes: token.match(/[0-9a-f]{2}/g).map((byte) => parseInt(byte, 16)) };
}

// Tokens of a chunk: chat completions list them as objects, plain completions as parallel arrays.
export function tokensOf(choice) {
  const logprobs = choice?.logprobs;
  if (!logprobs) return [];
  if (logprobs.content) return logprobs.content;
  return logprobs.tokens.map((token, place) => ({
    ...named(token, logprobs.token_logprobs[place]),
    top_logprobs: Object.entries(logprobs.top_logprobs?.[place] ?? {}).map(([other, logprob]) => named(other, logprob)),
  }));
}

// A node for every token. The decoder of an answer joins the bytes of characters that take several tokens.
export function tokenNodes(tokens, decoder = new TextDecoder()) {
  return tokens.map((token) => {
    const text = decoder.decode(new Uint8Array(token.bytes), { stream: true });
    const node = element("span", { class: "token" }, text);
    node.token = token;
    return node;
  });
}

function table(token) {
  const others = token.top_logprobs ?? [];
  const same = (other) => String(other.bytes) === String(token.bytes);
  const known = others.some(same);
  const rows = known ? others : [...others, token];
  return element("table", {}, ...rows.map((row) => {
    const bar = element("i");
    bar.style.width = `${100 * Math.exp(row.logprob)}%`;
    return element("tr", { class: same(row) && "chosen" },
      element("td", {}, visible(row.token)), element("td", {}, percent(row.logprob)), element("td", { class: "bar" }, bar));
  }));
}

// Show the table of the token under the pointer, or of the one that was tapped.
export function explainTokens(place) {
  const tip = find("#probabilities");
  let shown = null;
  const hide = () => { shown?.classList.remove("chosen"); shown = null; tip.hidden = true; };
  const show = (event) => {
    const node = event.target.closest(".token");
    if (node === shown) return;
    hide();
    if (!node?.token) return;
    shown = node;
    node.classList.add("chosen");
    tip.replaceChildren(table(node.token));
    tip.hidden = false;
    const box = node.getClientRects()[0] ?? node.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = box.top > tip.offsetHeight + 8;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${(above ? box.top - tip.offsetHeight - 6 : box.bottom + 6) + scrollY}px`;
  };
  place.addEventListener("pointerover", show);
  place.addEventListener("click", show);
  place.addEventListener("pointerleave", hide);
}
