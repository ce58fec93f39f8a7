// The requests of the chat page, answered by the engine in the page: the same names as training/web/static/stream.js.
import { find, tell } from "./dom.js";
import { openEngine } from "./engine.js";

const about = JSON.parse(find("#about").textContent); // as training/browser_page/page.py writes it
const report = (line) => { find("#loading").textContent = line; };
const engine = openEngine(about, report);
engine.catch((error) => {
  report("");
  tell(`The model cannot run here: ${error.message}`);
});

// Transformers' name of a sampling setting, and llama.cpp's.
const NAMES = { repetition_penalty: "repeat_penalty" };

// What the page needs to know of the model. Conversations are not kept: there is no server to keep them.
export const ask = async (path) => (path === "api/page" ? about.page : { conversations: [] });

function request(body) {
  const messages = body.messages ?? [{ role: "user", content: body.prompt }]; // the template of a base model prints it
  const chosen = { ...about.page.settings };
  for (const name of [...Object.keys(chosen), "seed"]) if (body[name] !== undefined) chosen[name] = body[name];
  const settings = Object.entries(chosen).map(([name, value]) => [NAMES[name] ?? name, value]);
  // In transformers' order, and repetition counts in the whole text: llama.cpp's defaults are others.
  const samplers = ["penalties", "temperature", "top_k", "top_p", "min_p"];
  const rules = { samplers, repeat_last_n: about.context };
  return { messages, ...Object.fromEntries(settings), ...rules, timings_per_token: true, stream: true };
}

function explain(message) {
  if (/exceeds the available context/.test(message)) {
    return `The text is longer than the model's context of ${about.context} tokens. Begin a new one.`;
  }
  // How wllama reports an exception of llama.cpp, whatever its reason.
  return /Invalid typed array length/.test(message) ? "The engine rejects these sampling settings." : message;
}

// The parts of an answer as they are written, in OpenAI's form, until it ends or `signal` stops it.
export async function* events(path, body, signal) {
  const stopped = new Promise((resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  stopped.catch(() => {});
  const wllama = await Promise.race([engine, stopped]);
  try {
    yield* await wllama.createChatCompletion({ ...request(body), abortSignal: signal });
  } catch (error) {
    if (error.name !== "AbortError") error.message = explain(error.message);
    throw error;
  }
}
