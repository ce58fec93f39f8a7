// Sampling settings: a form whose values are kept in the address line, so that a link repeats them.
import { element } from "./dom.js";

// name: label, smallest value, step. An empty field leaves the value to the model.
const NUMBERS = {
  temperature: ["temperature (0: greedy)", 0, 0.1],
  top_k: ["top k", 1, 1],
  top_p: ["top p", 0, 0.05],
  min_p: ["min p", 0, 0.01],
  repetition_penalty: ["repetition penalty", 0.1, 0.05],
  max_tokens: ["tokens at most", 1, 1],
  seed: ["seed", 0, 1],
};

export const kept = () => new URLSearchParams(location.hash.slice(1));

export function keep(name, value) {
  const settings = kept();
  if (value === "") settings.delete(name);
  else settings.set(name, value);
  history.replaceState(null, "", `#${settings}`);
}

// Fill a <details> element with the fields. `defaults` are shown in empty ones.
export function showSettings(place, defaults, withSystem) {
  const grid = element("div");
  for (const [name, [label, min, step]] of Object.entries(NUMBERS)) {
    const input = element("input", {
      id: name, type: "number", min, step, value: kept().get(name) ?? "", placeholder: defaults[name] ?? "",
      oninput: (event) => keep(name, event.target.value),
    });
    grid.append(element("label", {}, label, input));
  }
  if (withSystem) {
    const system = element("textarea", { id: "system", rows: 2, oninput: (event) => keep("system", event.target.value) });
    system.value = kept().get("system") ?? "";
    grid.append(element("label", { class: "wide" }, "system prompt", system));
  }
  place.append(grid);
}

// The settings of the address line, as fields of a request.
export function settings() {
  const chosen = {};
  for (const name of Object.keys(NUMBERS)) {
    const value = parseFloat(kept().get(name));
    if (Number.isFinite(value)) chosen[name] = value;
  }
  return chosen;
}

export function setSystemPrompt(text) {
  keep("system", text);
  document.querySelector("#system").value = text;
}

export const systemPrompt = () => kept().get("system") ?? "";
