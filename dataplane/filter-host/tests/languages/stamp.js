// A filter in JavaScript: stamps requests with a word of its configuration, their path and the century.

const words = new Map();

export const configuration = {
  configure(id, config) {
    const word = parsed(config).word;
    if (typeof word !== "string") throw "word: a text is wanted";
    words.set(id, word);
    const path = { name: "request.path", optional: false };
    return { hooks: [{ name: "request-head", values: [path], options: [] }] };
  },
  forget(id) {
    words.delete(id);
  },
};

export const requestHead = {
  onRequestHead(call, values) {
    const path = unpacked(values).get(0) ?? "";
    const century = Math.floor(new Date().getUTCFullYear() / 100);
    // SpiderMonkey has a console, QuickJS none.
    globalThis.console?.log(`stamps ${path}`);
    const value = bytes(`${words.get(call.config)} ${path} ${century}`);
    return { verdict: { tag: "continue" }, edits: [{ tag: "set", val: { name: "x-stamp", value } }], cookie: null };
  },
};

// What is thrown as text refuses the configuration; other errors would trap.
function parsed(config) {
  try {
    return JSON.parse(config);
  } catch (error) {
    throw String(error);
  }
}

// Values by their position in what was asked for, the last of each.
function unpacked(values) {
  const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
  const found = new Map();
  for (let at = 0; at < values.length; ) {
    const name = view.getUint16(at + 2, true);
    const start = at + 8 + name;
    const end = start + view.getUint32(at + 4, true);
    found.set(view.getUint16(at, true), String.fromCharCode(...values.subarray(start, end)));
    at = end;
  }
  return found;
}

function bytes(text) {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}
