// What filters in JavaScript share: the configuration, values, outcomes. Bytes are characters of the same number.

// The configuration as an object. What is thrown as text refuses it.
export function parsed(config) {
  let value;
  try {
    value = config === "" ? {} : JSON.parse(config);
  } catch (error) {
    throw String(error);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw "an object is wanted";
  return value;
}

// For each position in what the hook asked for its values, in order; nothing where there is none.
export function unpacked(values) {
  const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
  const found = [];
  for (let at = 0; at < values.length; ) {
    const position = view.getUint16(at, true);
    const start = at + 8 + view.getUint16(at + 2, true);
    at = start + view.getUint32(at + 4, true);
    (found[position] ??= []).push(text(values.subarray(start, at)));
  }
  return found;
}

export function bytes(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

export function text(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

export function field(name, value) {
  return { name, value: bytes(value) };
}

// The request goes on with these edits.
export function pass(edits = []) {
  return { verdict: { tag: "continue" }, edits, cookie: null };
}

// An answer of plain text in the app's place.
export function respond(status, reason, text, rule = null) {
  const headers = [field("content-type", "text/plain")];
  const reply = { status, headers, body: bytes(text), rule, reason, afterMs: 0 };
  return { verdict: { tag: "respond", val: reply }, edits: [], cookie: null };
}
