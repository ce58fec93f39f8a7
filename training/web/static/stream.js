// Requests to the server: JSON in, JSON or server-sent events out.

async function send(path, body, signal) {
  const request = body === undefined ? { signal } : {
    method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Error(answer.error?.message ?? `The server answered ${response.status}.`);
}

// The JSON answer to a request; with a body it is a POST.
export const ask = async (path, body, signal) => (await send(path, body, signal)).json();

// The events of a stream, as objects, until it ends or `signal` stops it.
export async function* events(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (waiting + value).split("\n\n");
      waiting = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
        if (!data.length) continue;
        if (data[0] === "[DONE]") return;
        const event = JSON.parse(data.join("\n"));
        if (event.error) throw new Error(event.error.message);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
