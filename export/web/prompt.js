// Text to token ids and back, as the Python side does it; the manifest's golden conversations prove it at every load.

const REPLACEMENT = "\ufffd"; // what a decoder puts where bytes are not a whole character yet

export class Prompter {
  // `Tokenizer` is the class of @huggingface/tokenizers.
  constructor(Tokenizer, tokenizerJson, tokenizerConfig) {
    this.full = new Tokenizer(tokenizerJson, tokenizerConfig);
    // A twin without special tokens: whatever a user types is text, so nobody can write a turn of another role.
    const added = (tokenizerJson.added_tokens ?? []).filter((token) => !token.special);
    this.plain = new Tokenizer({ ...tokenizerJson, added_tokens: added }, tokenizerConfig);
    this.ids = new Map((tokenizerJson.added_tokens ?? []).map((token) => [token.content, token.id]));
    this.newline = this.encodeText("\n");
  }

  encodeText(text) {
    return this.plain.encode(text, { add_special_tokens: false }).ids;
  }

  special(name) {
    const id = this.ids.get(name);
    if (id === undefined) throw new Error(`the tokenizer has no token ${name}; one with phi-3's special tokens is needed`);
    return id;
  }

  // Turns [{role, content}] or a text that is taken as it is.
  encode(prompt) {
    if (typeof prompt === "string") return this.full.encode(prompt, { add_special_tokens: false }).ids;
    const ids = [];
    for (const { role, content } of prompt) {
      ids.push(this.special(`<|${role}|>`), ...this.encodeText(`\n${content}`), this.special("<|end|>"), ...this.newline);
    }
    ids.push(this.special("<|assistant|>"), ...this.newline);
    return ids;
  }

  decode(ids) {
    return ids.length ? this.full.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false }) : "";
  }

  // Throws where this browser would build another prompt than the package was checked with.
  checkGolden(chats) {
    for (const chat of chats ?? []) {
      const ids = this.encode(chat.turns);
      if (ids.length !== chat.ids.length || ids.some((id, place) => id !== chat.ids[place])) {
        throw new Error("this browser's tokenizer does not build the prompt that the package was checked with");
      }
    }
  }
}

// Text as it becomes certain: a character whose bytes lie in several tokens appears once, whole.
export class TextPieces {
  constructor(prompter) {
    this.prompter = prompter;
    this.ids = [];
    this.start = 0;
    this.shown = 0;
  }

  fresh(last) {
    const before = this.prompter.decode(this.ids.slice(this.start, this.shown));
    const now = this.prompter.decode(this.ids.slice(this.start));
    if (now.length <= before.length || (!last && now.endsWith(REPLACEMENT))) return "";
    [this.start, this.shown] = [this.shown, this.ids.length];
    return now.slice(before.length);
  }

  push(id) {
    this.ids.push(id);
    return this.fresh(false);
  }

  end() {
    return this.fresh(true);
  }
}

// The turns that fit: the oldest question and its answer go first, a system turn stays. `ids` is null where the last question alone is too long.
export function fitTurns(prompter, turns, room) {
  const system = turns.length && turns[0].role === "system" ? [turns[0]] : [];
  let rest = turns.slice(system.length);
  let dropped = 0;
  for (;;) {
    const ids = prompter.encode([...system, ...rest]);
    if (ids.length <= room) return { ids, dropped };
    if (rest.length <= 1) return { ids: null, dropped, length: ids.length };
    const next = rest.findIndex((turn, place) => place > 0 && turn.role === "user");
    if (next < 0) return { ids: null, dropped, length: ids.length };
    dropped += next;
    rest = rest.slice(next);
  }
}
