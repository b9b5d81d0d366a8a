// One prompt, several variants: each answer is a stream of /v1/completions of its own.

const at = (id) => document.getElementById(id);
const NUMBERS = { tokens: "tokens", temperature: "temperature", top_p: "top-p", seed: "seed" };
const LIKELIEST = 5;
let streams = [];

function cloned(id) {
  return at(id).content.firstElementChild.cloneNode(true);
}

function headers() {
  const key = at("key").value;
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function complaint(response) {
  if (response.status === 401) at("key-field").hidden = false;
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

// ---- the variants and the link

async function listRuns() {
  let cards;
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (!response.ok) throw new Error(await complaint(response));
    cards = (await response.json()).data;
  } catch (error) {
    at("problem").textContent = error.message;
    at("no-runs").textContent = "None is known yet.";
    return;
  }
  at("problem").textContent = "";
  const wanted = settingsInLink().getAll("run");
  at("runs").querySelectorAll(".run").forEach((each) => each.remove());
  cards.forEach((card, place) => {
    const label = cloned("run-template");
    const box = label.querySelector("input");
    box.value = card.id;
    box.dataset.place = place;
    box.checked = wanted.length ? wanted.includes(card.id) : place < 4;
    label.querySelector(".name").textContent = card.id;
    const context = card.context === null ? "any length" : `context ${card.context.toLocaleString("en")}`;
    label.querySelector(".about").textContent = `${short(card.parameters)} parameters, ${context}`;
    at("runs").append(label);
  });
  at("no-runs").hidden = cards.length > 0;
  if (cards.length) at("tokens").max = cards[0].max_tokens;
}

function settingsInLink() {
  return new URLSearchParams(location.hash.slice(1));
}

function readLink() {
  const link = settingsInLink();
  if (link.has("prompt")) at("prompt").value = link.get("prompt");
  for (const [name, id] of Object.entries(NUMBERS)) {
    if (link.has(name) && Number.isFinite(Number(link.get(name)))) at(id).value = link.get(name);
  }
}

function writeLink() {
  const link = new URLSearchParams({ prompt: at("prompt").value });
  for (const [name, id] of Object.entries(NUMBERS)) link.set(name, at(id).value);
  for (const box of chosen()) link.append("run", box.value);
  history.replaceState(null, "", `#${link}`);
}

function chosen() {
  return [...at("runs").querySelectorAll("input:checked")];
}

async function copyLink() {
  writeLink();
  try {
    await navigator.clipboard.writeText(location.href);
    at("status").textContent = at("link").textContent = "Copied";
  } catch {
    at("status").textContent = at("link").textContent = "It is in the address bar";
  }
  setTimeout(() => { at("link").textContent = "Copy link"; }, 2000);
}

// ---- one answer

class Answer {
  constructor(name, place, prompt) {
    this.name = name;
    this.abort = new AbortController();
    this.drawn = [];
    this.waiting = [];
    this.tokens = 0;
    this.nats = 0;
    this.element = cloned("answer-template");
    this.element.classList.add(`s${place % 6}`);
    this.part("h2").textContent = name;
    this.text = this.part(".text");
    this.text.setAttribute("aria-label", `Text of ${name}; the arrow keys go from token to token`);
    this.part(".given").textContent = prompt;
    this.text.addEventListener("pointerover", (event) => this.show(this.drawn.indexOf(event.target)));
    this.text.addEventListener("keydown", (event) => this.step(event));
    this.rest();
    at("answers").append(this.element);
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  figure(name, text) {
    this.part(`[data-figure="${name}"]`).textContent = text;
  }

  end(words, bad = false) {
    this.part(".ending").textContent = words;
    this.part(".ending").classList.toggle("bad", bad);
  }

  rest() {
    const line = document.createElement("p");
    line.className = "quiet";
    line.textContent = "No token chosen.";
    this.part(".token").replaceChildren(line);
  }

  async generate(settings) {
    this.end("waiting …");
    this.asked = settings.max_tokens;
    this.began = performance.now();
    try {
      const body = JSON.stringify({ ...settings, model: this.name });
      const response = await fetch("v1/completions", { method: "POST", headers: headers(), body, signal: this.abort.signal });
      if (!response.ok) throw new Error(await complaint(response));
      await this.read(response.body);
      this.say();
    } catch (error) {
      const stopped = error.name === "AbortError";
      this.end(stopped ? "stopped" : error.message, !stopped);
    }
  }

  async read(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (held + value).split("\n\n");
      held = events.pop();
      const low = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 40;
      for (const event of events) this.take(event.slice("data: ".length));
      if (low) this.text.scrollTop = this.text.scrollHeight;
    }
  }

  take(data) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    const [choice] = chunk.choices;
    const found = choice.logprobs;
    if (found.tokens.length) {
      this.waiting.push({ token: found.tokens[0], logprob: found.token_logprobs[0], likeliest: found.top_logprobs[0] });
      this.count(found.token_logprobs[0], chunk.state_bytes);
    }
    if (choice.text) this.draw(choice.text);
    if (choice.finish_reason) this.finish = choice.finish_reason;
  }

  count(logprob, bytes) {
    if (!this.tokens) this.end("writing …");
    this.tokens += 1;
    this.nats -= logprob;
    this.figure("tokens", this.tokens.toLocaleString("en"));
    this.figure("rate", precise((1000 * this.tokens) / (performance.now() - this.began)));
    this.figure("bits", (this.nats / Math.LN2 / this.tokens).toFixed(2));
    this.figure("state", size(bytes));
  }

  draw(text) {
    const span = document.createElement("span");
    const logprob = this.waiting.reduce((sum, each) => sum + each.logprob, 0);
    span.className = text.startsWith("\n") ? "drawn line" : "drawn";
    span.textContent = text;
    span.style.setProperty("--surprised", Math.min(1, -logprob / 8).toFixed(3));
    span.parts = this.waiting;
    this.waiting = [];
    this.drawn.push(span);
    this.text.append(span);
  }

  say() {
    const full = this.tokens < this.asked ? "the context is full" : "as many tokens as were asked for";
    this.end(this.finish === "stop" ? "the text has ended" : full);
    at("status").textContent = `${this.name}: ${this.tokens} tokens`;
  }

  step(event) {
    const moves = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || !this.drawn.length || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = (this.place ?? -1) + moves[event.key];
    this.show(Math.max(0, Math.min(this.drawn.length - 1, next)));
    this.drawn[this.place].scrollIntoView({ block: "nearest" });
  }

  show(place) {
    if (place < 0) return;
    this.drawn[this.place]?.classList.remove("chosen");
    this.place = place;
    const span = this.drawn[place];
    span.classList.add("chosen");
    const rows = span.parts.flatMap((part) => [heading(part), list(part)]);
    if (rows.length) this.part(".token").replaceChildren(...rows.slice(0, 4));
  }
}

function heading(part) {
  const line = document.createElement("p");
  const token = document.createElement("code");
  token.textContent = visible(part.token);
  line.append(token, ` had ${percent(Math.exp(part.logprob))}; likeliest:`);
  return line;
}

function list(part) {
  const rows = document.createElement("ol");
  for (const [token, logprob] of Object.entries(part.likeliest).sort((a, b) => b[1] - a[1])) {
    const row = document.createElement("li");
    const [name, bar, share] = ["code", "span", "span"].map((tag) => document.createElement(tag));
    row.classList.toggle("taken", token === part.token);
    name.textContent = visible(token);
    bar.className = "bar";
    bar.style.setProperty("--share", Math.exp(logprob).toFixed(4));
    share.className = "share";
    share.textContent = percent(Math.exp(logprob));
    row.append(name, bar, share);
    rows.append(row);
  }
  return rows;
}

// ---- words for numbers

function visible(token) {
  return token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");
}

function percent(share) {
  if (share < 0.0001) return "< 0.01 %";
  return `${(100 * share).toFixed(share < 0.01 ? 2 : 1)} %`;
}

function precise(number) {
  return number < 10 ? number.toFixed(1) : Math.round(number).toLocaleString("en");
}

function short(count) {
  const scale = [[1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([each]) => count >= each);
  return scale ? `${Number((count / scale[0]).toPrecision(3))}${scale[1]}` : String(count);
}

function size(bytes) {
  const scale = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]].find(([each]) => bytes >= each);
  return scale ? `${(bytes / scale[0]).toFixed(1)} ${scale[1]}` : `${bytes} B`;
}

// ---- all of them

async function generate() {
  if (!at("form").reportValidity() || streams.length) return;
  const boxes = chosen();
  at("problem").textContent = boxes.length ? "" : "Choose at least one variant.";
  if (!boxes.length) return;
  writeLink();
  const prompt = at("prompt").value;
  const temperature = Number(at("temperature").value);
  const topP = Number(at("top-p").value);
  const settings = {
    prompt,
    temperature,
    max_tokens: Number(at("tokens").value),
    seed: Number(at("seed").value),
    logprobs: LIKELIEST,
    stream: true,
    stream_options: { include_state: true },
    ...(temperature > 0 && topP < 1 && { top_p: topP }),
  };
  at("answers").replaceChildren();
  streams = boxes.map((box) => new Answer(box.value, Number(box.dataset.place), prompt));
  working(true);
  await Promise.all(streams.map((each) => each.generate(settings)));
  streams = [];
  working(false);
}

function working(now) {
  at("go").disabled = now;
  at("stop").disabled = !now;
  at("answers").setAttribute("aria-busy", String(now));
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
at("stop").addEventListener("click", () => streams.forEach((each) => each.abort.abort()));
at("link").addEventListener("click", copyLink);
at("key").addEventListener("change", listRuns);
addEventListener("hashchange", () => { readLink(); listRuns(); });
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) generate();
});
readLink();
listRuns();
