// The graph inside onnxruntime-web: fed in chunks, keys and values handed from one call to the next.
//
// What one run calls present.N.* the next calls past_key_values.N.*. On WebGPU these stay in GPU memory. onnxruntime-web's wasm
// backend copies inputs and outputs through its own heap, so there the arrays it returns go back in as they are, unread.

const CHUNK = 256; // tokens fed at once; bounds the memory of logits and attention scores

export class Engine {
  constructor(ort, session, manifest, backend) {
    this.ort = ort;
    this.session = session;
    this.backend = backend;
    this.context = manifest.limits.context;
    [, this.heads, , this.width] = manifest.limits.kv_shape;
    this.vocabulary = manifest.architecture.vocab_size;
    this.pastNames = session.inputNames.filter((name) => name.startsWith("past_key_values."));
    this.forget();
  }

  static async open(ort, backend, graph, weights, manifest) {
    const layers = manifest.architecture.num_layers;
    const location = {};
    for (let layer = 0; layer < layers; layer += 1) {
      location[`present.${layer}.key`] = location[`present.${layer}.value`] = "gpu-buffer";
    }
    const session = await ort.InferenceSession.create(graph, {
      executionProviders: [backend],
      externalData: [{ path: "model.onnx.data", data: weights }],
      ...(backend === "webgpu" ? { preferredOutputLocation: location } : {}),
    });
    return new Engine(ort, session, manifest, backend);
  }

  // Empties the cache.
  forget() {
    for (const tensor of Object.values(this.past ?? {})) tensor.dispose();
    this.cached = [];
    this.past = {};
    for (const name of this.pastNames) {
      this.past[name] = new this.ort.Tensor("float32", new Float32Array(0), [1, this.heads, 0, this.width]);
    }
  }

  // Keeps the first `length` tokens of the cache. GPU memory is not cut: there the prompt is fed again.
  keep(length) {
    if (length >= this.cached.length) return;
    if (this.backend === "webgpu" || length === 0) {
      this.forget();
      return;
    }
    const whole = this.cached.length;
    for (const name of this.pastNames) {
      const from = this.past[name].data;
      const to = new Float32Array(this.heads * length * this.width);
      for (let head = 0; head < this.heads; head += 1) {
        const start = head * whole * this.width;
        to.set(from.subarray(start, start + length * this.width), head * length * this.width);
      }
      this.past[name] = new this.ort.Tensor("float32", to, [1, this.heads, length, this.width]);
    }
    this.cached = this.cached.slice(0, length);
  }

  // Feeds a whole prompt but for what the cache begins with; the logits after its last token.
  async prefill(ids, onChunk) {
    let same = 0;
    while (same < this.cached.length && same < ids.length - 1 && this.cached[same] === ids[same]) same += 1;
    this.keep(same);
    let logits = null;
    for (let start = this.cached.length; start < ids.length; start += CHUNK) {
      logits = await this.feed(ids.slice(start, start + CHUNK));
      if (await onChunk()) return null;
    }
    return logits;
  }

  // Appends tokens to the cache; the logits after the last of them, Float32Array (V).
  async feed(ids) {
    const total = this.cached.length + ids.length;
    if (total > this.context) throw new Error(`${total} tokens do not fit the context of ${this.context}`);
    const { Tensor } = this.ort;
    const feeds = {
      input_ids: new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]),
      attention_mask: new Tensor("int64", new BigInt64Array(total).fill(1n), [1, total]),
      ...this.past,
    };
    const results = await this.session.run(feeds);
    for (const name of this.pastNames) {
      this.past[name].dispose();
      this.past[name] = results[name.replace("past_key_values", "present")];
    }
    this.cached.push(...ids);
    const logits = results.logits.data.slice((ids.length - 1) * this.vocabulary, ids.length * this.vocabulary);
    results.logits.dispose();
    return logits;
  }

  // Greedy tokens until a stop id, `limit`, the end of the context, or until `onToken` answers true. `onToken(token, margin)` may be async.
  async generate(ids, { limit, stopIds, onToken, onChunk }) {
    const last = Math.min(limit, this.context - ids.length);
    let logits = await this.prefill(ids, onChunk);
    for (let count = 0; logits && count < last; count += 1) {
      const { token, margin } = topTwo(logits);
      if (stopIds.has(token)) return { ended: "stop", margin };
      if (await onToken(token, margin)) return { ended: "stopped" };
      if (count + 1 < last) logits = await this.feed([token]);
    }
    return { ended: logits ? "length" : "stopped" };
  }
}

// The most likely token (the first of equals, as numpy has it) and how far its logit lies above the next.
export function topTwo(logits) {
  let token = 0;
  let second = -Infinity;
  for (let id = 1; id < logits.length; id += 1) {
    if (logits[id] > logits[token]) {
      second = logits[token];
      token = id;
    } else if (logits[id] > second) second = logits[id];
  }
  return { token, margin: logits[token] - second };
}
