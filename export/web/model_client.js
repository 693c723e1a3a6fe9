// The page's side of the worker: promises and callbacks instead of messages.

export class ModelClient {
  constructor({ onProgress, onNote }) {
    this.waiting = new Map();
    this.number = 0;
    this.worker = new Worker("worker.js", { type: "module" });
    this.ready = new Promise((resolve, reject) => {
      this.worker.onerror = (event) => {
        event.preventDefault();
        const error = new Error(event.message || "the model's thread could not start");
        reject(error);
        this.failAll(error);
      };
      this.worker.onmessage = ({ data }) => {
        if (data.type === "progress") onProgress(data);
        else if (data.type === "note") onNote(data.message);
        else if (data.type === "ready") resolve(data.facts);
        else if (data.type === "failed" && data.number === undefined) reject(new Error(data.message));
        else this.answer(data);
      };
    });
    const wanted = new URLSearchParams(location.search).get("backend") ?? "auto";
    this.worker.postMessage({ type: "load", backend: wanted });
  }

  answer(data) {
    const call = this.waiting.get(data.number);
    if (!call) return;
    if (data.type === "token") call.onToken?.(data.text, data.token, data.margin);
    else {
      this.waiting.delete(data.number);
      if (data.type === "done") call.resolve(data);
      else call.reject(new Error(data.message));
    }
  }

  failAll(error) {
    for (const call of this.waiting.values()) call.reject(error);
    this.waiting.clear();
  }

  // Turns or a text -> {tokens, text, margins, ended, speed, dropped}; `onToken(text, token, margin)` as they come.
  async generate(prompt, { maxNewTokens = 512, onToken } = {}) {
    await this.ready;
    const number = (this.number += 1);
    return new Promise((resolve, reject) => {
      this.waiting.set(number, { resolve, reject, onToken });
      this.worker.postMessage({ type: "generate", number, prompt, maxNewTokens });
    });
  }

  stop() {
    this.worker.postMessage({ type: "stop" });
  }

  forget() {
    this.worker.postMessage({ type: "forget" });
  }
}
