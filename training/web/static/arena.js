// The battle page: a prompt, two anonymous answers, a vote, and only then the names.
import { element, find, follow, tell } from "./dom.js";
import { markdown } from "./markdown.js";
import { ask, events } from "./stream.js";

const SIDES = ["a", "b"];
const KEYS = { a: "a", b: "b", t: "tie", x: "both_bad" };
const BATTLE = "scratch-battle"; // in the tab's own storage, so that a reload shows the same battle

let battle; // what the server says of it: {id, turns: [{prompt, a, b, done}], state, names, vote}
let stream = new AbortController(); // ends the stream of a battle that is left

const answering = () => battle.turns.length > 0 && !battle.turns.at(-1).done;
const votable = () => battle.state === "open" && battle.turns.length > 0 && !answering();

function fill(place, text) {
  const plain = find("#plain").checked;
  place.className = plain ? "text plain code" : "text";
  place.replaceChildren(...(plain ? [text] : markdown(text)));
}

function answerNode(turn, side) {
  const text = element("div");
  fill(text, turn[side]);
  if (!turn.done) text.classList.add("streaming");
  const title = battle.names ? `${side.toUpperCase()}: ${battle.names[side]}` : `Answer ${side.toUpperCase()}`;
  return element("section", { class: battle.vote === side && "preferred" }, element("h3", {}, title), text);
}

const turnNode = (turn) => element("article", {},
  element("div", { class: "message user" }, element("h2", { class: "unseen" }, "You"),
    element("div", { class: "text plain" }, turn.prompt)),
  element("div", { class: "pair" }, ...SIDES.map((side) => answerNode(turn, side))));

const NOTICES = {
  void: () => `${battle.message} This battle does not count.`,
  voted: () => `Thank you. ${battle.message ?? ""}`,
  open: () => (votable() ? "Which answer is better? You can also ask a further question first." : ""),
};

const show = () => follow(draw);

function draw() {
  find("#turns").replaceChildren(...battle.turns.map(turnNode));
  find("#notice").textContent = NOTICES[battle.state]();
  find("#votes").hidden = !votable() && battle.state !== "voted";
  for (const choice of find("#votes").children) {
    choice.disabled = battle.state !== "open";
    choice.setAttribute("aria-pressed", String(choice.dataset.vote === battle.vote));
  }
  find("#send").disabled = answering() || battle.state !== "open";
  find("#text").disabled = battle.state !== "open";
  find("#stop").hidden = !answering();
}

// Receive the last turn's answers until both are complete, or the battle is left for a new one.
async function receive() {
  const own = battle, turn = battle.turns.at(-1);
  show();
  const places = [...find("#turns").lastElementChild.querySelectorAll(".pair .text")];
  const path = `api/battles/${own.id}/events?shown=${turn.shown ?? 0}`;
  stream = new AbortController();
  for await (const event of events(path, undefined, stream.signal)) {
    if (battle !== own) return;
    if (event.state) {
      battle = event;
      break;
    }
    SIDES.forEach((side, place) => {
      turn[side] += event[side];
      follow(() => fill(places[place], turn[side]));
      places[place].classList.add("streaming");
    });
  }
  if (battle === own) battle = await ask(`api/battles/${own.id}`); // the stream broke: the server may be further
  show();
  if (answering()) throw new Error("The connection was lost. Reload the page to go on.");
  if (votable()) find("#votes").firstElementChild.focus();
}

async function send() {
  const prompt = find("#text").value;
  if (!prompt.trim() || answering() || battle.state !== "open") return;
  battle = await ask(`api/battles/${battle.id}/turns`, { prompt });
  find("#text").value = "";
  await receive();
}

async function vote(choice) {
  if (!votable()) return;
  battle = await ask(`api/battles/${battle.id}/vote`, { vote: choice });
  show();
  find("#new").focus();
}

async function renew() {
  stream.abort();
  battle = await ask("api/battles", {});
  sessionStorage.setItem(BATTLE, battle.id);
  show();
  find("#text").focus();
}

const stop = () => answering() && ask(`api/battles/${battle.id}/stop`, {});

// The battle of this tab, if the server still has it; else a new one.
async function resume() {
  const id = sessionStorage.getItem(BATTLE);
  battle = id && (await ask(`api/battles/${id}`).catch(() => null));
  if (!battle) return renew();
  show();
  if (answering()) await receive();
}

// Run an action and show what went wrong in it.
const tried = (action) => async (...given) => {
  tell("");
  await Promise.resolve(action(...given)).catch((error) => error.name === "AbortError" || tell(error.message));
};

function begin() {
  find("#form").addEventListener("submit", (event) => { event.preventDefault(); tried(send)(); });
  find("#text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    tried(send)();
  });
  find("#votes").addEventListener("click", (event) => {
    const choice = event.target.closest("button")?.dataset.vote;
    if (choice) tried(vote)(choice);
  });
  find("#stop").addEventListener("click", tried(stop));
  find("#new").addEventListener("click", tried(renew));
  find("#plain").addEventListener("change", show);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") tried(stop)();
    if (event.target.matches("textarea, input") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (KEYS[event.key]) tried(vote)(KEYS[event.key]);
    if (event.key === "n") tried(renew)();
  });
  tried(resume)();
}

begin();
