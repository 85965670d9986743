// A filter to start from: refuses some callers, counts the others, and greets the app with each.

import * as metrics from "weft:filter/metrics@0.2.0";

// What each configuration has made, by its id.
const configurations = new Map();

export const configuration = {
  // What is thrown as text refuses the configuration; other errors trap.
  configure(id, config) {
    const refused = accounts(config);
    const seen = metrics.define("counter", "seen_total", ["account"]);
    configurations.set(id, { refused, seen });
    const account = { name: "source.service-account", optional: false };
    return { hooks: [{ name: "request-head", values: [account], options: [] }] };
  },
  forget(id) {
    configurations.delete(id);
  },
};

export const requestHead = {
  onRequestHead(call, values) {
    const { refused, seen } = configurations.get(call.config);
    const account = unpacked(values)[0] ?? "nobody";
    if (refused.includes(account)) return respond(403, "caller_refused", "go away\n", account);
    metrics.add(seen, [account], 1);
    return pass([{ tag: "set", val: field("x-greeting", `hello ${account}`) }]);
  },
};

function accounts(config) {
  const { refused = [], ...others } = parsed(config);
  for (const name in others) throw `${name}: there is no such field`;
  if (!Array.isArray(refused)) throw "refused: a list is wanted";
  refused.forEach((name, index) => {
    if (typeof name !== "string") throw `refused[${index}]: a text is wanted`;
  });
  return refused;
}

function parsed(config) {
  let value;
  try {
    value = config === "" ? {} : JSON.parse(config);
  } catch (error) {
    throw String(error);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw "an object is wanted";
  return value;
}

// The first value of each position in what the hook asked for. Bytes are characters of the same number.
function unpacked(values) {
  const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
  const found = [];
  for (let at = 0; at < values.length; ) {
    const position = view.getUint16(at, true);
    const start = at + 8 + view.getUint16(at + 2, true);
    at = start + view.getUint32(at + 4, true);
    found[position] ??= String.fromCharCode(...values.subarray(start, at));
  }
  return found;
}

function bytes(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function field(name, value) {
  return { name, value: bytes(value) };
}

function pass(edits = []) {
  return { verdict: { tag: "continue" }, edits, cookie: null };
}

function respond(status, reason, text, rule = null) {
  const headers = [field("content-type", "text/plain")];
  const reply = { status, headers, body: bytes(text), rule, reason, afterMs: 0 };
  return { verdict: { tag: "respond", val: reply }, edits: [], cookie: null };
}
