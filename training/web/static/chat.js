// The chat page: one conversation with one model. A base model, which has no chat template, continues a text instead.
import { button, element, find, follow, tell } from "./dom.js";
import { markdown } from "./markdown.js";
import { keep, kept, setSystemPrompt, settings, showSettings, systemPrompt } from "./settings.js";
import { ask, events } from "./stream.js";
import { explainTokens, tokenNodes, tokensOf } from "./tokens.js";

let page; // what the server says of itself: {model, template, chats, settings}
let chatting; // otherwise the model continues a text
let messages = []; // {role, content, tokens}
let conversation = newName();
let stop = null; // aborts the answer that is being written

// Random, also on pages without encryption, where crypto.randomUUID is missing.
function newName() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const enter = (submit) => (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
};

function fill(place, message) {
  const formatted = find("#markdown").checked && message.role === "assistant";
  place.className = formatted ? "text" : message.role === "assistant" ? "text plain code" : "text plain";
  if (formatted) place.replaceChildren(...markdown(message.content));
  else if (message.tokens?.length) place.replaceChildren(...tokenNodes(message.tokens));
  else place.textContent = message.content;
}

function edit(place, number) {
  const field = element("textarea", { rows: 3, "aria-label": "Edited message" });
  field.value = messages[number].content;
  const submit = () => {
    if (!field.value.trim()) return;
    messages = [...messages.slice(0, number), { role: "user", content: field.value }];
    answer();
  };
  field.addEventListener("keydown", enter(submit));
  place.replaceChildren(field, element("div", { class: "tools" },
    button("Send", submit, { class: "small" }), button("Cancel", show, { class: "small" })));
  field.focus();
}

function messageNode(message, number) {
  const text = element("div");
  fill(text, message);
  const node = element("article", { class: `message ${message.role}` },
    element("h2", { class: "unseen" }, message.role === "user" ? "You" : page.model), text);
  const tools = element("div", { class: "tools" });
  if (message.role === "user" && chatting) tools.append(button("Edit", () => edit(node, number), { class: "small" }));
  if (message.role === "assistant") {
    tools.append(button("Retry", () => { messages = messages.slice(0, number); answer(); }, { class: "small" }));
    const copy = () => navigator.clipboard.writeText(message.content);
    if (navigator.clipboard) tools.append(button("Copy", copy, { class: "small" }));
  }
  if (!stop) node.append(tools);
  const note = [message.note, message.speed].filter(Boolean).join(" ");
  if (note) node.append(element("p", { class: "quiet" }, note));
  return node;
}

function show() {
  find("#messages").replaceChildren(...messages.map(messageNode));
  find("#send").disabled = Boolean(stop);
  find("#stop").hidden = !stop;
}

function request() {
  const common = { model: page.model, stream: true, max_tokens: page.settings.max_tokens, ...settings() };
  if (!chatting) {
    return ["v1/completions", { ...common, prompt: messages.map((message) => message.content).join(""), logprobs: 5 }];
  }
  const system = systemPrompt() ? [{ role: "system", content: systemPrompt() }] : [];
  const seen = messages.map(({ role, content }) => ({ role, content }));
  return ["v1/chat/completions", { ...common, messages: [...system, ...seen], logprobs: true, top_logprobs: 5 }];
}

// Let the model answer the messages, or continue their text.
async function answer() {
  const [path, body] = request();
  const reply = { role: "assistant", content: "", tokens: [] };
  messages.push(reply);
  stop = new AbortController();
  tell("");
  show();
  const place = find("#messages").lastElementChild.querySelector(".text");
  const own = messages, decoder = new TextDecoder();
  const speed = element("p", { class: "quiet" });
  place.classList.add("streaming");
  find("#stop").focus();
  try {
    for await (const { choices: [choice], timings } of events(path, body, stop.signal)) {
      const text = choice?.delta?.content ?? choice?.text ?? "";
      reply.content += text;
      const tokens = tokensOf(choice);
      reply.tokens.push(...tokens);
      if (choice?.finish_reason === "length") reply.note = "The answer ended at the highest number of tokens.";
      if (timings?.predicted_n > 1) {
        reply.speed = `${timings.predicted_n} tokens, ${timings.predicted_per_second.toFixed(1)} tokens per second`;
        speed.textContent = reply.speed;
        if (!speed.isConnected) place.after(speed);
      }
      follow(() => place.append(...(tokens.length ? tokenNodes(tokens, decoder) : [text])));
    }
  } catch (error) {
    if (error.name === "AbortError") reply.note = "Stopped.";
    else tell(error.message);
  }
  if (messages !== own) return; // another conversation was opened meanwhile
  stop = null;
  if (!reply.content && !reply.note) messages.pop();
  show();
  find("#text").focus();
  await save();
}

async function save() {
  if (!chatting || !messages.some((message) => message.role === "assistant")) return;
  const system = systemPrompt() ? [{ role: "system", content: systemPrompt() }] : [];
  const kept = messages.map(({ role, content }) => ({ role, content }));
  await ask("api/conversations", { id: conversation, messages: [...system, ...kept] }).catch((error) => tell(error.message));
  await showConversations();
}

async function showConversations() {
  const { conversations } = await ask("api/conversations");
  find("#earlier").hidden = !conversations.length;
  find("#conversations").replaceChildren(...conversations.map(({ id, title }) => element("li", {},
    button(title, () => open(id)), button("Delete", () => remove(id), { class: "small", "aria-label": `Delete: ${title}` }))));
}

// Show other messages; an answer that is being written is stopped.
function turnTo(id, others) {
  stop?.abort();
  stop = null;
  conversation = id;
  messages = others;
  tell("");
  show();
  find("#text").focus();
}

async function open(id) {
  const kept = await ask(`api/conversations/${id}`);
  const system = kept.messages.find((message) => message.role === "system");
  setSystemPrompt(system?.content ?? "");
  turnTo(id, kept.messages.filter((message) => message.role !== "system"));
}

async function remove(id) {
  await ask(`api/conversations/${id}/delete`, {});
  await showConversations();
}

function send() {
  const field = find("#text");
  if (stop || (chatting && !field.value.trim())) return;
  if (field.value) messages.push({ role: "user", content: field.value });
  field.value = "";
  if (messages.length) answer();
}

const renew = () => turnTo(newName(), []);

// Take the mode from its checkbox.
function choose() {
  chatting = !find("#mode").checked;
  const what = chatting ? "Message (Enter sends" : "Beginning of a text (Enter lets the model continue it";
  find("#text").placeholder = `${what}, Shift+Enter begins a new line)`;
}

async function begin() {
  page = await ask("api/page");
  document.title = `${page.model} · scratch chat`;
  find("#model").textContent = page.model;
  showSettings(find("#settings"), page.settings, page.template);
  const mode = find("#mode");
  mode.disabled = !page.template;
  mode.checked = !page.template || (kept().get("mode") ?? (page.chats ? "chat" : "text")) === "text";
  mode.addEventListener("change", () => {
    keep("mode", mode.checked ? "text" : "chat");
    choose();
    renew();
  });
  choose();
  find("#form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  find("#text").addEventListener("keydown", enter(send));
  find("#stop").addEventListener("click", () => stop?.abort());
  find("#new").addEventListener("click", renew);
  find("#markdown").addEventListener("change", show);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") stop?.abort(); });
  explainTokens(find("#messages"));
  show();
  if (chatting) await showConversations();
}

begin().catch((error) => tell(error.message));
