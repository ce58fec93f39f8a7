// Controls of the whole page: the slider of steps with its keys and play button, and the menus of probes and heads.
import { count, named, short, within } from "./canvas.js";
import { element, find } from "./dom.js";
import { change, picture, state } from "./state.js";

const PAUSE = 400; // milliseconds between steps
let playing = null;

// A menu that sets a key of the state; `read` makes the value from the option's.
export function menu(id, key, items, read = String) {
  const select = find(`#${id}`);
  select.replaceChildren(...items.map(([value, label]) => element("option", { value }, label)));
  select.addEventListener("change", () => change({ [key]: read(select.value) }));
  picture([key], () => { select.value = String(state[key]); });
}

function play(on, frames) {
  clearInterval(playing);
  playing = null;
  const button = find("#play");
  button.textContent = on ? "Stop" : "Play";
  button.setAttribute("aria-pressed", String(on));
  if (!on) return;
  if (state.frame === frames - 1) change({ frame: 0 });
  playing = setInterval(() => {
    if (state.frame + 1 < frames) change({ frame: state.frame + 1 });
    else play(false, frames);
  }, PAUSE);
}

const typing = (target) => target.closest("input, select, textarea, button, summary, a");

export function addControls(record) {
  const frames = record.map_steps.length;
  const slider = find("#step");
  slider.max = frames - 1;
  slider.hidden = find("#play").hidden = frames < 2;
  slider.addEventListener("input", () => { play(false, frames); change({ frame: Number(slider.value) }); });
  find("#play").addEventListener("click", () => play(!playing, frames));
  document.addEventListener("keydown", (event) => {
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { play(false, frames); change({ frame: within(state.frame + by, 0, frames - 1) }); }
    else if (event.key === " ") play(!playing, frames);
    else return;
    event.preventDefault();
  });
  picture(["frame"], () => {
    const at = record.placeOf(state.frame);
    slider.value = state.frame;
    const tokens = record.tokens[at] ? ` · ${count(record.tokens[at])} tokens` : "";
    const loss = record.model.loss[at] == null ? "" : ` · loss ${record.model.loss[at].toFixed(2)}`;
    find("#moment").textContent = `step ${count(record.steps[at])}${tokens}${loss}`;
    slider.setAttribute("aria-valuetext", find("#moment").textContent);
  });
  menu("probe", "probe", record.probes.map(({ name }, place) => [place, name]), Number);
  const shown = new Set(record.map_heads.map(String));
  menu("head", "head", record.everyHead().map((head) =>
    [head, head.join(".") + (shown.has(String(head)) ? "" : " (no map)")]), (value) => value.split(",").map(Number));
}

// The measures of a head at the current step, a line each with the sentence on what to look for.
export function listMeasures(record) {
  picture(["frame", "head", "kind"], () => {
    find("#measured_on").textContent = `Measures of this head on ${named(record.kinds[state.kind])} sequences:`;
    const score = (name) => short(record.score(name, state.kind, record.placeOf(state.frame), state.head));
    find("#head_scores").replaceChildren(...record.names.map((name) =>
      element("li", {}, element("strong", {}, `${named(name)} ${score(name)}`), ` ${record.measures[name]}`)));
  });
}
