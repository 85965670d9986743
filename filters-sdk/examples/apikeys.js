// API keys: a request passes with a key whose SHA-256 the configuration has, under its client's name. Keys themselves
// stand nowhere. Needs the capability `crypto`.

import * as crypto from "weft:filter/crypto@0.2.0";
import * as log from "weft:filter/log@0.2.0";

const configurations = new Map();

export const configuration = {
  configure(id, config) {
    const { clients, header = "x-api-key" } = parsed(config);
    if (typeof header !== "string") throw "header: a text is wanted";
    if (typeof clients !== "object" || clients === null) throw "clients: an object is wanted";
    const byHash = new Map();
    for (const [client, hash] of Object.entries(clients)) {
      if (!/^[0-9a-f]{64}$/i.test(hash)) throw `clients.${client}: 64 hex digits are wanted`;
      const other = byHash.get(hash.toLowerCase());
      if (other !== undefined) throw `clients.${client}: it has the key of ${other}`;
      byHash.set(hash.toLowerCase(), client);
    }
    configurations.set(id, { header, byHash });
    const key = { name: `request.header.${header}`, optional: false };
    return { hooks: [{ name: "request-head", values: [key], options: [] }] };
  },
  forget(id) {
    configurations.delete(id);
  },
};

export const requestHead = {
  onRequestHead(call, values) {
    const { header, byHash } = configurations.get(call.config);
    const keys = unpacked(values);
    if (keys.length !== 1) return respond(401, "key_missing", "one API key is wanted\n");
    let hash;
    try {
      hash = crypto.sha256(keys[0]);
    } catch (error) {
      log.write("warn", "no key can be checked");
      return respond(503, "key_unverifiable", "no key can be checked\n");
    }
    const client = byHash.get(Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join(""));
    if (client === undefined) return respond(401, "key_unknown", "the API key is none\n");
    const edits = [
      { tag: "remove", val: header },
      { tag: "set", val: field("x-api-client", client) },
      { tag: "attribute", val: field("filter.apikeys.client", client) },
    ];
    return { verdict: { tag: "continue" }, edits, cookie: null };
  },
};

function parsed(config) {
  try {
    return JSON.parse(config) ?? {};
  } catch (error) {
    throw String(error);
  }
}

// All values; the hook asked for one name.
function unpacked(values) {
  const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
  const found = [];
  for (let at = 0; at < values.length; ) {
    const start = at + 8 + view.getUint16(at + 2, true);
    at = start + view.getUint32(at + 4, true);
    found.push(values.slice(start, at));
  }
  return found;
}

function bytes(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function field(name, value) {
  return { name, value: bytes(value) };
}

function respond(status, reason, text) {
  const headers = [field("content-type", "text/plain")];
  const reply = { status, headers, body: bytes(text), rule: null, reason, afterMs: 0 };
  return { verdict: { tag: "respond", val: reply }, edits: [], cookie: null };
}
