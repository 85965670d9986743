// node componentize.mjs SOURCE WIT WORLD OUT: a component of a module, by SpiderMonkey.
import { readFile, writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const [source, witPath, worldName, out] = process.argv.slice(2);
const text = await readFile(source, "utf8");
const options = { sourceName: "stamp.js", witPath, worldName, disableFeatures: ["http", "fetch-event"] };
const { component } = await componentize(text, options);
await writeFile(out, component);
