// A filter to start from: refuses some callers, counts the others, and greets the app with each.

import * as metrics from "weft:filter/metrics@0.2.0";
import { field, parsed, pass, respond, unpacked } from "./weft.js";

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
    const account = unpacked(values)[0]?.[0] ?? "nobody";
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
