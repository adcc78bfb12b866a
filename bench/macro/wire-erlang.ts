/** Erlang distribution's figures for W7: two nodes on loopback running `bench/compare/distribution.erl`, when `erl` is on the path. */
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { freePort } from "./wire-setup.ts";

const SOURCE: string = fileURLToPath(new URL("../../../bench/compare/distribution.erl", import.meta.url));
const RUN_MS = 120_000;

/** What one run measured, per second. */
export interface DistributionFigures {
  readonly asks: number;
  readonly oneWay: number;
}

/** Runs both nodes `rounds` times; undefined, with the reason logged, when there is no Erlang. */
export async function runDistribution(
  root: string,
  messages: number,
  rounds: number,
  log: (line: string) => void,
): Promise<DistributionFigures[] | undefined> {
  const folder = join(root, "erlang");
  mkdirSync(folder, { recursive: true });
  try {
    execFileSync("erlc", ["-o", folder, SOURCE], { stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    log(`W7 skipped: ${error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error)}`);
    return undefined;
  }
  // A port that both know stands for the daemon that would tell it, which outlives whoever starts it.
  const port = await freePort();
  const of = (name: string): string[] => [
    ...["-noshell", "-name", `${name}@127.0.0.1`, "-setcookie", cookie, "-pa", folder],
    ...["-start_epmd", "false", "-erl_epmd_port", String(port)],
  ];
  const cookie = randomBytes(8).toString("hex");
  const server = spawn("erl", [...of("b"), "-run", "distribution", "serve"], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: server.stdout }).once("line", () => resolve());
      server.once("exit", () => reject(new Error("Erlang's second node has ended")));
    });
    return Array.from({ length: rounds }, () => {
      const args = [
        ...of("a"),
        "-dist_listen",
        "false",
        "-run",
        "distribution",
        "main",
        "b@127.0.0.1",
        String(messages),
      ];
      const output = execFileSync("erl", args, { encoding: "utf8", timeout: RUN_MS });
      const [asks = Number.NaN, oneWay = Number.NaN, counted] = output.trim().split(" ").map(Number);
      if (counted !== messages || !(asks > 0) || !(oneWay > 0))
        throw new Error(`Erlang counted ${counted} of ${messages} messages`);
      return { asks, oneWay };
    });
  } finally {
    server.kill("SIGKILL");
  }
}
