// The chat: turns, the form, keys. The model is behind ModelClient, the picture behind chat_view.

import * as view from "./chat_view.js";
import { ModelClient } from "./model_client.js";

const element = (id) => document.getElementById(id);
const question = element("question");
let turns = [];
let busy = false;
let conversation = 0; // a new chat makes the answer of the old one fall away

const model = new ModelClient({ onProgress: view.showProgress, onNote: view.showNote });

// The same loop for tests and for the curious in the console.
window.phial = { ready: model.ready, generate: (prompt, options) => model.generate(prompt, options), stop: () => model.stop() };

async function ask(text) {
  const content = text.trim();
  if (!content || busy || document.body.dataset.state !== "ready") return;
  busy = true;
  view.setBusy(true);
  const mine = conversation;
  const asked = [...turns, { role: "user", content }];
  view.addMessage("user", content);
  const bubble = view.addMessage("assistant");
  const onToken = (piece) => mine === conversation && bubble.append(piece);
  try {
    const answer = await model.generate(asked, { onToken });
    if (mine !== conversation) return;
    bubble.append(answer.rest);
    turns = [...asked, { role: "assistant", content: answer.text }];
    bubble.finish(footnote(answer));
    view.showSpeed(answer.speed);
    view.showNote(answer.dropped ? "This conversation is longer than the model can read; its oldest turns were left out." : "");
    element("status").textContent = `Answer complete: ${answer.text}`;
  } catch (error) {
    if (mine === conversation) bubble.fail(error.message);
  } finally {
    if (mine === conversation) {
      busy = false;
      view.setBusy(false);
      question.focus({ preventScroll: true });
    }
  }
}

function footnote(answer) {
  if (answer.ended === "stopped") return "Stopped";
  if (answer.ended === "length") return "Cut off: the answer reached its longest length";
  return answer.tokens.length === 0 ? "The model had nothing to add" : "";
}

function newChat() {
  conversation += 1;
  model.stop();
  model.forget();
  turns = [];
  busy = false;
  view.setBusy(false);
  view.showSpeed(0);
  view.clearMessages();
  question.focus();
}

function fitHeight() {
  question.style.height = "auto";
  question.style.height = `${Math.min(question.scrollHeight, 160)}px`;
  element("send").disabled = !question.value.trim() || document.body.dataset.state !== "ready";
}

function submit() {
  const text = question.value;
  if (!text.trim() || busy || document.body.dataset.state !== "ready") return;
  question.value = "";
  fitHeight();
  ask(text);
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
question.addEventListener("input", fitHeight);
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && busy) model.stop();
});
element("stop").addEventListener("click", () => model.stop());
element("new-chat").addEventListener("click", newChat);
element("retry").addEventListener("click", () => location.reload());

model.ready.then(
  (facts) => {
    view.showReady(facts, ask);
    fitHeight();
    question.focus({ preventScroll: true });
  },
  (error) => view.showFatal(error.message),
);
