// API keys: a request passes with a key whose SHA-256 the configuration has, under its client's name. Keys themselves
// stand nowhere. Needs the capability `crypto`.

import * as crypto from "weft:filter/crypto@0.2.0";
import * as log from "weft:filter/log@0.2.0";
import { bytes, field, parsed, pass, respond, unpacked } from "./weft.js";

const configurations = new Map();

export const configuration = {
  configure(id, config) {
    const { clients, header = "x-api-key" } = parsed(config);
    if (typeof header !== "string") throw "header: a text is wanted";
    if (typeof clients !== "object" || clients === null || Array.isArray(clients)) throw "clients: an object is wanted";
    const byHash = new Map();
    for (const [client, hash] of Object.entries(clients)) {
      if (typeof hash !== "string" || !/^[0-9a-f]{64}$/i.test(hash)) throw `clients.${client}: 64 hex digits are wanted`;
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
    const keys = unpacked(values)[0] ?? [];
    if (keys.length !== 1) return respond(401, "key_missing", "one API key is wanted\n");
    let hash;
    try {
      hash = crypto.sha256(bytes(keys[0]));
    } catch (error) {
      log.write("warn", "no key can be checked");
      return respond(503, "key_unverifiable", "no key can be checked\n");
    }
    const client = byHash.get(Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join(""));
    if (client === undefined) return respond(401, "key_unknown", "the API key is none\n");
    return pass([
      { tag: "remove", val: header },
      { tag: "set", val: field("x-api-client", client) },
      { tag: "attribute", val: field("filter.apikeys.client", client) },
    ]);
  },
};
