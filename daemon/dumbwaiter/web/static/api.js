// How the page talks to the daemon: requests with its header and token, and the stream of events.

const SILENCE = 40_000; // the daemon says something every 15 seconds
let token = sessionStorage.getItem("token") ?? "";

takeToken();
addEventListener("hashchange", () => takeToken() && location.reload()); // a bookmark that is opened where the page is open

// Takes the token from the page's address, if there is one.
function takeToken() {
  if (!location.hash.startsWith("#token=")) return false;
  remember(decoded(location.hash.slice(7)));
  history.replaceState(null, "", location.pathname);
  return true;
}

// A "%" that begins no escape stands for itself.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function remember(value) {
  token = value;
  sessionStorage.setItem("token", value);
}

export class Refused extends Error {}

function headers(more = {}) {
  if (/[^ -~]/.test(token)) throw new Refused(); // no header can hold it, and no daemon has it
  return { "X-Dumbwaiter": "page", ...(token && { Authorization: `Bearer ${token}` }), ...more };
}

async function answer(response) {
  if (response.status === 401) throw new Refused();
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error ?? response.statusText);
  return response;
}

export async function get(path) {
  return (await answer(await fetch(`api/${path}`, { headers: headers() }))).json();
}

export async function post(path, body) {
  const sent = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body) };
  return (await answer(await fetch(`api/${path}`, sent))).json();
}

// Returns the address of a picture, or null where there is none.
export async function picture(which) {
  const response = await fetch(`api/thumbnail/${which}`, { headers: headers() });
  return response.status === 200 ? URL.createObjectURL(await response.blob()) : null;
}

// Calls heard(kind, facts) for each event, lost() when the daemon is away, refused() when it wants another token. For ever.
export async function follow(heard, lost, refused) {
  let [last, wait] = ["", 500];
  for (;;) {
    try {
      for await (const { id, kind, data } of stream(last)) {
        [last, wait] = [id, 500];
        heard(kind, JSON.parse(data));
      }
      lost();
    } catch (error) {
      if (error instanceof Refused) {
        await refused();
        wait = 500;
        continue; // a person has just answered, and looks on
      }
      lost();
    }
    await pause(wait);
    wait = Math.min(wait * 2, 15_000);
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      document.removeEventListener("visibilitychange", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener("online", done);
    document.addEventListener("visibilitychange", done);
  });
}

// EventSource can send no header, so the few lines that a stream of events needs stand here.
async function* stream(last) {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), SILENCE);
  try {
    const more = last ? { "Last-Event-ID": last } : {};
    const response = await answer(await fetch("api/events", { headers: headers(more), signal: silent.signal }));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE);
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = new Map(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
        if (fields.has("data")) yield { id: fields.get("id"), kind: fields.get("event"), data: fields.get("data") };
      }
    }
  } finally {
    clearTimeout(timer);
    silent.abort();
  }
}
