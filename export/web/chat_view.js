// What is seen: messages, the loading card, errors. No model in here.

const element = (id) => document.getElementById(id);

export function bytes(count) {
  return count >= 1e9 ? `${(count / 1e9).toFixed(2)} GB` : count >= 1e6 ? `${(count / 1e6).toFixed(1)} MB` : `${Math.round(count / 1e3)} kB`;
}

export function showProgress({ stage, loaded, total }) {
  element("loading-stage").textContent = stage;
  element("loading-bytes").textContent = `${bytes(loaded)} of ${bytes(total)}`;
  element("loading-bar").max = total;
  element("loading-bar").value = loaded;
}

export function showReady(facts, onExample) {
  document.body.dataset.state = "ready";
  element("model-name").textContent = facts.name;
  document.title = `${facts.name} · Phial`;
  const engine = facts.backend === "webgpu" ? "WebGPU" : `wasm, ${facts.threads} thread${facts.threads === 1 ? "" : "s"}`;
  element("facts").textContent = `${bytes(facts.bytes)} · ${facts.bits}-bit · ${engine}`;
  element("context-note").textContent =
    `It reads up to ${facts.context.toLocaleString("en")} tokens; when a conversation grows past that, the oldest turns are left out.`;
  const list = element("examples");
  list.replaceChildren();
  for (const example of facts.examples.slice(0, 4)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "example";
    button.textContent = example;
    button.addEventListener("click", () => onExample(example));
    list.append(button);
  }
}

export function showFatal(message) {
  document.body.dataset.state = "failed";
  element("fatal-reason").textContent = message;
  element("fatal").focus();
}

export function showNote(message) {
  element("note").textContent = message;
  element("note").hidden = !message;
}

export function showSpeed(speed) {
  element("speed").textContent = speed ? `${speed.toFixed(speed < 10 ? 1 : 0)} tokens/s` : "";
}

export function setBusy(busy) {
  document.body.dataset.busy = String(busy);
  element("send").hidden = busy;
  element("stop").hidden = !busy;
  element("messages").setAttribute("aria-busy", String(busy));
}

// A message as a bubble; the answer's grows through `append`. All text goes in as text, never as markup.
export function addMessage(role, content = "") {
  const item = document.createElement("li");
  item.className = `message ${role}`;
  const speaker = document.createElement("span");
  speaker.className = "hidden";
  speaker.textContent = role === "user" ? "You: " : "Model: ";
  const body = document.createElement("div");
  body.className = "body";
  body.textContent = content;
  item.append(speaker, body);
  if (role === "assistant" && !content) item.classList.add("waiting");
  element("messages").append(item);
  document.body.dataset.empty = "false";
  scrollDown(true);
  return {
    append(text) {
      if (!text) return;
      item.classList.remove("waiting");
      body.append(text);
      scrollDown(false);
    },
    finish(note) {
      item.classList.remove("waiting");
      if (!note) return;
      const foot = document.createElement("small");
      foot.textContent = note;
      item.append(foot);
      scrollDown(false);
    },
    fail(message) {
      item.classList.remove("waiting");
      item.classList.add("failed");
      body.textContent = message;
      item.setAttribute("role", "alert");
    },
  };
}

export function clearMessages() {
  element("messages").replaceChildren();
  document.body.dataset.empty = "true";
  showNote("");
}

// Follows the answer unless the reader has scrolled up.
function scrollDown(force) {
  const area = element("scroll");
  if (force || area.scrollHeight - area.scrollTop - area.clientHeight < 120) area.scrollTop = area.scrollHeight;
}
