// The model's own thread: loads the package, answers prompts. The page stays responsive whatever happens here.
//
// in:  {type: "load", backend} · {type: "generate", number, prompt, maxNewTokens} · {type: "stop"} · {type: "forget"}
// out: {type: "progress", loaded, total, stage} · {type: "ready", facts} · {type: "token", number, token, text, margin}
//      {type: "done", number, ...} · {type: "failed", number, message} · {type: "note", message}

import { Engine } from "./engine.js";
import { fetchJson, fetchPackageFile, parseJson } from "./loading.js";
import { Prompter, TextPieces, fitTurns } from "./prompt.js";

const WASM_BYTES = 200e6; // above so many bytes of weights a GPU is worth its start-up
const NAMES = ["model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json", "generation_config.json"];

let engine, prompter, manifest, stopIds;
let stopping = false;
let queue = Promise.resolve();

const channel = new MessageChannel();
let resume = null;
channel.port1.onmessage = () => resume?.();
// Lets waiting messages in, such as "stop"; a timer would be clamped to 4 ms.
const breathe = () => new Promise((resolve) => ((resume = resolve), channel.port2.postMessage(0)));

async function load(wanted) {
  const settings = await fetchJson("/settings.json");
  manifest = await fetchJson("/package/manifest.json");
  const total = NAMES.reduce((sum, name) => sum + manifest.files[name].bytes, 0);
  let loaded = 0;
  const onBytes = (count) => postMessage({ type: "progress", stage: "Loading the model", loaded: (loaded += count), total });
  const files = {};
  for (const name of NAMES) files[name] = await fetchPackageFile(name, manifest.files[name], onBytes);
  postMessage({ type: "progress", stage: "Starting the model", loaded: total, total });

  const { Tokenizer } = await import(`${settings.runtime["@huggingface/tokenizers"]}tokenizers.min.mjs`);
  prompter = new Prompter(Tokenizer, parseJson(files["tokenizer.json"]), parseJson(files["tokenizer_config.json"]));
  prompter.checkGolden(manifest.chat);
  const generation = parseJson(files["generation_config.json"]);
  stopIds = new Set([generation.eos_token_id].flat());

  const weights = manifest.files["model.onnx.data"].bytes;
  const started = performance.now();
  const backend = await chooseBackend(wanted, weights);
  engine = await open(settings.runtime["onnxruntime-web"], backend, wanted, files);
  postMessage({
    type: "ready",
    facts: {
      name: settings.name,
      bytes: total,
      bits: manifest.quantization.bits,
      context: engine.context,
      backend: engine.backend,
      threads: engine.backend === "wasm" ? engine.ort.env.wasm.numThreads : 0,
      examples: manifest.examples ?? generation.examples ?? [],
      startSeconds: (performance.now() - started) / 1000,
    },
  });
}

async function chooseBackend(wanted, weights) {
  if (wanted === "wasm" || wanted === "webgpu") return wanted;
  if (weights < WASM_BYTES || !navigator.gpu) return "wasm";
  const adapter = await navigator.gpu.requestAdapter();
  return adapter && !adapter.info?.isFallbackAdapter ? "webgpu" : "wasm";
}

async function open(folder, backend, wanted, files) {
  const graph = files["model.onnx"];
  const weights = files["model.onnx.data"];
  try {
    const ort = await import(`${folder}ort.${backend}.min.mjs`);
    ort.env.wasm.wasmPaths = new URL(folder, self.location.origin).href;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
    ort.env.logLevel = "error";
    return await Engine.open(ort, backend, graph, weights, manifest);
  } catch (error) {
    if (backend !== "webgpu" || wanted === "webgpu") throw error;
    postMessage({ type: "note", message: `WebGPU did not start (${error.message}); the model runs on the processor instead.` });
    return open(folder, "wasm", wanted, files);
  }
}

async function generate({ number, prompt, maxNewTokens }) {
  stopping = false;
  const started = performance.now();
  const reserve = Math.min(128, Math.floor(engine.context / 4)); // room that is kept for the answer
  let fitted = { ids: prompter.encode(prompt), dropped: 0 };
  if (typeof prompt !== "string") fitted = fitTurns(prompter, prompt, engine.context - reserve);
  if (!fitted.ids || fitted.ids.length >= engine.context) {
    const length = fitted.length ?? fitted.ids.length;
    throw new Error(`That message is too long: ${length} tokens, and this model reads ${engine.context - reserve} at once. Shorten it, please.`);
  }
  if (fitted.ids.length === 0) throw new Error("an empty prompt; at least one token is needed");
  const pieces = new TextPieces(prompter);
  const tokens = [];
  const margins = [];
  let text = "";
  let first = 0;
  const result = await engine.generate(fitted.ids, {
    limit: maxNewTokens,
    stopIds,
    onChunk: async () => (await breathe(), stopping),
    onToken: async (token, margin) => {
      first ||= performance.now();
      tokens.push(token);
      margins.push(margin);
      const piece = pieces.push(token);
      text += piece;
      postMessage({ type: "token", number, token, margin, text: piece });
      await breathe();
      return stopping;
    },
  });
  if (result.margin !== undefined) margins.push(result.margin); // the step that chose to end
  const rest = pieces.end();
  text += rest;
  const seconds = (performance.now() - (first || started)) / 1000;
  const speed = tokens.length > 1 ? (tokens.length - 1) / seconds : 0;
  postMessage({ type: "done", number, tokens, margins, text, rest, ended: result.ended, speed, dropped: fitted.dropped, prompt: fitted.ids });
}

// One thing after the other: the cache belongs to one answer at a time.
function inTurn(number, work) {
  queue = queue.then(work).catch((error) => {
    engine?.forget();
    postMessage({ type: "failed", number, message: String(error?.message ?? error) });
  });
}

self.onmessage = ({ data }) => {
  if (data.type === "stop") stopping = true;
  else if (data.type === "load") inTurn(undefined, () => load(data.backend));
  else if (data.type === "generate") inTurn(data.number, () => generate(data));
  else if (data.type === "forget") inTurn(undefined, async () => engine.forget());
};
