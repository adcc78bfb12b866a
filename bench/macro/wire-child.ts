/**
 * The other process of the bench `wire`: a node with one worker, an actor on the receiving thread over each transport, and the bare servers that are
 * compared with; with the argument `moleculer`, a broker of Moleculer and nothing else.
 *
 * Invariant: it says where everything is reached once all of it listens, and ends with its parent.
 */
import { Worker } from "node:worker_threads";
import { Cluster } from "../../src/index.ts";
import type { Credentials } from "../../src/transport/session.ts";
import { serveMoleculer } from "../compare/moleculer.ts";
import { serveTls, serveWeb } from "./wire-raw.ts";
import { ACTORS_URL, networkOf, type WirePeerOptions, type WirePorts } from "./wire-setup.ts";
import { serveActor } from "./wire-thread.ts";

async function run({ node, credentials }: WirePeerOptions): Promise<void> {
  const worker = new Worker(new URL("./wire.worker.js", import.meta.url));
  const [echo, forward, bulk] = await Promise.all(
    (["echo", "forward", "bulk"] as const).map((kind) => serveTls(kind, credentials, worker)),
  );
  const web = await serveWeb(credentials);
  const tls = await actorOver("tls", credentials);
  const https = await actorOver("https", credentials);
  await Cluster.start({ workers: 1, memoryBytes: 64 * 1024 * 1024, actors: [ACTORS_URL], node });
  const ports: WirePorts = {
    ...{ echo: echo?.port ?? 0, forward: forward?.port ?? 0, bulk: bulk?.port ?? 0, web: web.port },
    ...{ tls, https },
  };
  process.send?.(ports);
}

async function actorOver(scheme: "tls" | "https", credentials: Credentials): Promise<string> {
  const network = await networkOf("b", scheme, credentials, [new URL(`${scheme}://127.0.0.1:0`)], () => undefined);
  network.listen(serveActor);
  return network.addresses[0]?.href ?? "";
}

process.once("disconnect", () => process.exit(0));
if (process.argv[2] === "moleculer") void serveMoleculer();
else process.once("message", (options: WirePeerOptions) => void run(options));
