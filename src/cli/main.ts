#!/usr/bin/env node
/**
 * The executable `shardloom`: wires the commands to this process, its streams and its signals.
 *
 * Invariant: the first SIGINT or SIGTERM aborts the command, which closes what it opened; the second ends the process.
 * A reader that goes away (`shardloom … | head`) is no failure.
 */
import { readFileSync } from "node:fs";
import { backup } from "./backup.ts";
import { bench } from "./bench.ts";
import { certs } from "./certs.ts";
import { cluster } from "./cluster.ts";
import type { Command } from "./command.ts";
import { demo } from "./demo.ts";
import { graph } from "./graph.ts";
import { info } from "./info.ts";
import { load } from "./load.ts";
import { log } from "./log.ts";
import { node } from "./node.ts";
import { placement } from "./placement.ts";
import { runProgram } from "./program.ts";
import { restore } from "./restore.ts";
import { sim } from "./sim.ts";
import { verify } from "./verify.ts";

const COMMANDS: readonly Command[] = [
  demo,
  load,
  graph,
  bench,
  info,
  placement,
  node,
  cluster,
  certs,
  backup,
  restore,
  verify,
  log,
  sim,
];

const controller = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => controller.abort());
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(0);
  });
}

process.exitCode = await runProgram(process.argv.slice(2), {
  commands: COMMANDS,
  defaultCommand: "demo",
  version: readVersion(),
  stdout: process.stdout,
  stderr: process.stderr,
  signal: controller.signal,
});

function readVersion(): string {
  const manifest = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}
