/**
 * What leads out of a world: every global and built-in module function that reads real time or chance, waits, or does I/O.
 *
 * Invariant: a name that is missing here is not trapped. What is deterministic stays: microtasks, `process.nextTick`, `structuredClone`,
 * hashes, synchronous compression, reading dates that are given. Output on the console stays too: nothing comes back from it.
 */

/** What kind of escape a call is. Modules that are being loaded may read files and the time. */
export type EscapeKind = "time" | "chance" | "later" | "io" | "files";

/** What an `import()` of a module that was not loaded before is called: there is no function to replace. */
export const IMPORT_CALL = "import()";

/** Functions of global objects: `[path of the object, names]`. */
export const GLOBAL_TRAPS: readonly (readonly [EscapeKind, string, readonly string[]])[] = [
  ["time", "performance", ["now", "mark", "measure", "timerify", "toJSON", "eventLoopUtilization"]],
  ["time", "Performance.prototype", ["now", "mark", "measure", "timerify", "toJSON", "eventLoopUtilization"]],
  [
    "time",
    "process",
    ["hrtime", "uptime", "cpuUsage", "resourceUsage", "memoryUsage", "constrainedMemory", "availableMemory"],
  ],
  ["time", "Temporal.Now", ["instant", "zonedDateTimeISO", "plainDateTimeISO", "plainDateISO", "plainTimeISO"]],
  ["chance", "Math", ["random"]],
  ["chance", "crypto", ["getRandomValues", "randomUUID"]],
  ["chance", "Crypto.prototype", ["getRandomValues", "randomUUID"]],
  ["later", "", ["setTimeout", "setInterval", "setImmediate"]],
  ["later", "AbortSignal", ["timeout"]],
  ["later", "Atomics", ["wait"]],
  ["io", "", ["fetch", "WebSocket", "EventSource", "MessageChannel", "BroadcastChannel"]],
  ["io", "WebAssembly", ["compile", "instantiate", "compileStreaming", "instantiateStreaming"]],
  [
    "io",
    "crypto.subtle",
    [
      "digest",
      "generateKey",
      "sign",
      "verify",
      "encrypt",
      "decrypt",
      "deriveBits",
      "deriveKey",
      "importKey",
      "exportKey",
      "wrapKey",
      "unwrapKey",
    ],
  ],
  ["io", "process", ["exit", "abort", "kill", "chdir", "dlopen", "binding", "_linkedBinding"]],
  ["io", "process.report", ["getReport", "writeReport"]],
];

/** Properties that are read and tell the time. */
export const GETTER_TRAPS: readonly (readonly [path: string, names: readonly string[]])[] = [
  ["performance", ["timeOrigin"]],
  ["Performance.prototype", ["timeOrigin"]],
  ["Event.prototype", ["timeStamp"]],
];

/** Functions that take a date, and without one the time: `[path of the object, names]`. `format` is read before it is called. */
export const DATE_TRAPS: readonly (readonly [path: string, names: readonly string[]])[] = [
  ["Intl.DateTimeFormat.prototype", ["format", "formatToParts"]],
];

/** Functions of built-in modules, or of objects that these export. `all`: every function that the module exports, but for those in `except`. */
export const MODULE_TRAPS: readonly {
  readonly kind: EscapeKind;
  readonly module: string;
  readonly names: "all" | readonly string[];
  readonly except?: readonly string[];
}[] = [
  { kind: "files", module: "fs", names: "all", except: ["Stats", "Dirent", "_toUnixTimestamp"] },
  { kind: "files", module: "fs/promises", names: "all" },
  { kind: "io", module: "net", names: "all", except: ["isIP", "isIPv4", "isIPv6", "BlockList", "SocketAddress"] },
  { kind: "io", module: "tls", names: "all", except: ["getCiphers", "checkServerIdentity"] },
  { kind: "io", module: "http", names: "all", except: ["validateHeaderName", "validateHeaderValue"] },
  { kind: "io", module: "https", names: "all" },
  {
    kind: "io",
    module: "http2",
    names: "all",
    except: ["getDefaultSettings", "getPackedSettings", "getUnpackedSettings"],
  },
  { kind: "io", module: "dgram", names: "all" },
  { kind: "io", module: "dns", names: "all" },
  { kind: "io", module: "dns/promises", names: "all" },
  { kind: "io", module: "child_process", names: "all" },
  { kind: "io", module: "readline", names: "all", except: ["clearLine", "clearScreenDown", "cursorTo", "moveCursor"] },
  {
    kind: "io",
    module: "worker_threads",
    names: ["Worker", "MessageChannel", "BroadcastChannel", "receiveMessageOnPort"],
  },
  { kind: "time", module: "os", names: ["uptime", "loadavg", "freemem", "cpus", "networkInterfaces"] },
  { kind: "io", module: "sqlite", names: "all", except: ["constants"] },
  { kind: "io", module: "inspector", names: ["open", "close", "url", "waitForDebugger", "Session"] },
  { kind: "io", module: "inspector/promises", names: ["open", "close", "url", "waitForDebugger", "Session"] },
  { kind: "later", module: "timers", names: ["setTimeout", "setInterval", "setImmediate"] },
  {
    kind: "later",
    module: "timers/promises",
    names: ["setTimeout", "setInterval", "setImmediate", "scheduler.wait", "scheduler.yield"],
  },
  { kind: "later", module: "perf_hooks", names: ["monitorEventLoopDelay", "PerformanceObserver"] },
  // Another realm has a clock and chance of its own.
  { kind: "time", module: "vm", names: ["createContext", "runInContext", "runInNewContext", "Script"] },
  {
    kind: "time",
    module: "v8",
    names: ["getHeapStatistics", "getHeapSpaceStatistics", "getHeapSnapshot", "writeHeapSnapshot"],
  },
  {
    kind: "chance",
    module: "crypto",
    names: [
      "randomBytes",
      "pseudoRandomBytes",
      "randomFill",
      "randomFillSync",
      "randomInt",
      "randomUUID",
      "getRandomValues",
      "generateKey",
      "generateKeySync",
      "generateKeyPair",
      "generateKeyPairSync",
      "generatePrime",
      "generatePrimeSync",
      "createECDH",
      "createDiffieHellman",
      "getDiffieHellman",
    ],
  },
  { kind: "io", module: "crypto", names: ["pbkdf2", "scrypt", "hkdf", "checkPrime"] },
  {
    kind: "io",
    module: "zlib",
    names: [
      "deflate",
      "inflate",
      "gzip",
      "gunzip",
      "deflateRaw",
      "inflateRaw",
      "unzip",
      "brotliCompress",
      "brotliDecompress",
      "createDeflate",
      "createInflate",
      "createGzip",
      "createGunzip",
      "createDeflateRaw",
      "createInflateRaw",
      "createUnzip",
      "createBrotliCompress",
      "createBrotliDecompress",
    ],
  },
];
