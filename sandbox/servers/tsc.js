// A warm TypeScript compiler: compiles one source after the other and runs none of them. The library's declarations are
// parsed once. Argument: typescript.js. Standard input and output: as JavaCompile.java has them, with tsc's exit code. The option
// `--esModuleInterop` may precede the name. A source may follow declarations of node's names (`sandbox/node_names.py`), each after a NUL.
"use strict";
const fs = require("fs");
const path = require("path");
const ts = require(process.argv[2]);

const options = {
  target: ts.ScriptTarget.ES2020,
  module: ts.ModuleKind.CommonJS,
  skipLibCheck: true,
  types: [],
  newLine: ts.NewLineKind.LineFeed,
};
const library = path.dirname(process.argv[2]);
const parsed = new Map();
let before;

function compile(asked, text) {
  const name = asked.split(" ").pop();
  const [source, declared] = text.startsWith("\0") ? text.slice(1).split("\0").reverse() : [text, ""];
  const given = { [name]: source, ...(declared && { "names-of-node.d.ts": declared }) };
  const files = {};
  const host = {
    fileExists: (file) => file in given || file.startsWith(library + "/"),
    readFile: () => undefined,
    getSourceFile(file, target) {
      if (file in given) return ts.createSourceFile(file, given[file], target);
      if (!file.startsWith(library + "/")) return undefined;
      if (!parsed.has(file)) parsed.set(file, ts.createSourceFile(file, fs.readFileSync(file, "utf8"), target));
      return parsed.get(file);
    },
    getDefaultLibFileName: (used) => path.join(library, ts.getDefaultLibFileName(used)),
    writeFile(file, text) {
      files[file] = text;
    },
    getCurrentDirectory: () => "",
    directoryExists: () => false,
    getDirectories: () => [],
    getCanonicalFileName: (file) => file,
    useCaseSensitiveFileNames: () => true,
    getNewLine: () => "\n",
  };
  const interop = { ...options, esModuleInterop: asked !== name };
  const program = ts.createProgram(Object.keys(given), interop, host, before);
  before = program;
  const own = program.getSourceFile(name);
  const found = [
    ...program.getOptionsDiagnostics(),
    ...program.getGlobalDiagnostics(),
    ...program.getSyntacticDiagnostics(own),
  ];
  if (found.length === 0) found.push(...program.getSemanticDiagnostics(own));
  if (found.length > 0) return { code: 2, said: ts.formatDiagnostics(found, host), files: {} };
  program.emit(own);
  return { code: 0, said: "", files };
}

function read(length) {
  const data = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    let count = 0;
    try {
      count = fs.readSync(0, data, at, length - at);
    } catch (error) {
      if (error.code === "EAGAIN") continue;
      if (error.code !== "EOF") throw error;
    }
    if (count === 0) process.exit(0);
    at += count;
  }
  return data;
}

const readNumber = () => read(4).readUInt32BE();
const readText = () => read(readNumber()).toString("utf8");

function write(...values) {
  const parts = [];
  for (const value of values) {
    const head = Buffer.alloc(4);
    const body = typeof value === "number" ? Buffer.alloc(0) : Buffer.from(value, "utf8");
    head.writeUInt32BE(typeof value === "number" ? value : body.length);
    parts.push(head, body);
  }
  const all = Buffer.concat(parts);
  for (let at = 0; at < all.length; ) at += fs.writeSync(1, all, at);
}

for (;;) {
  const name = readText();
  const { code, said, files } = compile(name, readText());
  write(code, said, Object.keys(files).length, ...Object.entries(files).flat());
}
